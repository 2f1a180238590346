"""API.md section 4: a worker that has lost its run, and one that is merely busy."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, found, opened, quick, types, until, watched

from durably import LeaseLostError, StepContext, create_durably
from durably.testing import ManualClock

pytestmark = pytest.mark.slow


@contract
async def test_a_worker_that_lost_its_run_can_write_nothing_more(tmp_path: Path) -> None:
    """'A worker that lost its run (fenced by `generation`) can write nothing more for it: its next step raises
    `LeaseLostError`'"""
    here, go = asyncio.Event(), asyncio.Event()
    raised: list[BaseException] = []
    workers: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        who = workers.pop(0)

        async def first() -> str:
            if who == "frozen":
                here.set()
                await asyncio.shield(go.wait())
            return who

        try:
            await step.run("first", first)
            step.progress(99, message=who)
            return await step.run("second", lambda: who)
        except BaseException as error:
            raised.append(error)
            raise

    # Each worker has a clock of its own: the frozen one's stands still, so that nothing tells it of the time.
    frozen, _ = await opened(tmp_path / "a.sqlite3", body_job(body))
    later = ManualClock(datetime(2026, 1, 1, 1, tzinfo=UTC))
    other, _ = await opened(tmp_path / "a.sqlite3", body_job(body), clock=later)
    frozen_events, stale = watched(frozen), watched(other, "run:stale")
    run = await frozen.jobs.body.trigger(1)
    workers[:] = ["frozen", "quick"]
    working = asyncio.ensure_future(frozen.process_one())
    await here.wait()
    await other.process_until_idle()
    done = await found(other, run)
    assert (done.status, done.output, done.generation) == ("completed", "quick", 2)
    assert [event.run_id for event in stale] == [run.id]
    go.set()
    await asyncio.wait_for(working, 30)
    assert [s.output for s in await other.get_steps(run.id)] == ["quick", "quick"]
    assert await found(other, run) == done
    assert isinstance(raised[0], LeaseLostError | asyncio.CancelledError)
    assert not {"step:complete", "step:fail", "run:complete", "run:fail", "run:cancel"} & set(types(frozen_events))
    await frozen.stop()
    await other.stop()


@pytest.mark.parametrize("manners", ["async", "sync"])
@contract
async def test_a_step_that_blocks_the_loop_does_not_lose_its_run(manners: str, tmp_path: Path) -> None:
    """'an async loop blocked by a long sync step must not lose its run: sync steps run in a thread; heartbeats
    do not depend on the step's manners'"""
    calls: list[str] = []
    begun, thief_is_ready = asyncio.Event(), asyncio.Event()

    async def blocking() -> None:
        calls.append("x")
        time.sleep(2.5)  # noqa: ASYNC251 - it is to block the loop

    def blocking_thread() -> None:
        calls.append("x")
        time.sleep(2.5)

    async def body(step: StepContext, payload: Any) -> Any:
        begun.set()
        await thief_is_ready.wait()
        await step.run("block", blocking if manners == "async" else blocking_thread)
        return "kept"

    options = {"heartbeat_interval": 0.05, "stale_threshold": 1.5, "polling_interval": 0.03}
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from typing import Any
        from durably import create_durably, define_job

        async def run(step, payload):
            return "stolen"

        async def main():
            thief = create_durably(sys.argv[1], jobs=[define_job(name="body", input=Any, run=run)], **{options!r})
            await thief.init()
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            await thief.stop()

        asyncio.run(main())
        """
    )
    durably = create_durably(tmp_path / "a.sqlite3", jobs=[body_job(body)], **options)  # type: ignore[arg-type]
    await durably.migrate()
    run = await durably.jobs.body.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    await begun.wait()
    thief = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", program, str(tmp_path / "a.sqlite3")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    try:
        assert thief.stdout is not None
        assert await asyncio.to_thread(thief.stdout.readline) == b"ready\n"
        thief_is_ready.set()
        await asyncio.wait_for(working, 30)
        done = await found(durably, run)
        assert (done.status, done.output, done.generation, calls) == ("completed", "kept", 1, ["x"])
    finally:
        thief.communicate(b"", timeout=30)
    await durably.stop()


@contract
async def test_the_loop_goes_on_while_a_sync_step_is_at_work() -> None:
    """'sync steps run in a thread'"""
    threads: list[int] = []
    go = threading.Event()

    def slow() -> None:
        threads.append(threading.get_ident())
        assert go.wait(30), "the loop stood still"

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("slow", slow)

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await until(lambda: threads)
        go.set()
        assert threads != [threading.get_ident()]
        await durably.wait_for_run(run.id, timeout=30)
