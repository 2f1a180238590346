"""The program that `test_kill.py` kills: one job, whose every step leaves a line in a ledger.

killed_program.py DATABASE LEDGER STEPS
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from durably import StepContext, create_durably, job


def main(database: str, ledger: Path, steps: int) -> None:
    async def square(n: int) -> int:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"step-{n}\n")
            file.flush()
            os.fsync(file.fileno())
        await asyncio.sleep(0.005)
        return n * n

    @job
    async def squares(step: StepContext, count: int) -> int:
        return sum([await step.run(f"step-{n}", square, n) for n in range(count)])

    async def work() -> None:
        durably = create_durably(
            database, jobs=[squares], polling_interval=0.02, heartbeat_interval=0.05, stale_threshold=0.2
        )
        await durably.init()
        run = await durably.jobs.squares.trigger(steps, idempotency_key="the one")
        await durably.wait_for_run(run.id, timeout=20)
        await durably.stop()

    asyncio.run(work())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
