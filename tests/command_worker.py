"""A program that works on a file while the tests of the command look at it: command_worker.py FILE."""

from __future__ import annotations

import asyncio
import sys

from durably import StepContext, create_durably, job


@job
async def patient(step: StepContext, name: str) -> str:
    await step.run("greet", lambda: f"hello {name}")
    step.progress(1, 3, "greeted")
    await step.wait_for_signal("go")
    step.progress(3, 3)
    return f"bye {name}"


@job
async def endless(step: StepContext, payload: None) -> None:
    async def wait() -> None:
        print("begun", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("let go", flush=True)

    await step.run("wait", wait)


JOBS = [patient, endless]


async def main(file: str) -> None:
    durably = create_durably(
        file, jobs=JOBS, polling_interval=0.01, heartbeat_interval=0.02, stale_threshold=5, max_concurrent_runs=2
    )
    await durably.init()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
