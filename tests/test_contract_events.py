"""API.md section 6: every type of event with its fields, its order, and the commit that comes before it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from contract_kit import agree, body_job, contract, echo, finished, found, moved, opened, quick, types, until, watched
from pydantic import BaseModel

from durably import Event, Progress, Retry, RunStatus, StepContext, ValidationError, job
from durably.testing import FaultyDatabase, ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)

FIELDS = {
    "run:trigger": {"payload"},
    "run:coalesced": {"skipped_payload", "skipped_labels"},
    "run:start": {"payload", "worker_id"},
    "run:complete": {"output", "duration"},
    "run:fail": {"error", "failed_step_name"},
    "run:cancel": set(),
    "run:retry": set(),
    "run:delete": set(),
    "run:progress": {"progress"},
    "run:stale": set(),
    "step:start": {"step_name", "step_index"},
    "step:complete": {"step_name", "step_index", "output", "duration"},
    "step:fail": {"step_name", "step_index", "error"},
    "step:cancel": {"step_name", "step_index"},
    "step:retry": {"step_name", "step_index", "attempt", "error", "next_attempt_at"},
    "log:write": {"level", "message", "data", "step_name"},
    "worker:error": {"error", "context"},
}


# --- types and fields -----------------------------------------------------------------------------


class Order(BaseModel):
    item: str


async def everything() -> list[Event]:
    """A life in which every type of event is sent; all that was heard."""
    here, hold = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("first call")
        return "second call"

    async def held() -> None:
        here.set()
        await hold.wait()

    def bad() -> None:
        raise ValueError("no luck")

    @job
    async def shop(step: StepContext, payload: Order) -> Order:
        if payload.item == "held":
            await step.run("held", held)
        step.progress(1, 2, "half")
        await step.with_options(retry=Retry(attempts=2, delay=0)).run("flaky", flaky)
        if payload.item == "bad":
            await step.run("bad", bad)
        step.log.warning("sold", {"n": 1})
        return payload

    clock = ManualClock()
    broken: list[int] = []
    database = FaultyDatabase(":memory:", lambda sql: bool(broken) and bool(broken.pop()), times=1)
    durably, _ = await opened(database, shop, clock=clock)
    events = watched(durably)
    labels = {"a": "b"}
    run = await finished(durably, await durably.jobs.shop.trigger(Order(item="tea"), labels=labels))
    await durably.delete_run(run.id)
    failed = await finished(durably, await durably.jobs.shop.trigger({"item": "bad"}, labels=labels))
    await durably.retry(failed.id)
    await durably.cancel(failed.id)
    options: dict[str, Any] = {"concurrency_key": "k", "coalesce": "skip"}
    first = await durably.jobs.shop.trigger({"item": "held"}, labels=labels, **options)
    await durably.jobs.shop.trigger({"item": "milk"}, labels={"other": "one"}, **options)
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    await durably.cancel(first.id)
    await working
    await durably.stop()
    return events


@contract
async def test_every_event_of_a_run_is_a_dataclass_with_the_fields_of_the_contract() -> None:
    """'Every event is a dataclass with `type`, `timestamp`, `sequence` and, where it applies, `run_id`, `job_name`,
    `labels`, plus: ...'"""
    events = await everything()
    assert set(types(events)) == set(FIELDS) - {"run:stale", "worker:error"}
    for event in events:
        assert dataclasses.is_dataclass(event)
        assert isinstance(event, Event)
        for field in FIELDS[event.type]:
            getattr(event, field)
        assert event.run_id
        assert event.job_name == "shop"
        assert event.labels == {"a": "b"}
        assert event.timestamp == START
        assert event.timestamp.utcoffset() == timedelta(0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.run_id = "another"  # type: ignore[misc]
    assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))


