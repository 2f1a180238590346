"""What the tests kill: jobs whose every step leaves a line in a ledger, or a row in a table.

As a program: killed_program.py DATABASE LEDGER STEPS
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from typing import Any

from durably import Durably, StepContext, create_durably, define_job

MANY = 1_000_000
"""Crashes that are nobody's fault here."""

MAKE_TABLE = "CREATE TABLE IF NOT EXISTS appended (run_id TEXT, step TEXT)"


def open_durably(database: str, ledger: str, **options: Any) -> Durably:
    """An instance with the two jobs. The leases are short: nobody but the dead is ever late."""
    fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(run_id: str, name: str) -> None:
        # One write to a file opened for appending: whole, and after all that was written before.
        os.write(fd, f"{run_id} {name} {time.time_ns() // 1_000_000}\n".encode())

    async def squares(step: StepContext, count: int) -> int:
        async def square(n: int) -> int:
            note(step.run_id, f"step-{n}")
            await asyncio.sleep(0.005)
            return n * n

        return sum([await step.run(f"step-{n}", square, n) for n in range(count)])

    async def rows(step: StepContext, count: int) -> int:
        async def append(tx: Any, name: str) -> str:
            note(step.run_id, name)
            await tx.execute("INSERT INTO appended VALUES (?, ?)", (step.run_id, name))
            await asyncio.sleep(0.005)
            await tx.execute("INSERT INTO appended VALUES (?, ?)", (step.run_id, f"{name} again"))
            return name

        return len([await step.transaction(f"step-{n}", append, f"step-{n}") for n in range(count)])

    defaults: dict[str, Any] = {
        "polling_interval": 0.01,
        "heartbeat_interval": 0.02,
        "stale_threshold": 0.05,
        "max_crashes": MANY,
    }
    jobs = [define_job(name=job.__name__, input=int, run=job) for job in (squares, rows)]
    return create_durably(database, jobs=jobs, **(defaults | options))


async def work(database: str, ledger: str, job: str, runs: int, steps: int, options: dict[str, Any]) -> None:
    """Trigger `runs` runs, each once however often this is started, and execute until all have completed."""
    durably = open_durably(database, ledger, **options)
    await durably.init()
    handle = durably.get_job(job)
    assert handle is not None
    started = [await handle.trigger(steps, idempotency_key=f"{number}") for number in range(runs)]
    for run in started:
        await durably.wait_for_run(run.id)
    await durably.stop()


async def trigger_one(database: str, ledger: str, job: str, steps: int) -> None:
    """Store a run, and leave it to others."""
    durably = open_durably(database, ledger)
    await durably.migrate()
    handle = durably.get_job(job)
    assert handle is not None
    await handle.trigger(steps)
    await durably.stop()


async def execute_one(database: str, ledger: str, deadly: int) -> None:
    """Execute what there is, and die right after the `deadly`-th SQL statement of this process (0: live)."""
    kill_after(deadly)
    durably = open_durably(database, ledger, heartbeat_interval=0.005, stale_threshold=0.01)
    while await durably.process_one() or await durably.get_runs(status="running"):
        await asyncio.sleep(0.01)
    await durably.stop()


async def migrate(database: str, ledger: str, deadly: int) -> None:
    """Bring the database to the newest schema, and die right after the `deadly`-th SQL statement."""
    kill_after(deadly)
    durably = open_durably(database, ledger)
    await durably.migrate()
    await durably.stop()


def kill_after(deadly: int) -> None:
    """Let every connection of this process count its statements, and kill the process after one of them."""
    done = 0

    class Deadly(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            nonlocal done
            cursor = super().execute(*args)
            done += 1
            if done == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return cursor

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Deadly, **kwargs)  # type: ignore[assignment]  # looser


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], "squares", 1, int(sys.argv[3]), {}))
