"""API.md section 4, second half: sleeps, signals, child runs, cancellation at every stage, lost leases, liveness."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durably import (
    ConflictError,
    LeaseLostError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    StepContext,
    create_durably,
    define_job,
    job,
)
from durably.testing import ManualClock

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, quick, found, finished, until, moved, watched, types, echo = (
    kit.contract, kit.opened, kit.quick, kit.found, kit.finished, kit.until, kit.moved, kit.watched, kit.types,
    kit.echo,
)  # fmt: skip


def body_job(body: Callable[..., Awaitable[Any]], name: str = "body", **options: Any) -> Any:
    async def run(step: StepContext, payload: Any) -> Any:
        return await body(step, payload)

    return define_job(name=name, input=Any, run=run, **options)


# --- sleeping -------------------------------------------------------------------------------------


@contract
async def test_a_million_second_sleep_is_exact() -> None:
    """'a million-second sleep is exact'"""
    woke: list[datetime] = []

    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("long", 1_000_000)
        woke.append(await step.now())

    durably, clock = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    asleep = await found(durably, run)
    assert (asleep.waiting_for, asleep.is_terminal) == ("sleep:long", False)
    await moved(durably, clock, 999_999.999)
    assert (await found(durably, run)).waiting_for == "sleep:long"
    assert woke == []
    await moved(durably, clock, 0.001)
    done = await found(durably, run)
    assert (done.status, done.waiting_for) == ("completed", None)
    assert woke == [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=1_000_000)]
    assert done.completed_at == woke[0]
    [slept] = [s for s in await durably.get_steps(run.id) if s.name == "long"]
    assert (slept.status, slept.output) == ("completed", None)
    await durably.stop()


@contract
async def test_a_sleep_in_real_time_ends_when_it_should() -> None:
    """'wakes within one poll of its time'"""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("short", 0.15)
        await step.sleep("delta", timedelta(milliseconds=50))
        return "ok"

    async with quick(":memory:", body_job(body)) as durably:
        begun = time.monotonic()
        assert (await durably.jobs.body.trigger_and_wait(1, timeout=4)).output == "ok"
        assert 0.19 <= time.monotonic() - begun < 1


@contract
async def test_a_sleep_is_not_restarted_by_a_restart(tmp_path: Path) -> None:
    """'the wake-up time is stored at first call; a reload does not restart it'; 'it is claimed again after a
    restart only when its time or signal has come'"""
    calls: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("before", lambda: calls.append("before"))
        await step.sleep("hour", 3600)
        await step.run("after", lambda: calls.append("after"))

    clock = ManualClock()
    first, _ = await opened(tmp_path / "a.sqlite3", body_job(body), clock=clock)
    events = watched(first)
    run = await first.jobs.body.trigger(1)
    await first.process_until_idle()
    await clock.advance(3000)
    await first.stop()
    assert "run:fail" not in types(events)
    assert "run:cancel" not in types(events)
    second, _ = await opened(tmp_path / "a.sqlite3", body_job(body), clock=clock)
    started = watched(second, "run:start")
    assert await second.process_until_idle() == 0
    await moved(second, clock, 599)
    assert started == []
    assert (await found(second, run)).waiting_for == "sleep:hour"
    await moved(second, clock, 1)
    assert (await found(second, run)).status == "completed"
    assert calls == ["before", "after"]
    await second.stop()


@contract
async def test_waiting_runs_give_their_slot_back() -> None:
    """'A waiting run (sleep, signal, child run) gives its worker's slot back'"""

    async def body(step: StepContext, payload: Any) -> Any:
        if payload == "sleep":
            await step.sleep("s", 10_000)
        elif payload == "signal":
            await step.wait_for_signal("s")
        else:
            await step.trigger_and_wait("c", "echo-later", 1)

    @job
    async def echo_later(step: StepContext, payload: int) -> int:
        await step.sleep("s", 10_000)
        return payload

    async with quick(":memory:", body_job(body), echo_later, echo, max_concurrent_runs=1) as durably:
        runs = await durably.jobs.body.batch_trigger(["sleep", "signal", "child"] * 5)
        assert (await durably.jobs.echo.trigger_and_wait(5, timeout=4)).output == 5
        await until(lambda: _all_wait(durably, runs))
        kinds = {(await found(durably, run)).payload: (await found(durably, run)).waiting_for for run in runs}
        children = await durably.jobs.echo_later.get_runs()
        assert kinds["sleep"] == "sleep:s"
        assert kinds["signal"] == "signal:s"
        assert kinds["child"] in {f"run:{child.id}" for child in children}


async def _all_wait(durably: Any, runs: Any) -> bool:
    return all([(await found(durably, run)).waiting_for for run in runs])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e18, None], ids=str)