@contract
async def test_events_say_what_happened_in_typed_values() -> None:
    """`payload` and `output` are the objects that the job sees, `progress` is a `Progress`."""
    events = await everything()

    def first(kind: str) -> Any:
        return next(event for event in events if event.type == kind)

    assert first("run:trigger").payload == Order(item="tea")
    assert first("run:start").payload == Order(item="tea")
    assert first("run:start").worker_id
    assert (first("run:complete").output, first("run:complete").duration) == (Order(item="tea"), 0)
    assert first("run:progress").progress == Progress(1, 2, "half")
    assert (first("run:fail").failed_step_name, "no luck" in first("run:fail").error) == ("bad", True)
    assert (first("run:coalesced").skipped_payload, first("run:coalesced").skipped_labels) == (
        Order(item="milk"), {"other": "one"},
    )  # fmt: skip
    retry = first("step:retry")
    assert (retry.step_name, retry.step_index, retry.attempt) == ("flaky", 0, 1)
    assert ("first call" in retry.error, retry.next_attempt_at) == (True, START)
    completed = first("step:complete")
    assert (completed.step_name, completed.step_index, completed.output) == ("flaky", 0, "second call")
    assert completed.duration == 0
    assert (first("step:fail").step_name, first("step:fail").step_index) == ("bad", 1)
    assert "no luck" in first("step:fail").error
    assert first("step:cancel").step_name == "held"
    log = first("log:write")
    assert (log.level, log.message, log.data, log.step_name) == ("warning", "sold", {"n": 1}, None)


@contract
async def test_durations_are_seconds() -> None:
    """'`run:complete` output, duration'; 'Times are seconds'. A step's is its own, a run's from its first start."""

    async def body(step: StepContext, payload: Any) -> None:
        await step.sleep("nap", 90)
        await step.run("quick", lambda: clock.advance(1.5))

    durably, clock = await opened(":memory:", body_job(body))
    events = watched(durably)
    await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await moved(durably, clock, 90)
    told = {getattr(event, "step_name", "run"): event.duration for event in events if hasattr(event, "duration")}
    assert told == {"nap": 90, "quick": 1.5, "run": 91.5}
    await durably.stop()


@contract
async def test_a_run_whose_worker_is_gone_is_told_as_stale(tmp_path: Path) -> None:
    """'`run:stale`': pending again, then started by another worker."""
    here, never = asyncio.Event(), asyncio.Event()

    async def body(step: StepContext, payload: Any) -> str:
        if not here.is_set():
            here.set()
            await never.wait()
        return "taken over"

    frozen, _ = await opened(tmp_path / "a.sqlite3", body_job(body))
    other, _ = await opened(tmp_path / "a.sqlite3", body_job(body), clock=ManualClock(START + timedelta(hours=1)))
    run = await frozen.jobs.body.trigger(1, labels={"a": "b"})
    working = asyncio.ensure_future(frozen.process_one())
    await here.wait()
    events = watched(other)
    await other.process_until_idle()
    assert types(events) == ["run:stale", "run:start", "run:complete"]
    assert (events[0].run_id, events[0].job_name, events[0].labels) == (run.id, "body", {"a": "b"})
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await frozen.stop(timeout=0)
    await other.stop()


@contract
async def test_trouble_outside_of_any_run_is_a_worker_error_and_the_worker_goes_on() -> None:
    """'`worker:error` error, context'"""
    broken = True
    database = FaultyDatabase(":memory:", lambda sql: broken and "json_each(:job_names)" in sql)
    async with quick(database, echo) as durably:
        events = watched(durably)
        run = await durably.jobs.echo.trigger(1)
        await until(lambda: "worker:error" in types(events))
        broken = False
        assert (await durably.wait_for_run(run.id, timeout=30)).output == 1
    error = next(event for event in events if event.type == "worker:error")
    assert (error.run_id, error.job_name) == (None, None)
    assert isinstance(error.error, str)
    assert error.error
    assert isinstance(error.context, str)
    assert error.context


# --- order and commits ----------------------------------------------------------------------------


@contract
async def test_what_is_idempotent_or_refused_is_no_event() -> None:
    """'`disposition="idempotent"`, no event'"""
    durably, _ = await opened(":memory:", echo)
    await durably.jobs.echo.trigger(1, idempotency_key="k")
    events = watched(durably)
    await durably.jobs.echo.trigger(2, idempotency_key="k")
    with pytest.raises(ValidationError):
        await durably.jobs.echo.trigger("x")
    assert events == []
    await durably.stop()


