"""API.md section 4: sleeps, signals, child runs."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, finished, found, moved, opened, quick, types, until, watched
from pydantic import BaseModel

from durably import (
    ConflictError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    StepContext,
    ValidationError,
    create_durably,
    job,
)
from durably.testing import ManualClock

pytestmark = pytest.mark.slow


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
        assert (await durably.jobs.body.trigger_and_wait(1, timeout=30)).output == "ok"
        assert time.monotonic() - begun >= 0.19


@contract
async def test_what_is_due_is_begun_then_and_not_at_the_next_look() -> None:
    """Polling is for what nobody here knows of."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("short", 0.1)
        with suppress(TimeoutError):
            await step.wait_for_signal("never", timeout=0.1)
        return "ok"

    async with quick(":memory:", body_job(body), echo, polling_interval=3600) as durably:
        assert (await durably.jobs.body.trigger_and_wait(1, timeout=30)).output == "ok"
        assert (await durably.jobs.echo.trigger_and_wait(2, delay=0.1, timeout=30)).output == 2
        await durably.schedule("echo", 3, every=0.1, key="often")
        await until(lambda: ticked(durably, 3))


async def ticked(durably: Any, times: int) -> bool:
    return sum(run.payload == 3 for run in await durably.get_runs(status="completed")) >= times


@pytest.mark.parametrize("seconds", [10, 3600, 400 * 86400])
@contract
async def test_a_worker_wakes_at_the_very_moment_to_which_a_clock_is_set(seconds: int) -> None:
    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("long", seconds)
        return "ok"

    clock = ManualClock()
    async with create_durably(":memory:", jobs=[body_job(body)], clock=clock) as durably:
        run = await durably.jobs.body.trigger(1)
        await until(lambda: is_asleep(durably, run))
        await clock.advance(seconds)
        assert (await durably.wait_for_run(run.id)).output == "ok"


async def is_asleep(durably: Any, run: Any) -> bool:
    return (await found(durably, run)).waiting_for == "sleep:long"


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
        assert (await durably.jobs.echo.trigger_and_wait(5, timeout=30)).output == 5
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
        assert (await durably.wait_for_run(run.id, timeout=30)).output == list(range(100))


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


@job
async def held(step: StepContext, payload: int) -> None:
    await step.wait_for_signal("go")


@contract
async def test_a_child_tells_whether_it_is_new_or_was_there(tmp_path: Path) -> None:
    """Dispositions and events are those of `JobHandle.trigger`; a later execution gives the same, and so does a wait
    that a restart has come into."""
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        one = await step.trigger("one", held, 1, concurrency_key="k", coalesce="skip", labels={"n": "1"})
        two = await step.trigger("two", "held", 2, concurrency_key="k", coalesce="skip", labels={"n": "2"})
        three = await step.trigger_and_wait("three", echo, 3, idempotency_key="i")
        four = await step.trigger_and_wait("four", echo, 4, idempotency_key="i")
        five = await step.trigger_and_wait("five", held, 5, concurrency_key="k", coalesce="skip")
        assert (two.id, four.id, five.id) == (one.id, three.id, one.id)
        told = [str(run.disposition) for run in (one, two, three, four, five)]
        if broken:
            raise RuntimeError(",".join(told))
        return told

    jobs = body_job(body), echo, held
    first, clock = await opened(tmp_path / "a.sqlite3", *jobs)
    events = watched(first)
    await first.jobs.held.trigger(0, concurrency_key="k", delay=3600, labels={"n": "0"})
    run = await first.jobs.body.trigger(1)
    await first.process_until_idle()
    assert [event.payload for event in events if event.type == "run:trigger" and event.job_name != "body"] == [0, 3]
    told = [event for event in events if event.type == "run:coalesced"]
    assert [(event.job_name, event.skipped_payload, event.skipped_labels) for event in told] == [
        ("held", 1, {"n": "1"}),
        ("held", 2, {"n": "2"}),
        ("held", 5, {}),
    ]
    assert {event.labels["n"] for event in told} == {"0"}
    await first.stop()
    second, _ = await opened(tmp_path / "a.sqlite3", *jobs, clock=clock)
    await moved(second, clock, 3600)
    [waiting] = await second.jobs.held.get_runs()
    await second.signal(waiting.id, "go")
    failed = await finished(second, run)
    assert failed.error == "coalesced,coalesced,created,idempotent,coalesced"
    broken = False
    await second.retry(run.id)
    done = await finished(second, run)
    assert (done.error, done.output) == (None, failed.error.split(","))
    await second.stop()


@contract
async def test_children_of_a_file_in_which_no_disposition_was_kept_are_read(tmp_path: Path) -> None:
    """Earlier versions kept none: it is `None` then."""
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        runs = [await step.trigger("one", echo, 1), await step.trigger_and_wait("two", echo, 2)]
        if broken:
            raise RuntimeError("later")
        return [[run.payload, run.disposition] for run in runs]

    first, clock = await opened(tmp_path / "a.sqlite3", body_job(body), echo)
    run = await first.jobs.body.trigger(1)
    assert (await finished(first, run)).error == "later"
    await first.stop()
    with closing(sqlite3.connect(tmp_path / "a.sqlite3")) as connection, connection:
        connection.execute(
            "UPDATE durably_steps SET output = iif(name = 'one', 'null', json_remove(output, '$.disposition'))"
        )
    broken = False
    second, _ = await opened(tmp_path / "a.sqlite3", body_job(body), echo, clock=clock)
    await second.retry(run.id)
    assert (await finished(second, run)).output == [[1, None], [2, None]]
    await second.stop()


@contract
async def test_a_retry_takes_up_a_coalesced_child_and_starts_a_new_one_once_that_is_cancelled() -> None:
    seen: list[str | None] = []

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            return (await step.trigger_and_wait("child", "held", 1, concurrency_key="k", coalesce="skip")).disposition
        except RunCancelledError as error:
            seen.append(error.run.disposition)
            raise

    durably, _ = await opened(":memory:", body_job(body), held)
    there = await durably.jobs.held.trigger(0, concurrency_key="k", delay=9)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await durably.cancel(run.id)
    await durably.retry(run.id)  # which takes up the child that is still at work
    await durably.process_until_idle()
    await durably.cancel(there.id)
    assert (await finished(durably, run)).status == "failed"
    await durably.retry(run.id)
    await durably.process_until_idle()
    [new] = [child for child in await durably.jobs.held.get_runs() if child.id != there.id]
    await durably.signal(new.id, "go")
    assert (await finished(durably, run)).output == "created"
    assert seen == ["coalesced"]
    await durably.stop()


@pytest.mark.parametrize("wrong", [None, 5, echo.run], ids=["none", "number", "function"])
@pytest.mark.parametrize("call", ["trigger", "trigger_and_wait"])
@contract
async def test_what_is_no_job_is_refused_as_a_child(call: str, wrong: Any) -> None:
    caught: list[ValidationError] = []

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await getattr(step, call)("child", wrong, 1)
        except ValidationError as error:
            caught.append(error)

    durably, _ = await opened(":memory:", body_job(body), echo)
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert run.error is None
    assert "a job is given as its definition, a handle or its name" in str(caught[0])
    assert len(await durably.get_runs()) == 1
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