@contract
async def test_a_sleep_without_a_meaning_neither_hangs_nor_corrupts(seconds: Any) -> None:
    """'Times are seconds (`float` or `timedelta`)': zero passes at once; what is no time fails the run, at once."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("s", seconds)
        return "passed"

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    if seconds == 0:
        assert run.output == "passed"
    elif seconds == 1e18:
        assert run.status == "failed" or run.waiting_for == "sleep:s"
    else:
        assert run.is_terminal, run
    await durably.stop()


# --- signals --------------------------------------------------------------------------------------


@contract
async def test_signals_before_during_and_after_are_each_delivered_once_in_order() -> None:
    """'signals sent early are kept, delivered once each, in order; waiting twice for one signal takes two step
    names'"""

    async def body(step: StepContext, payload: Any) -> Any:
        got = [await step.wait_for_signal("ok")]
        got.append(await step.wait_for_signal("second-ok", signal="ok"))
        got.append(await step.wait_for_signal("third-ok", signal="ok"))
        got.append(await step.wait_for_signal("other"))
        return got

    durably, clock = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    await durably.signal(run.id, "other", "early other")
    await durably.signal(run.id, "ok", {"n": 1})
    await durably.signal(run.id, "ok", [2])
    await durably.process_until_idle()
    waiting = await found(durably, run)
    assert waiting.waiting_for == "signal:ok"
    await durably.signal(run.id, "unheard", 0)
    await durably.process_until_idle()
    assert (await found(durably, run)).waiting_for == "signal:ok"
    await moved(durably, clock, 10**7)
    await durably.signal(run.id, "ok", 3)
    done = await finished(durably, run)
    assert done.output == [{"n": 1}, [2], 3, "early other"]
    assert {s.name: s.output for s in await durably.get_steps(run.id)} == {
        "ok": {"n": 1}, "second-ok": [2], "third-ok": 3, "other": "early other",
    }  # fmt: skip
    await durably.stop()


@contract
async def test_a_signal_without_payload_gives_none_and_is_not_asked_for_again() -> None:
    """'`signal(run_id, name, payload=None)`'; a received signal is a step like any other on replay"""
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        got = await step.wait_for_signal("go")
        if broken:
            raise RuntimeError("later")
        return [got]

    durably, _ = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    await durably.signal(run.id, "go")
    assert (await finished(durably, run)).status == "failed"
    broken = False
    await durably.retry(run.id)
    assert (await finished(durably, run)).output == [None]
    await durably.stop()


@contract
async def test_waiting_for_a_signal_may_time_out() -> None:
    """'`timeout`: `TimeoutError`'; a signal that comes later is for the next wait."""

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.wait_for_signal("ok", timeout=60)
        except TimeoutError:
            return ["late", await step.wait_for_signal("again", signal="ok")]
        return "in time"

    durably, clock = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await moved(durably, clock, 59.9)
    assert (await found(durably, run)).waiting_for == "signal:ok"
    await moved(durably, clock, 0.1)
    assert (await found(durably, run)).waiting_for == "signal:ok"
    assert {s.name: s.status for s in await durably.get_steps(run.id)}["ok"] == "failed"
    await durably.signal(run.id, "ok", "now")
    assert (await finished(durably, run)).output == ["late", "now"]
    in_time = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await moved(durably, clock, 30)
    await durably.signal(in_time.id, "ok")
    assert (await finished(durably, in_time)).output == "in time"
    await durably.stop()


@contract
async def test_a_caught_timeout_of_a_signal_is_a_timeout_on_replay_too(tmp_path: Path) -> None:
    """'every later execution returns the stored result': a wait that has timed out does not take a signal at replay."""
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            got = await step.wait_for_signal("ok", timeout=1)
        except TimeoutError:
            got = "late"
        await step.run("note", lambda: got)
        if broken:
            raise RuntimeError("once")
        return got

    durably, clock = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await moved(durably, clock, 1)
    failed = await found(durably, run)
    assert failed.status == "failed"
    broken = False
    await durably.retry(run.id)
    await durably.process_until_idle()
    await moved(durably, clock, 1)
    done = await found(durably, run)
    assert (done.status, done.output) == ("completed", "late")
    await durably.stop()


class Approval(BaseModel):
    by: str


