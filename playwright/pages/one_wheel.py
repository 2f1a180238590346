"""What a worker of the tests calls that has Pyodide and the wheel, and nothing else of durably."""

import json
import os

import jobs

from durably import Durably, StorageError, create_durably


async def survive() -> str:
    """Let what is unfinished go on, else begin a run; its output, from a store that was taken out and put back."""
    async with create_durably("one-wheel.sqlite3", jobs=[jobs.chain]) as durably:
        unfinished = await durably.get_runs(status=["pending", "running"])
        run = unfinished[0] if unfinished else await durably.jobs.chain.trigger({"ledger": os.environ["LEDGER"]})
        done = await durably.wait_for_run(run.id)
        await durably.import_database(await durably.export())
        [kept] = await durably.get_runs()
        return json.dumps([kept.id == done.id, kept.output, (await durably.storage_info()).kind])


async def refused() -> str:
    """What is said of a database where the bridge cannot be started from a Blob, and of one whose name is too long.

    In between the bridge's address is given.
    """
    durably = create_durably("refused.sqlite3")
    no_bridge = await refusal(durably)
    os.environ["DURABLY_BRIDGE_URL"] = "/elsewhere/bridge.mjs"
    await durably.init()
    kind = (await durably.storage_info()).kind
    await durably.stop()
    return json.dumps([no_bridge, kind, await refusal(create_durably("long" * 200))])


async def refusal(durably: Durably) -> str:
    try:
        await durably.init()
    except StorageError as error:
        return str(error)
    return "nothing was refused"
