"""What a worker of the tests calls that has Pyodide and the wheel, and nothing else of durably."""

import json
import os

import jobs

from durably import StorageError, create_durably


async def survive() -> str:
    """Let what is unfinished go on, else begin a run; its output."""
    async with create_durably("one-wheel.sqlite3", jobs=[jobs.chain]) as durably:
        unfinished = await durably.get_runs(status=["pending", "running"])
        run = unfinished[0] if unfinished else await durably.jobs.chain.trigger({"ledger": os.environ["LEDGER"]})
        done = await durably.wait_for_run(run.id)
        return json.dumps([done.output, (await durably.storage_info()).kind])


async def refused() -> str:
    """Open a database where the bridge cannot be started from a Blob, hear why, and give its address."""
    durably = create_durably("refused.sqlite3")
    try:
        await durably.init()
        refusal = ""
    except StorageError as error:
        refusal = str(error)
    os.environ["DURABLY_BRIDGE_URL"] = "/elsewhere/bridge.mjs"
    await durably.init()
    kind = (await durably.storage_info()).kind
    await durably.stop()
    return json.dumps([refusal, kind])