@contract
async def test_a_signal_carries_what_a_step_may_return(tmp_path: Path) -> None:
    """'`await durably.signal(run_id, "approved", payload)`': the payload arrives in value and type, from
    another instance, too."""

    async def body(step: StepContext, payload: Any) -> Any:
        got = await step.wait_for_signal("approved")
        assert isinstance(got, Approval), got
        return got.by

    durably, clock = await opened(tmp_path / "a.sqlite3", body_job(body))
    other, _ = await opened(tmp_path / "a.sqlite3", clock=clock)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await other.signal(run.id, "approved", Approval(by="me"))
    done = await finished(durably, run)
    assert (done.error, done.output) == (None, "me")
    await other.stop()
    await durably.stop()


@contract
async def test_a_signal_to_nobody_is_not_found() -> None:
    """'Unknown id: `NotFoundError`'"""
    durably, _ = await opened(":memory:", echo)
    with pytest.raises(NotFoundError):
        await durably.signal("nobody", "ok")
    run = await finished(durably, await durably.jobs.echo.trigger(1))
    with pytest.raises(ConflictError, match="completed"):
        await durably.signal(run.id, "ok")
    await durably.stop()


@contract
async def test_a_hundred_signals_at_once_are_all_delivered_in_order() -> None:
    """'delivered once each, in order', under `start()` with the waits going on meanwhile."""

    async def body(step: StepContext, payload: Any) -> Any:
        return [await step.wait_for_signal(f"w{n}", signal="s") for n in range(100)]

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        for n in range(100):
            await durably.signal(run.id, "s", n)
            if n % 10 == 0:
                await asyncio.sleep(0.01)
        assert (await durably.wait_for_run(run.id, timeout=6)).output == list(range(100))


# --- child runs -----------------------------------------------------------------------------------


@contract
async def test_a_child_is_triggered_once_by_run_and_step_name() -> None:
    """'`step.trigger` is idempotent by run and step name'; 'trigger(self, name, job, payload,
    **trigger_options) -> Run'"""
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        child = await step.trigger("child", echo, 5, labels={"a": "b"}, priority=3)
        by_name = await step.trigger("by-name", "echo", 6)
        assert (child.job_name, child.payload, child.labels, child.priority) == ("echo", 5, {"a": "b"}, 3)
        if broken:
            raise RuntimeError("later")
        return [child.id, by_name.id]

    durably, _ = await opened(":memory:", body_job(body), echo)
    run = await durably.jobs.body.trigger(1)
    assert (await finished(durably, run)).error == "later"
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    children = await durably.jobs.echo.get_runs()
    assert sorted(done.output) == sorted(child.id for child in children)
    assert len(children) == 2
    other = await finished(durably, await durably.jobs.body.trigger(2))
    assert not set(other.output) & set(done.output)
    await durably.stop()


@contract
async def test_a_parent_waits_for_its_child_and_gets_its_output() -> None:
    """'trigger_and_wait(self, name, job, payload, **trigger_options) -> Run'; '`trigger_and_wait` waits without
    a slot'; `waiting_for` is "run:ID"."""

    @job
    async def child(step: StepContext, payload: int) -> Approval:
        await step.sleep("s", 100)
        return Approval(by=str(payload))

    async def body(step: StepContext, payload: Any) -> Any:
        runs = await asyncio.gather(*(step.trigger_and_wait(f"c{n}", child, n) for n in range(3)))
        assert all(isinstance(run.output, Approval) for run in runs)
        return [run.output.by for run in runs]

    durably, clock = await opened(":memory:", body_job(body), child, max_concurrent_runs=1)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    waiting = await found(durably, run)
    assert (waiting.waiting_for or "").startswith("run:")
    await moved(durably, clock, 100)
    done = await finished(durably, run)
    assert (done.error, done.output) == (None, ["0", "1", "2"])
    await durably.stop()


@contract
async def test_a_failed_child_raises_in_its_parent() -> None:
    """'Raises `RunFailedError` (with `.run` and the stored error text), `RunCancelledError`'"""

    @job
    async def child(step: StepContext, payload: int) -> None:
        raise LookupError("child lost")

    @job
    async def waiter(step: StepContext, payload: int) -> None:
        await step.wait_for_signal("never")

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.trigger_and_wait("bad", child, 1)
        except RunFailedError as error:
            seen = (error.run.status, str(error.run.error))
        else:
            raise AssertionError
        assert seen == ("failed", "child lost")
        try:
            await step.trigger_and_wait("cancelled", waiter, 1)
        except RunCancelledError:
            return "both"

    durably, _ = await opened(":memory:", body_job(body), child, waiter)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    [waiting] = await durably.jobs.waiter.get_runs()
    await durably.cancel(waiting.id)
    done = await finished(durably, run)
    assert (done.error, done.output) == (None, "both")
    await durably.stop()