@contract
async def test_a_batch_is_told_run_by_run_in_its_order() -> None:
    """'stores all in one transaction': one `run:trigger` each, sequences without a gap."""
    durably, _ = await opened(":memory:", echo)
    events = watched(durably)
    runs = await durably.jobs.echo.batch_trigger(list(range(20)))
    assert [(event.type, event.run_id, event.payload) for event in events] == [
        ("run:trigger", run.id, n) for n, run in enumerate(runs)
    ]
    await durably.stop()


@contract
async def test_a_listener_finds_in_the_store_what_its_event_tells() -> None:
    """'An event is sent after the commit that makes it true.' What a job signals while it works (`run:progress`,
    `log:write`) is told at once and stored a moment later."""
    here = asyncio.Event()
    seen: list[tuple[str, Any]] = []

    async def look(event: Any) -> None:
        run, steps = await durably.get_run(event.run_id), {}
        if run is not None:
            steps = {s.name: s.status for s in await durably.get_steps(event.run_id)}
        what = steps.get(event.step_name) if event.type.startswith("step:") else None if run is None else run.status
        seen.append((event.type, what))

    async def held() -> None:
        here.set()
        await asyncio.sleep(30)

    def bad() -> None:
        raise ValueError("no")

    async def body(step: StepContext, payload: Any) -> None:
        await step.run("good", lambda: 1)
        if payload == "cancelled":
            await step.run("held", held)
        if payload == "waiting":
            await step.sleep("nap", 1000)
        await step.with_options(retry=Retry(attempts=2, delay=0)).run("bad", bad)

    durably, _ = await opened(":memory:", body_job(body))
    durably.on("*", look)

    events = watched(durably)

    async def told() -> list[tuple[str, Any]]:
        """What was found at each event since the last time."""
        await until(lambda: len(seen) == len(events))
        found_since = list(seen)
        events.clear()
        seen.clear()
        return found_since

    run = await durably.jobs.body.trigger("failed")
    assert await told() == [("run:trigger", "pending")]
    await durably.process_until_idle()
    assert (await told())[-2:] == [("step:fail", "failed"), ("run:fail", "failed")]
    await durably.retry(run.id)
    assert await told() == [("run:retry", "pending")]
    await durably.cancel(run.id)
    assert await told() == [("run:cancel", "cancelled")]
    await durably.delete_run(run.id)
    assert await told() == [("run:delete", None)]
    for payload in ("cancelled", "waiting"):
        run = await durably.jobs.body.trigger(payload)
        working = asyncio.ensure_future(durably.process_until_idle())
        await (here.wait() if payload == "cancelled" else working)
        await told()
        await durably.cancel(run.id)
        await working
        assert await told() == [("step:cancel", "cancelled"), ("run:cancel", "cancelled")], payload
    await durably.stop()


@contract
async def test_a_plain_listener_finds_the_commit_made_before_it_is_called(tmp_path: Path) -> None:
    """The same, judged from another connection at the very moment of the call: nothing is told ahead of its commit."""
    path = tmp_path / "a.sqlite3"
    seen: list[tuple[str, Any]] = []

    def look(event: Any) -> None:
        with sqlite3.connect(path) as reader:
            if event.type.startswith("step:"):
                row = reader.execute(
                    "SELECT status FROM durably_steps WHERE run_id = ? AND name = ?", (event.run_id, event.step_name)
                ).fetchone()
            else:
                row = reader.execute("SELECT status FROM durably_runs WHERE id = ?", (event.run_id,)).fetchone()
        reader.close()
        seen.append((event.type, row and row[0]))

    here = asyncio.Event()

    async def held() -> None:
        here.set()
        await asyncio.sleep(30)

    async def child(step: StepContext, payload: Any) -> None:
        await step.wait_for_signal("never")

    async def body(step: StepContext, payload: Any) -> None:
        await step.run("good", lambda: 1)
        if payload == "side by side":
            await asyncio.gather(step.run("held", held), step.trigger_and_wait("child", "child", 1))
        await step.wait_for_signal("word", timeout=5)

    durably, clock = await opened(path, body_job(body), body_job(child, "child"), max_concurrent_runs=5)
    durably.on("*", look)
    await durably.jobs.body.trigger("times out")
    await durably.process_until_idle()
    await moved(durably, clock, 5)
    assert seen == [
        ("run:trigger", "pending"), ("run:start", "running"), ("step:start", None), ("step:complete", "completed"),
        ("step:start", "waiting"), ("step:fail", "failed"), ("run:fail", "failed"),
    ]  # fmt: skip
    run = await durably.jobs.body.trigger("side by side")
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    await until(lambda: [kind for kind, _ in seen].count("run:trigger") == 3)
    seen.clear()
    await durably.cancel(run.id)
    await working
    # The parent's steps and the parent, and the child that it waited for.
    assert sorted(seen, key=str) == [("run:cancel", "cancelled")] * 2 + [("step:cancel", "cancelled")] * 2
    await durably.stop()


