"""API.md sections 4 and 5: cancellation at every stage. What happened is what the events, the run and its steps say."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from contract_kit import ENDS, agree, body_job, contract, echo, found, opened, quick, types, until, watched

from durably import ConflictError, LeaseLostError, StepContext, job
from durably.testing import ManualClock

pytestmark = pytest.mark.slow


@contract
async def test_cancel_of_a_pending_run() -> None:
    """'Cancel at every stage: pending'"""
    durably, _ = await opened(":memory:", echo)
    events = watched(durably)
    run = await durably.jobs.echo.trigger(1)
    await durably.cancel(run.id)
    assert (await found(durably, run)).status == "cancelled"
    assert await durably.process_until_idle() == 0
    assert types(events) == ["run:trigger", "run:cancel"]
    await agree(durably, run, events)
    with pytest.raises(ConflictError, match="cancelled"):
        await durably.cancel(run.id)
    assert types(events) == ["run:trigger", "run:cancel"]
    await durably.stop()


@pytest.mark.parametrize("wait", ["sleep", "signal", "child", "retry"])
@pytest.mark.parametrize("place", ["same", "other", "restarted"])
@contract
async def test_cancel_of_a_waiting_run(wait: str, place: str, tmp_path: Path) -> None:
    """'Cancel at every stage: ... sleeping, waiting ...', from the same instance, from another, and after a restart"""
    ends: list[str] = []

    def fail() -> None:
        raise OSError("again")

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("first", lambda: 1)
        try:
            if wait == "sleep":
                await step.sleep("w", 1000)
            elif wait == "signal":
                await step.wait_for_signal("w")
            elif wait == "child":
                await step.trigger_and_wait("w", "waiting-child", 1)
            else:
                from durably import Retry

                await step.with_options(retry=Retry(attempts=3, delay=1000)).run("w", fail)
        finally:
            ends.append("finally")
        await step.run("never", lambda: 1)

    @job
    async def waiting_child(step: StepContext, payload: int) -> None:
        await step.wait_for_signal("never")

    clock = ManualClock()
    durably, _ = await opened(tmp_path / "a.sqlite3", body_job(body), waiting_child, clock=clock)
    other, _ = await opened(tmp_path / "a.sqlite3", body_job(body), waiting_child, clock=clock)
    events = watched(durably)
    run = await durably.jobs.body.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    if wait == "retry":
        await until(lambda: "step:retry" in types(events))
    else:
        await working
        assert (await found(durably, run)).waiting_for is not None
    if place == "restarted":
        if wait == "retry":
            stopping = asyncio.ensure_future(durably.stop(timeout=1))
            await asyncio.sleep(0.01)
            await clock.advance(1)
            await asyncio.gather(stopping, working)
        else:
            await durably.stop()
        durably, _ = await opened(tmp_path / "a.sqlite3", body_job(body), waiting_child, clock=clock)
        events = watched(durably)
    await (other if place == "other" else durably).cancel(run.id)
    assert (await found(durably, run)).status == "cancelled"
    await clock.advance(40)
    if not working.done():
        async with asyncio.timeout(30):
            while not working.done():
                await clock.advance(5)
                await asyncio.sleep(0.002)
    await durably.process_until_idle()
    await clock.advance(2000)
    await durably.process_until_idle()
    assert (await found(durably, run)).status == "cancelled"
    assert "never" not in {s.name for s in await durably.get_steps(run.id)}
    if place == "same":
        assert ends == ["finally"]
        await agree(durably, run, events)
    assert types(events).count("run:cancel") <= 1 + (wait == "child")
    await other.stop()
    await durably.stop()


@pytest.mark.parametrize(
    "stage", ["async step", "sync step", "between steps", "before the first step", "after the last step"]
)
@contract
async def test_cancel_of_a_running_run(stage: str) -> None:
    """'Cancel at every stage: ... between steps, inside an async step, inside a sync step, after the last step.
    What happened is what the event stream, the run row and the steps say, all three.'"""
    here = asyncio.Event()
    ends: list[str] = []
    go = threading.Event()

    async def hold() -> None:
        here.set()
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")

    def hold_thread() -> str:
        loop.call_soon_threadsafe(here.set)
        go.wait(4)
        ends.append("thread")
        return "done"

    async def body(step: StepContext, payload: Any) -> Any:
        if stage == "before the first step":
            await hold()
        await step.run("first", lambda: 1)
        if stage == "async step":
            await step.run("held", hold)
        elif stage == "sync step":
            await step.run("held", hold_thread)
        elif stage == "between steps":
            await hold()
        await step.run("last", lambda: 2)
        if stage == "after the last step":
            await hold()
        return "whole"

    loop = asyncio.get_running_loop()
    durably = quick(":memory:", body_job(body), echo)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.body.trigger(1)
    await here.wait()
    await durably.cancel(run.id)
    assert (await found(durably, run)).status == "cancelled"
    go.set()
    await until(lambda: ends)
    assert (await durably.jobs.echo.trigger_and_wait(2, timeout=30)).output == 2
    await asyncio.sleep(0.03)
    row = await found(durably, run)
    assert (row.status, row.output) == ("cancelled", None)
    steps = {s.name: str(s.status) for s in await durably.get_steps(run.id)}
    assert steps.get("last") == ("completed" if stage == "after the last step" else None)
    assert steps.get("first") == (None if stage == "before the first step" else "completed")
    if stage in ("async step", "sync step"):
        assert [e.step_name for e in events if e.type == "step:cancel"] == ["held"]
        assert steps["held"] == "cancelled"
    await agree(durably, run, events)
    await durably.stop()