@contract
async def test_cancelling_the_parent_cancels_the_waiting_children_it_started() -> None:
    """'cancelling the parent cancels waiting children it started unless told otherwise'"""

    @job
    async def child(step: StepContext, payload: int) -> None:
        await step.wait_for_signal("never")

    async def body(step: StepContext, payload: Any) -> Any:
        await step.trigger("loose", child, 1, delay=10_000)
        await step.trigger_and_wait("bound", child, 2)

    durably, _ = await opened(":memory:", body_job(body), child)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await durably.cancel(run.id)
    await durably.process_until_idle()
    children = {c.payload: c.status for c in await durably.jobs.child.get_runs()}
    assert (await found(durably, run)).status == "cancelled"
    assert children[2] == "cancelled"
    await durably.stop()


# --- cancellation ---------------------------------------------------------------------------------


async def agree(durably: Any, run: Any, events: list[Any]) -> None:
    """The event stream, the run row and the steps say the same."""
    row = await found(durably, run)
    mine = [event for event in events if event.run_id == run.id]
    ends = [e.type for e in mine if e.type in ("run:complete", "run:fail", "run:cancel")]
    assert ends == [{"cancelled": "run:cancel", "completed": "run:complete", "failed": "run:fail"}[row.status]], types(
        mine
    )
    assert [e.type for e in mine[types(mine).index(ends[0]) + 1 :] if e.type != "step:cancel"] == [], types(mine)
    assert [event.sequence for event in mine] == sorted({event.sequence for event in mine})
    assert row.completed_at is not None
    assert row.waiting_for is None
    steps = {s.name: str(s.status) for s in await durably.get_steps(run.id)}
    told: dict[str, str] = {}
    for event in mine:
        if event.type.startswith("step:"):
            told[event.step_name] = event.type
    word = {"step:complete": "completed", "step:fail": "failed", "step:cancel": "cancelled", "step:retry": "failed"}
    assert "step:start" not in told.values(), types(mine)
    assert {name: word[kind] for name, kind in told.items()} == {
        name: status for name, status in steps.items() if name in told and status != "waiting"
    } | {
        name: "cancelled"
        for name, kind in told.items()
        if kind == "step:cancel" and steps.get(name) in (None, "waiting")
    }
    assert row.completed_step_count == list(steps.values()).count("completed")


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
        async with asyncio.timeout(3):
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
    assert (await durably.jobs.echo.trigger_and_wait(2, timeout=4)).output == 2
    await asyncio.sleep(0.03)
    row = await found(durably, run)
    assert (row.status, row.output) == ("cancelled", None)
    steps = {s.name: str(s.status) for s in await durably.get_steps(run.id)}
    assert steps.get("last") == ("completed" if stage == "after the last step" else None)
    assert steps.get("first") == (None if stage == "before the first step" else "completed")
    if stage in ("async step", "sync step"):
        assert [e.step_name for e in events if e.type == "step:cancel"] == ["held"]
        assert steps.get("held") in (None, "cancelled")
    await durably.stop()
    ordered = types([e for e in events if e.run_id == run.id])
    assert ordered.count("run:cancel") == 1
    assert "run:complete" not in ordered
    assert "run:fail" not in ordered


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
        await durably.jobs.echo.trigger_and_wait(1, timeout=4)
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
        await asyncio.sleep(0.02)
        for run in runs:
            await agree(durably, run, events)


async def _all_terminal(durably: Any, runs: Any) -> bool:
    return all([(await found(durably, run)).is_terminal for run in runs])


# --- lost runs, liveness --------------------------------------------------------------------------


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
    await asyncio.wait_for(working, 3)
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

    async def blocking() -> None:
        calls.append("x")
        time.sleep(1.0)  # noqa: ASYNC251

    def blocking_thread() -> None:
        calls.append("x")
        time.sleep(1.0)

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("block", blocking if manners == "async" else blocking_thread)
        return "kept"

    options = {"heartbeat_interval": 0.05, "stale_threshold": 0.4, "polling_interval": 0.03}
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
    thief = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", program, str(tmp_path / "a.sqlite3")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    try:
        await asyncio.wait_for(working, 6)
        done = await found(durably, run)
        assert (done.status, done.output, done.generation, calls) == ("completed", "kept", 1, ["x"])
    finally:
        thief.communicate(b"", timeout=5)
    await durably.stop()


@contract
async def test_the_loop_goes_on_while_a_sync_step_is_at_work() -> None:
    """'sync steps run in a thread'"""
    threads: list[int] = []

    def slow() -> None:
        threads.append(threading.get_ident())
        time.sleep(0.3)

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("slow", slow)

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await until(lambda: threads)
        longest, last = 0.0, time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.2
        assert threads != [threading.get_ident()]
        await durably.wait_for_run(run.id, timeout=4)