@contract
async def test_all_three_agree_whatever_becomes_of_a_run() -> None:
    """'What happened is what the event stream, the run row and the steps say, all three.'"""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("one", lambda: 1)
        await step.sleep("nap", 1)
        await step.trigger("loose", echo, 1)
        if payload == "fails":
            await step.run("bad", lambda: 1 / 0)
        if payload == "raises":
            raise ValueError("outside of steps")
        if payload == "caught":
            try:
                await step.run("bad", lambda: 1 / 0)
            except ZeroDivisionError:
                await step.run("instead", lambda: 1)
        if payload == "duplicate":
            await step.run("one", lambda: 1)
        await step.trigger_and_wait("child", echo, 2)
        if payload == "late":
            await step.wait_for_signal("never", timeout=1)
        return await step.now()

    durably, clock = await opened(":memory:", body_job(body), echo, max_concurrent_runs=4)
    events = watched(durably)
    runs = [
        await durably.jobs.body.trigger(payload)
        for payload in ("completes", "fails", "raises", "caught", "duplicate", "late")
    ]
    for _ in range(4):
        await durably.process_until_idle()
        await moved(durably, clock, 1)
    assert [(await found(durably, run)).status for run in runs] == [
        "completed", "failed", "failed", "completed", "failed", "failed",
    ]  # fmt: skip
    for run in runs:
        await agree(durably, run, events)
    await durably.stop()


# --- listeners ------------------------------------------------------------------------------------


@contract
async def test_a_listener_hears_its_type_only_and_a_star_hears_all() -> None:
    """'`durably.on("*", listener)`', in the order in which they were added."""
    heard: list[str] = []
    durably, _ = await opened(":memory:", echo)
    durably.on("*", lambda event: heard.append(f"first {event.type}"))
    durably.on("run:trigger", lambda event: heard.append(f"one {event.type}"))
    durably.on("run:delete", lambda event: heard.append("never"))
    await durably.jobs.echo.trigger(1)
    assert sorted(heard) == ["first run:trigger", "one run:trigger"]
    await durably.stop()


@pytest.mark.parametrize("kind", ["run:started", "", "run:*", None, "RUN:START"])
def test_a_type_that_does_not_exist_is_refused(kind: Any) -> None:
    """A misspelt type would never be heard."""

    async def main() -> None:
        durably, _ = await opened()
        with pytest.raises((ValueError, TypeError)):
            durably.on(kind, lambda event: None)
        await durably.stop()

    asyncio.run(main())


@contract
async def test_unsubscribe_ends_one_subscription_for_good() -> None:
    """'`unsubscribe = durably.on("run:start", listener)`': of this listener, however often it is called."""
    heard: list[str] = []
    durably, _ = await opened(":memory:", echo)
    first = durably.on("run:trigger", heard.append)
    second = durably.on("run:trigger", heard.append)
    await durably.jobs.echo.trigger(1)
    assert len(heard) == 2
    assert first() is None
    first()
    await durably.jobs.echo.trigger(2)
    assert len(heard) == 3
    second()
    await durably.jobs.echo.trigger(3)
    assert len(heard) == 3
    await durably.stop()