@contract
async def test_a_step_that_swallows_exceptions_is_cancelled_all_the_same() -> None:
    """'Cancellation is asyncio's: `cancel(run_id)` cancels the running step at its next `await` (`finally`
    blocks run).'"""
    here = asyncio.Event()
    order: list[str] = []

    async def stubborn() -> None:
        here.set()
        try:
            await asyncio.sleep(30)
        except Exception:  # noqa: BLE001
            order.append("swallowed")
        finally:
            await asyncio.sleep(0)
            order.append("finally")

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.run("held", stubborn)
        except Exception:  # noqa: BLE001
            order.append("caught")
        await step.run("after", lambda: order.append("after"))

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        await durably.cancel(run.id)
        await until(lambda: order)
        await asyncio.sleep(0.02)
        assert order == ["finally"]
        assert (await found(durably, run)).status == "cancelled"


@contract
async def test_code_that_catches_its_cancellation_can_begin_no_other_step() -> None:
    """'A worker that lost its run ... can write nothing more for it: its next step raises `LeaseLostError`'"""
    here = asyncio.Event()
    raised: list[BaseException] = []

    async def hold() -> None:
        here.set()
        await asyncio.sleep(30)

    async def body(step: StepContext, payload: Any) -> Any:
        with contextlib.suppress(asyncio.CancelledError):
            await step.run("held", hold)
        try:
            await step.run("after", lambda: 1)
        except BaseException as error:
            raised.append(error)
            raise
        return "as if nothing had happened"

    async with quick(":memory:", body_job(body), echo) as durably:
        events = watched(durably)
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        await durably.cancel(run.id)
        await until(lambda: raised)
        await durably.jobs.echo.trigger_and_wait(1, timeout=30)
        assert isinstance(raised[0], LeaseLostError | asyncio.CancelledError)
        assert (await found(durably, run)).status == "cancelled"
        assert not {"run:complete", "run:fail"} & set(types([e for e in events if e.run_id == run.id]))
        assert "after" not in {s.name for s in await durably.get_steps(run.id)}


@contract
async def test_a_long_sync_step_can_ask_whether_it_is_cancelled() -> None:
    """'`step.raise_if_cancelled()` for long loops'"""
    here, ended = threading.Event(), threading.Event()
    turns: list[int] = []

    async def body(step: StepContext, payload: Any) -> Any:
        def loop() -> None:
            try:
                for n in range(2000):
                    turns.append(n)
                    here.set()
                    step.raise_if_cancelled()
                    time.sleep(0.002)
            finally:
                ended.set()

        await step.run("loop", loop)

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await until(here.is_set)
        await durably.cancel(run.id)
        await until(ended.is_set)
        assert len(turns) < 1000
        assert (await found(durably, run)).status == "cancelled"