@contract
async def test_a_listener_may_unsubscribe_itself_and_add_others_while_it_is_called() -> None:
    """Once-only listeners are everyday life; nobody else misses the event."""
    heard: list[str] = []
    durably, _ = await opened(":memory:", echo)

    def once(event: Any) -> None:
        heard.append("once")
        stop()
        durably.on("run:trigger", lambda event: heard.append("added"))

    stop = durably.on("run:trigger", once)
    durably.on("run:trigger", lambda event: heard.append("always"))
    await durably.jobs.echo.trigger(1)
    assert heard == ["once", "always"]
    heard.clear()
    await durably.jobs.echo.trigger(2)
    assert heard == ["always", "added"]
    await durably.stop()


@pytest.mark.parametrize("pattern", ["run:trigger", "*"])
@contract
async def test_a_listener_that_another_has_unsubscribed_is_not_called_any_more(pattern: str) -> None:
    """Whoever has unsubscribed has closed what the listener works with."""
    heard: list[str] = []
    durably, _ = await opened(":memory:", echo)
    durably.on("run:trigger", lambda event: stop())
    stop = durably.on(pattern, lambda event: heard.append("closed"))
    durably.on(pattern, lambda event: heard.append("open"))
    await durably.jobs.echo.trigger(1)
    assert heard == ["open"]
    await durably.stop()


class FailingError(Exception):
    pass


def _raises(error: BaseException) -> Callable[[Any], Any]:
    def plain(event: Any) -> None:
        raise error

    return plain


def _raises_later(error: BaseException) -> Callable[[Any], Any]:
    async def later(event: Any) -> None:
        await asyncio.sleep(0)
        raise error

    return later


@pytest.mark.parametrize("manners", [_raises, _raises_later], ids=["plain", "async"])
@pytest.mark.parametrize(
    "error", [FailingError("boom"), asyncio.CancelledError("boom"), GeneratorExit("boom")], ids=repr
)
@contract
async def test_a_failing_listener_never_breaks_a_run(manners: Any, error: BaseException) -> None:
    """'A listener is sync or async; it never breaks a run.'"""
    durably, _ = await opened(":memory:", echo)
    reported: list[BaseException] = []
    durably.on_error(lambda error, event: reported.append(error))
    durably.on("*", manners(error))
    heard = watched(durably)
    run = await durably.jobs.echo.trigger(4)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", 4)
    assert types(heard) == ["run:trigger", "run:start", "run:complete"]
    await durably.stop()
    assert reported in ([error] * 3, []) if not isinstance(error, Exception) else reported == [error] * 3


@contract
async def test_a_failing_listener_is_no_reason_for_others_to_miss_an_event() -> None:
    """Whoever was added after it hears all the same; so does an error handler after one that fails."""
    durably, _ = await opened(":memory:", echo)
    reported: list[tuple[str, str]] = []

    def bad_handler(error: Exception, event: Any) -> None:
        raise RuntimeError("the handler too")

    durably.on("run:trigger", _raises(FailingError("boom")))
    heard = watched(durably)
    durably.on_error(bad_handler)
    stop = durably.on_error(lambda error, event: reported.append((str(error), event.type)))
    await durably.jobs.echo.trigger(1)
    assert types(heard) == ["run:trigger"]
    assert reported == [("boom", "run:trigger")]
    stop()
    await durably.jobs.echo.trigger(1)
    assert len(reported) == 1
    await durably.stop()


@contract
async def test_an_error_handler_may_take_the_error_alone_and_may_be_async() -> None:
    """'`durably.on_error(handler)` gets what a listener raised.'"""
    durably, _ = await opened(":memory:", echo)
    plain: list[Exception] = []
    later: list[Exception] = []

    async def handler(error: Exception) -> None:
        await asyncio.sleep(0)
        later.append(error)

    error = FailingError("boom")
    durably.on("run:trigger", _raises(error))
    durably.on_error(plain.append)
    durably.on_error(handler)
    await durably.jobs.echo.trigger(1)
    await durably.stop()
    assert plain == later == [error]


@contract
async def test_async_listeners_are_called_in_order_and_waited_for_at_a_stop() -> None:
    """'A listener is sync or async'; none is cut off by `stop()`, and none holds up a run."""
    begun: list[str] = []
    ended: list[str] = []
    release = asyncio.Event()

    async def slow(event: Any) -> None:
        begun.append(event.type)
        await release.wait()
        ended.append(event.type)

    durably, _ = await opened(":memory:", echo)
    durably.on("*", slow)
    run = await finished(durably, await durably.jobs.echo.trigger(1))
    assert run.status == "completed"
    assert begun == ["run:trigger", "run:start", "run:complete"]
    assert ended == []
    stopping = asyncio.ensure_future(durably.stop())
    done, _ = await asyncio.wait({stopping}, timeout=0.05)
    assert not done
    release.set()
    await stopping
    assert ended == begun


@contract
async def test_who_gives_up_waiting_for_a_stop_cancels_no_listener() -> None:
    """`asyncio.wait_for(durably.stop(), ...)`: the mail that a listener is sending is sent all the same."""
    release = asyncio.Event()
    ends: list[str] = []

    async def slow(event: Any) -> None:
        try:
            await release.wait()
            ends.append("sent")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    durably, _ = await opened(":memory:", echo)
    durably.on("run:complete", slow)
    await finished(durably, await durably.jobs.echo.trigger(1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(durably.stop(), 0.05)
    release.set()
    await durably.stop()
    assert ends == ["sent"]


@contract
async def test_a_stop_with_a_timeout_cancels_the_listeners_that_take_longer() -> None:
    """`timeout` bounds the stop, whoever is at work; a listener that is done in time is not cut off."""
    ends: list[str] = []

    async def endless(event: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("cleaned up")

    async def short(event: Any) -> None:
        await asyncio.sleep(0.05)
        ends.append("done")

    async with quick(":memory:", echo) as durably:
        durably.on("run:complete", endless)
        durably.on("run:complete", short)
        await durably.jobs.echo.trigger_and_wait(1, timeout=30)
        async with asyncio.timeout(10):
            await durably.stop(timeout=0.5)
        assert ends == ["done", "cleaned up"]


@contract
async def test_a_listener_that_resists_does_not_hold_up_a_stop_with_a_timeout() -> None:
    """It has a moment to clean up, and then nobody waits for it."""
    release = asyncio.Event()

    async def stubborn(event: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with quick(":memory:", echo) as durably:
        durably.on("run:complete", stubborn)
        await durably.jobs.echo.trigger_and_wait(1, timeout=30)
        async with asyncio.timeout(10):
            await durably.stop(timeout=0.1)
        release.set()


@contract
async def test_listeners_may_stop_the_instance_both_at_once() -> None:
    """The first that fails ends the program, say: neither waits for the other, in a task of its own or not."""
    stopped: list[str] = []

    async def stop(event: Any) -> None:
        await durably.stop()
        stopped.append("one")

    async def stop_in_a_task(event: Any) -> None:
        await asyncio.gather(durably.stop(timeout=30))
        stopped.append("two")

    durably = quick(":memory:", echo)
    await durably.init()
    for listener in (stop, stop_in_a_task):
        durably.on("run:complete", listener)
    await durably.jobs.echo.trigger(1)
    await until(lambda: sorted(stopped) == ["one", "two"], 10)
    await durably.stop()


@contract
async def test_a_listener_may_use_the_instance_itself() -> None:
    """An event leads to the next job: triggering, reading and cancelling from a listener do not deadlock."""
    durably = quick(":memory:", echo)
    results: list[Any] = []

    async def follow_up(event: Any) -> None:
        if event.output < 3:
            results.append((await durably.jobs.echo.trigger(event.output + 1)).payload)
            results.append((await found(durably, event.run_id)).status)

    durably.on("run:complete", follow_up)
    async with durably:
        await durably.jobs.echo.trigger(0)
        await until(lambda: _completed(durably, 4))
    assert results == [1, "completed", 2, "completed", 3, "completed"]


async def _completed(durably: Any, count: int) -> bool:
    return len(await durably.get_runs(status=RunStatus.COMPLETED)) == count