@contract
async def test_a_cancel_by_another_instance_reaches_the_worker(tmp_path: Path) -> None:
    """'`cancel(run_id)` (pending or running)', whoever asks."""
    here = asyncio.Event()
    ends: list[str] = []

    async def hold() -> None:
        here.set()
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("held", hold)

    async with quick(tmp_path / "a.sqlite3", body_job(body), heartbeat_interval=0.05, stale_threshold=1) as durably:
        other = quick(tmp_path / "a.sqlite3")
        await other.migrate()
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        await other.cancel(run.id)
        await until(lambda: ends, seconds=2)
        assert (await found(durably, run)).status == "cancelled"
        await other.stop()


@contract
async def test_cancel_racing_with_completion_leaves_one_truth() -> None:
    """'after the last step': whichever wins, all three agree."""
    async with quick(":memory:", echo, max_concurrent_runs=10) as durably:
        events = watched(durably)
        runs = []
        for n in range(40):
            run = await durably.jobs.echo.trigger(n)
            runs.append(run)
            for _ in range(n % 12):
                await asyncio.sleep(0)
            with contextlib.suppress(ConflictError):
                await durably.cancel(run.id)
        await until(lambda: _all_terminal(durably, runs))
        await until(lambda: all(_end_is_told(run, events) for run in runs))
        for run in runs:
            await agree(durably, run, events)


def _end_is_told(run: Any, events: list[Any]) -> bool:
    return any(event.run_id == run.id and event.type in ENDS.values() for event in events)


async def _all_terminal(durably: Any, runs: Any) -> bool:
    return all([(await found(durably, run)).is_terminal for run in runs])


@contract
async def test_the_events_of_a_cancelled_run_end_with_its_cancellation_and_its_step_has_a_row_that_says_so() -> None:
    """'order within a run': `run:cancel` is terminal, so that nothing of the run comes after it; 'What happened
    is what the event stream, the run row and the steps say'"""
    here = asyncio.Event()

    async def hold() -> None:
        here.set()
        await asyncio.sleep(30)

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("held", hold)

    async with quick(":memory:", body_job(body), echo) as durably:
        events = watched(durably)
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        await durably.cancel(run.id)
        await durably.jobs.echo.trigger_and_wait(2, timeout=30)
        mine = [event for event in events if event.run_id == run.id]
        assert types(mine) == ["run:trigger", "run:start", "step:start", "step:cancel", "run:cancel"]
        assert [(s.name, str(s.status)) for s in await durably.get_steps(run.id)] == [("held", "cancelled")]


@pytest.mark.parametrize("wait", ["sleep", "signal", "child"])
@pytest.mark.parametrize("place", ["same", "other"])
@contract
async def test_a_wait_that_was_cancelled_waits_no_more(wait: str, place: str, tmp_path: Path) -> None:
    """'What happened is what the event stream, the run row and the steps say, all three': no step of a
    cancelled run is `waiting`."""

    @job
    async def child(step: StepContext, payload: int) -> None:
        await step.wait_for_signal("never")

    async def body(step: StepContext, payload: Any) -> Any:
        if wait == "sleep":
            await step.sleep("w", 1000)
        elif wait == "signal":
            await step.wait_for_signal("w")
        else:
            await step.trigger_and_wait("w", child, 1)

    durably, clock = await opened(tmp_path / "a.sqlite3", body_job(body), child)
    other, _ = await opened(tmp_path / "a.sqlite3", clock=clock)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await (other if place == "other" else durably).cancel(run.id)
    await durably.process_until_idle()
    assert {s.name: str(s.status) for s in await durably.get_steps(run.id)}["w"] == "cancelled"
    await other.stop()
    await durably.stop()


@contract
async def test_the_step_that_a_run_timeout_ended_has_a_row() -> None:
    """'past it the run fails with `RunTimeoutError`'s text'; 'What happened is what the event stream, the run
    row and the steps say, all three.'"""

    async def slow(step: StepContext, payload: Any) -> None:
        await step.run("forever", asyncio.sleep, 30)

    async with quick(":memory:", body_job(slow, timeout=0.05)) as durably:
        events = watched(durably)
        run = await durably.jobs.body.trigger(1)
        await until(lambda: "run:fail" in types(events))
        told = [e.type for e in events if e.type.startswith("step:")]
        steps = {s.name: str(s.status) for s in await durably.get_steps(run.id)}
        assert (told, steps) in (
            (["step:start", "step:cancel"], {"forever": "cancelled"}),
            (["step:start", "step:fail"], {"forever": "failed"}),
        )
