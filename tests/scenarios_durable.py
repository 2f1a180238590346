"""Scenarios of what takes time: retries, sleeps, signals, children, schedules, crashes. See `scenarios`.

Time is a `ManualClock`, and runs are executed by hand with `process_until_idle`, so that a week takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from scenarios import SCENARIOS, Place, echo_job, only_heartbeats, raises, scenario

from durably import (
    ConflictError,
    Durably,
    NonRetryableError,
    NotFoundError,
    Retry,
    RetryAfter,
    RunCancelledError,
    RunFailedError,
    StepContext,
    StepOutputError,
    Trigger,
    ValidationError,
    create_durably,
    define_job,
    job,
    with_log_persistence,
)
from durably.testing import ManualClock

__all__ = ["SCENARIOS"]


async def settled(durably: Durably, clock: ManualClock, span: float | timedelta = 0) -> None:
    """Let `span` go by, and execute what is due."""
    await clock.advance(span)
    await durably.process_until_idle()


async def begun(place: Place, *jobs: Any, label: str = "db", **options: Any) -> tuple[Durably, ManualClock]:
    clock = options.pop("clock", None) or ManualClock()
    durably = create_durably(place(label), jobs=jobs, clock=clock, **options)
    await durably.migrate()
    return durably, clock


async def process_when_seen(durably: Durably) -> None:
    """`process_one`, once this connection sees what another one has just committed."""
    while not await durably.process_one():
        await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)  # Pyodide does not sleep at all for less than four milliseconds
    raise AssertionError("it did not happen")


# --- going on --------------------------------------------------------------------------------------


@scenario
async def progress_of_replayed_steps_is_told_once_as_it_was_last(place: Place) -> None:
    """Who watches a run that goes on sees it where it was, and not once more from the beginning."""
    is_down = True
    told: list[tuple[str, float | None]] = []

    async def reach(number: int) -> int:
        if is_down and number == 4:
            raise OSError("unreachable")
        return number

    @job
    async def import_rows(step: StepContext, payload: int) -> int:
        for number in range(1, payload + 1):
            await step.run(f"page {number}", reach, number)
            step.progress(number, payload)
        return payload

    durably, _ = await begun(place, import_rows)
    run = await durably.jobs.import_rows.trigger(6)
    await durably.process_until_idle()
    durably.on("*", lambda event: told.append((event.type, getattr(getattr(event, "progress", None), "current", None))))
    is_down = False
    await durably.retry(run.id)
    await durably.process_until_idle()
    assert told == [
        ("run:retry", None),
        ("run:start", None),
        ("run:progress", 3),
        *[each for n in (4, 5, 6) for each in (("step:start", None), ("step:complete", None), ("run:progress", n))],
        ("run:complete", None),
    ]
    found = await durably.get_run(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.current == 6
    await durably.stop()


# --- retries --------------------------------------------------------------------------------------


@scenario
async def a_step_is_tried_again_after_growing_pauses_and_its_attempts_are_told(place: Place) -> None:
    calls: list[datetime] = []

    async def flaky() -> str:
        calls.append(await_clock())
        if len(calls) < 4:
            raise OSError(f"attempt {len(calls)}")
        return "ok"

    @job
    async def patient(step: StepContext, payload: int) -> str:
        policy = Retry(attempts=5, delay=1, backoff=3, max_delay=5, jitter=False)
        return await step.with_options(retry=policy).run("flaky", flaky)

    durably, clock = await begun(place, patient)

    def await_clock() -> datetime:
        return datetime.fromtimestamp(clock.now() / 1000, UTC)

    told: list[tuple[int, str, float]] = []
    durably.on(
        "step:retry",
        lambda event: told.append(
            (event.attempt, event.error, (event.next_attempt_at - event.timestamp).total_seconds())
        ),
    )
    run = await durably.jobs.patient.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    for n, pause in enumerate((1, 3, 5), start=1):
        await until(lambda n=n: len(told) == n)  # type: ignore[misc]  # mypy cannot infer n
        await clock.advance(pause)
    await asyncio.wait_for(working, 10)
    assert told == [(1, "attempt 1", 1), (2, "attempt 2", 3), (3, "attempt 3", 5)]
    assert [(later - calls[0]).total_seconds() for later in calls] == [0, 1, 4, 9]
    [step] = await durably.get_steps(run.id)
    assert (step.status, step.attempt, step.output) == ("completed", 4, "ok")
    await durably.stop()


@scenario
async def what_another_attempt_cannot_mend_fails_at_once(place: Place) -> None:
    calls: list[str] = []

    def fail_with(error: Exception) -> None:
        calls.append(type(error).__name__)
        raise error

    errors = {"never": NonRetryableError("never"), "other": KeyError("other"), "after": RetryAfter(7)}

    @job
    async def stubborn(step: StepContext, payload: str) -> None:
        policy = Retry(attempts=3, delay=0, jitter=False, on=(OSError, RetryAfter))
        await step.with_options(retry=policy).run("fail", fail_with, errors[payload])

    durably, clock = await begun(place, stubborn)
    for payload in ("never", "other"):
        run = await durably.jobs.stubborn.trigger(payload)
        await durably.process_one()
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.status == "failed"
    assert calls == ["NonRetryableError", "KeyError"]

    pauses: list[float] = []
    durably.on("step:retry", lambda event: pauses.append((event.next_attempt_at - event.timestamp).total_seconds()))
    await durably.jobs.stubborn.trigger("after")
    working = asyncio.ensure_future(durably.process_one())
    for n in (1, 2):
        await until(lambda n=n: len(pauses) == n)  # type: ignore[misc]  # mypy cannot infer n
        await clock.advance(7)
    await asyncio.wait_for(working, 10)
    assert pauses == [7, 7]
    assert calls.count("RetryAfter") == 3
    await durably.stop()


@scenario
async def attempts_are_counted_in_the_store(place: Place) -> None:
    """A worker that dies between two attempts does not give a step new ones."""
    calls: list[int] = []

    async def fail() -> None:
        calls.append(len(calls) + 1)
        raise OSError("again")

    @job
    async def limited(step: StepContext, payload: int) -> None:
        await step.with_options(retry=Retry(attempts=3, delay=60, jitter=False)).run("fail", fail)

    first, clock = await begun(place, limited)
    run = await first.jobs.limited.trigger(1)
    await first.init()
    await until(lambda: len(calls) == 1)
    await first.stop(timeout=0)  # handed back in the pause after the first attempt
    second, _ = await begun(place, limited, clock=clock)
    working = asyncio.ensure_future(second.process_one())
    await asyncio.sleep(0.05)
    assert calls == [1], "the pause is kept"
    for n in (2, 3):
        await clock.advance(60)
        await until(lambda n=n: len(calls) == n)  # type: ignore[misc]  # mypy cannot infer n
    await asyncio.wait_for(working, 10)
    found = await second.get_run(run.id)
    assert found is not None
    assert (found.status, found.error) == ("failed", "again")
    assert calls == [1, 2, 3]
    await second.stop()
    await first.stop()


@scenario
async def a_step_that_takes_too_long_is_cancelled(place: Place) -> None:
    cleaned: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("finally")

    @job
    async def hurried(step: StepContext, payload: int) -> None:
        await step.with_options(timeout=0.01).run("long", long)

    async with create_durably(place("db"), jobs=[hurried]) as durably:
        with raises(RunFailedError) as caught:
            await durably.jobs.hurried.trigger_and_wait(1, timeout=10)
    assert str(caught.error) == "step 'long' took more than 0.01 s, its timeout"
    assert cleaned == ["finally"]


@scenario
async def a_run_that_is_at_work_too_long_fails_and_waiting_is_not_counted(place: Place) -> None:
    release = asyncio.Event()

    async def run(step: StepContext, payload: str) -> str:
        await step.sleep("a day", timedelta(days=1))
        if payload == "long":
            await step.run("long", release.wait)
        return "in time"

    durably, clock = await begun(place, define_job(name="timed", input=str, output=str, run=run, timeout=30))
    short = await durably.jobs.timed.trigger("short")
    long = await durably.jobs.timed.trigger("long")
    await settled(durably, clock)
    await clock.advance(timedelta(days=1))
    working = asyncio.ensure_future(durably.process_until_idle())
    running: list[str] = []
    durably.on("step:start", lambda event: running.append(event.step_name))
    await until(lambda: "long" in running)
    await clock.advance(31)
    await asyncio.wait_for(working, 10)
    ended = [await durably.get_run(short.id), await durably.get_run(long.id)]
    assert [found.status for found in ended if found] == ["completed", "failed"]
    assert ended[1] is not None
    assert ended[1].error == "the run was at work for more than 30 s, the timeout of its job"
    await durably.stop()


# --- waiting --------------------------------------------------------------------------------------


@scenario
async def a_sleeping_run_holds_no_slot_and_wakes_at_its_moment(place: Place) -> None:
    woken: list[datetime] = []

    @job
    async def sleeper(step: StepContext, seconds: float) -> str:
        await step.run("before", lambda: 1)
        await step.sleep("nap", seconds)
        woken.append(await step.now())
        return "rested"

    durably, clock = await begun(place, sleeper, echo_job([]))
    start = clock.now()
    run = await durably.jobs.sleeper.trigger(1_000_000)
    other = await durably.jobs.echo.trigger("meanwhile")
    assert await durably.process_until_idle() == 2
    waiting = await durably.get_run(run.id)
    assert waiting is not None
    assert (waiting.status, waiting.waiting_for) == ("pending", "sleep:nap")
    assert [step.status for step in await durably.get_steps(run.id)] == ["completed", "waiting"]
    done = await durably.get_run(other.id)
    assert done is not None
    assert done.status == "completed"

    await settled(durably, clock, 999_999.999)
    assert woken == []
    await settled(durably, clock, 0.001)
    assert [moment.timestamp() * 1000 for moment in woken] == [start + 1_000_000_000]
    rested = await durably.get_run(run.id)
    assert rested is not None
    assert (rested.output, rested.waiting_for) == ("rested", None)
    await durably.stop()


@scenario
async def a_restart_does_not_begin_a_sleep_anew(place: Place) -> None:
    calls: list[str] = []

    @job
    async def sleeper(step: StepContext, payload: int) -> str:
        await step.run("before", lambda: calls.append("before"))
        await step.sleep("nap", 3600)
        return await step.run("after", lambda: "after")

    first, clock = await begun(place, sleeper)
    run = await first.jobs.sleeper.trigger(1)
    await settled(first, clock)
    await first.stop()
    second, _ = await begun(place, sleeper, clock=clock)
    await settled(second, clock, 3599)
    found = await second.get_run(run.id)
    assert found is not None
    assert (found.status, found.waiting_for) == ("pending", "sleep:nap")
    await settled(second, clock, 1)
    found = await second.get_run(run.id)
    assert found is not None
    assert found.output == "after"
    assert calls == ["before"]
    await second.stop()


@scenario
async def signals_are_delivered_once_each_in_order_whenever_they_come(place: Place) -> None:
    @job
    async def listener(step: StepContext, payload: int) -> list[Any]:
        first = await step.wait_for_signal("first", signal="go")
        second = await step.wait_for_signal("second", signal="go")
        named = await step.wait_for_signal("approved")
        return [first, second, named]

    durably, clock = await begun(place, listener)
    run = await durably.jobs.listener.trigger(1)
    await durably.signal(run.id, "go", {"n": 1})  # before
    await settled(durably, clock)
    waiting = await durably.get_run(run.id)
    assert waiting is not None
    assert (waiting.status, waiting.waiting_for) == ("pending", "signal:go")
    await durably.signal(run.id, "go", (2,))  # while it waits
    await durably.signal(run.id, "go", 3)  # one too many: kept, and never wanted
    await durably.signal(run.id, "approved", b"yes")
    await settled(durably, clock)
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.status == "completed"
    steps = await durably.get_steps(run.id)
    assert [step.output for step in steps] == [{"n": 1}, (2,), b"yes"]
    with raises(ConflictError):
        await durably.signal(run.id, "go")
    with raises(NotFoundError):
        await durably.signal("01NOSUCH", "go")
    with raises(ValidationError):
        await durably.signal(run.id, "go", object())
    await durably.stop()


@scenario
async def a_signal_that_does_not_come_times_out_and_does_so_again_on_replay(place: Place) -> None:
    @job
    async def impatient(step: StepContext, payload: int) -> str:
        try:
            await step.wait_for_signal("answer", timeout=60)
        except TimeoutError:
            await step.sleep("then", 10)
            return "no answer"
        return "answer"

    first, clock = await begun(place, impatient)
    run = await first.jobs.impatient.trigger(1)
    await settled(first, clock)
    await settled(first, clock, 60)
    await first.stop()
    second, _ = await begun(place, impatient, clock=clock)
    await second.signal(run.id, "answer", "late")
    await settled(second, clock, 10)
    done = await second.get_run(run.id)
    assert done is not None
    assert done.output == "no answer"
    await second.stop()


@scenario
async def a_branch_goes_on_while_another_waits(place: Place) -> None:
    @job
    async def both(step: StepContext, payload: int) -> list[Any]:
        async def branch() -> list[str]:
            seen = []
            for n in range(3):
                seen.append(await step.run(f"work-{n}", lambda n=n: f"w{n}"))
                await step.sleep(f"short-{n}", 1)
            return seen

        _, seen = await asyncio.gather(step.sleep("long", 3600), branch())
        return list(seen)

    durably, clock = await begun(place, both)
    run = await durably.jobs.both.trigger(1)
    await settled(durably, clock)
    for _ in range(3):
        await settled(durably, clock, 1)
    found = await durably.get_run(run.id)
    assert found is not None
    assert (found.completed_step_count, found.waiting_for) == (6, "sleep:long")
    await settled(durably, clock, 3600)
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.output == ["w0", "w1", "w2"]
    await durably.stop()


@scenario
async def a_waiting_run_is_cancelled_and_a_retried_one_waits_again(place: Place) -> None:
    ended: list[str] = []

    @job
    async def waiter(step: StepContext, payload: int) -> Any:
        try:
            return await step.wait_for_signal("go")
        finally:
            ended.append("finally")

    durably, clock = await begun(place, waiter)
    run = await durably.jobs.waiter.trigger(1)
    await settled(durably, clock)
    await durably.cancel(run.id)
    await until(lambda: ended == ["finally"])
    with raises(RunCancelledError):
        await durably.wait_for_run(run.id)
    await durably.retry(run.id)
    await settled(durably, clock)
    await durably.signal(run.id, "go", "now")
    await settled(durably, clock)
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.output == "now"
    await durably.stop()


@scenario
async def waiting_runs_use_one_slot_in_turn_under_a_started_worker(place: Place) -> None:
    @job
    async def napper(step: StepContext, payload: int) -> int:
        for n in range(3):
            await step.sleep(f"nap-{n}", 0.02)
        return await step.wait_for_signal("done", timeout=30) + payload

    async with create_durably(place("db"), jobs=[napper], polling_interval=0.01) as durably:
        runs = await durably.jobs.napper.batch_trigger(range(8))
        for run in runs:
            await durably.signal(run.id, "done", 100)
        outputs = [(await durably.wait_for_run(run.id, timeout=20)).output for run in runs]
    assert outputs == [100 + n for n in range(8)]


# --- children -------------------------------------------------------------------------------------


@scenario
async def a_child_is_started_once_and_waited_for_without_a_slot(place: Place) -> None:
    calls: list[Any] = []

    @job
    async def parent(step: StepContext, payload: str) -> Any:
        started = await step.trigger("start", "echo", "aside")
        child = await step.trigger_and_wait("wait", echo, payload)
        await step.sleep("then", 5)
        return [child.output, child.status, started.id != child.id]

    echo = echo_job(calls)
    first, clock = await begun(place, parent, echo)
    run = await first.jobs.parent.trigger("hello")
    await settled(first, clock)
    found = await first.get_run(run.id)
    assert found is not None
    assert found.waiting_for == "sleep:then"
    await first.stop()
    second, _ = await begun(place, parent, echo, clock=clock)
    await settled(second, clock, 5)
    done = await second.get_run(run.id)
    assert done is not None
    assert done.output == ["hello", "completed", True]
    assert sorted(calls) == ["aside", "hello"]
    assert len(await second.get_runs(job_name="echo")) == 2
    await second.stop()


@scenario
async def a_childs_failure_is_the_parents_to_handle(place: Place) -> None:
    @job
    async def broken(step: StepContext, payload: int) -> None:
        raise OSError("the child broke")

    @job
    async def parent(step: StepContext, payload: int) -> str:
        try:
            await step.trigger_and_wait("child", "broken", 1)
        except RunFailedError as error:
            return str(error)
        return "no error"

    durably, clock = await begun(place, parent, broken)
    run = await durably.jobs.parent.trigger(1)
    await settled(durably, clock)
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.output == "the child broke"
    with raises(NotFoundError):

        @job
        async def wrong(step: StepContext, payload: int) -> None:
            await step.trigger("child", "no-such-job", 1)

        durably.register(wrong)
        await durably.jobs.wrong.trigger(1)
        await durably.process_one()
        [failed] = await durably.get_runs(job_name="wrong")
        assert failed.error is not None
        assert "no-such-job" in failed.error
        raise NotFoundError(failed.error)
    await durably.stop()


@scenario
async def cancelling_a_parent_cancels_its_children_unless_they_are_detached(place: Place) -> None:
    @job
    async def waiter(step: StepContext, payload: str) -> None:
        await step.wait_for_signal("never")

    @job
    async def parent(step: StepContext, payload: int) -> None:
        await step.trigger("detached", waiter, "detached", detached=True)
        await step.trigger_and_wait("attached", waiter, "attached")

    durably, clock = await begun(place, parent, waiter)
    run = await durably.jobs.parent.trigger(1)
    await settled(durably, clock)
    cancelled: list[str] = []
    durably.on("run:cancel", lambda event: cancelled.append(event.job_name))
    await durably.cancel(run.id)
    statuses = {child.payload: child.status for child in await durably.get_runs(job_name="waiter")}
    assert statuses == {"detached": "pending", "attached": "cancelled"}
    assert sorted(cancelled) == ["parent", "waiter"]
    await durably.stop()


# --- what differs each time -----------------------------------------------------------------------


@scenario
async def time_and_chance_are_the_same_on_replay(place: Place) -> None:
    seen: list[list[Any]] = []

    @job
    async def chancy(step: StepContext, payload: int) -> None:
        seen.append([await step.now(), await step.random(), await step.random(), await step.uuid()])
        await step.sleep("nap", 60)
        seen.append([await step.now()])

    first, clock = await begun(place, chancy)
    await first.jobs.chancy.trigger(1)
    await settled(first, clock)
    await first.stop()
    second, _ = await begun(place, chancy, clock=clock)
    await settled(second, clock, 60)
    before, replayed, after = seen
    assert before == replayed
    assert before[1] != before[2]
    assert after[0] - before[0] == timedelta(seconds=60)
    await second.stop()


# --- triggering and keeping -----------------------------------------------------------------------


@scenario
async def a_trigger_coalesces_with_a_pending_run_of_its_key(place: Place) -> None:
    durably, clock = await begun(place, echo_job([]), echo_job([], "other"))
    skipped: list[Any] = []
    durably.on("run:coalesced", lambda event: skipped.append((event.skipped_payload, dict(event.skipped_labels))))
    trigger = durably.jobs.echo.trigger
    first = await trigger(1, concurrency_key="k")
    again = await trigger(2, concurrency_key="k", coalesce="skip", labels={"a": "b"})
    assert (again.id, again.disposition, again.payload) == (first.id, "coalesced", 1)
    assert skipped == [(2, {"a": "b"})]
    other = await durably.jobs.other.trigger(3, concurrency_key="k", coalesce="skip")
    assert other.disposition == "created"
    await settled(durably, clock)
    fresh = await trigger(4, concurrency_key="k", coalesce="skip")
    assert fresh.disposition == "created"
    with raises(ValidationError):
        await trigger(5, coalesce="skip")
    with raises(ValidationError):
        await trigger(5, concurrency_key="k", coalesce="replace")
    await durably.stop()


class Tags(BaseModel):
    org: str
    team: str | None = None


@scenario
async def labels_fit_the_model_of_the_instance(place: Place) -> None:
    durably, _ = await begun(place, echo_job([]), labels=Tags)
    run = await durably.jobs.echo.trigger(1, labels={"org": "x"})
    assert run.labels == {"org": "x"}
    for wrong in ({}, {"org": 1}):
        with raises(ValidationError):
            await durably.jobs.echo.trigger(1, labels=wrong)  # type: ignore[arg-type]
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@scenario
async def ended_runs_are_triggered_anew_deleted_and_purged(place: Place) -> None:
    durably, clock = await begun(place, echo_job([]))
    deleted: list[str] = []
    durably.on("run:delete", lambda event: deleted.append(event.run_id))
    run = await durably.jobs.echo.trigger("x", labels={"a": "b"}, idempotency_key="k")
    for action in (durably.retrigger, durably.delete_run):
        with raises(ConflictError) as caught:
            await action(run.id)
        assert "is pending" in caught.error.message
        with raises(NotFoundError):
            await action("01NOSUCH")
    await settled(durably, clock)
    fresh = await durably.retrigger(run.id)
    assert (fresh.payload, fresh.labels, fresh.idempotency_key, fresh.id != run.id) == ("x", {"a": "b"}, None, True)
    await settled(durably, clock, 3600)
    now = datetime.fromtimestamp(clock.now() / 1000, UTC)
    assert await durably.purge_runs(now - timedelta(minutes=30)) == 1
    assert deleted == [run.id]
    await durably.delete_run(fresh.id)
    assert await durably.get_runs() == []
    with raises(ValidationError):
        await durably.purge_runs(datetime(2026, 1, 1))  # noqa: DTZ001 - the point: it names no instant
    await durably.stop()


@scenario
async def runs_are_kept_as_long_as_they_are_to_be(place: Place) -> None:
    clock = ManualClock()
    for bad in ("", "30", "d30", "0d", "1w"):
        with raises(ValueError):
            create_durably(place("bad"), retain_runs=bad)
    durably, _ = await begun(place, echo_job([]), clock=clock, retain_runs="90m", preserve_steps=False)
    run = await durably.jobs.echo.trigger(1)
    await settled(durably, clock)
    assert await durably.get_steps(run.id) == [], "steps of a completed run go"
    await settled(durably, clock, timedelta(minutes=80))
    assert await durably.get_run(run.id) is not None
    await settled(durably, clock, timedelta(minutes=11))
    assert await durably.get_run(run.id) is None
    await durably.stop()


@scenario
async def a_fork_begins_with_the_steps_before_a_given_one(place: Place) -> None:
    calls: list[str] = []

    @job
    async def three(step: StepContext, payload: int) -> list[str]:
        def note(name: str) -> str:
            calls.append(name)
            return name

        return [await step.run(name, note, name) for name in ("a", "b", "c")]

    durably, clock = await begun(place, three)
    run = await durably.jobs.three.trigger(1, labels={"x": "y"})
    with raises(ConflictError):
        await durably.fork(run.id, "b")
    await settled(durably, clock)
    with raises(NotFoundError):
        await durably.fork(run.id, "z")
    forked = await durably.fork(run.id, "b")
    assert (forked.completed_step_count, forked.labels, forked.status) == (1, {"x": "y"}, "pending")
    await settled(durably, clock)
    done = await durably.get_run(forked.id)
    assert done is not None
    assert done.output == ["a", "b", "c"]
    assert calls == ["a", "b", "c", "b", "c"]
    await durably.stop()


@scenario
async def log_lines_are_kept_in_order_where_that_is_wanted(place: Place) -> None:
    @job
    async def talkative(step: StepContext, payload: int) -> None:
        for n in range(payload):
            step.log.info(f"line {n}", {"n": n})
        await step.run("inside", lambda: step.log.error("from a step", object()))

    durably, clock = await begun(place, talkative)
    durably.use(with_log_persistence())
    run = await durably.jobs.talkative.trigger(50)
    await settled(durably, clock)
    logs = await durably.get_logs(run.id)
    assert [line.message for line in logs] == [*(f"line {n}" for n in range(50)), "from a step"]
    assert (logs[3].level, logs[3].data, logs[3].step_name) == ("info", {"n": 3}, None)
    assert (logs[-1].level, logs[-1].step_name) == ("error", "inside")
    with raises(NotFoundError):
        await durably.get_logs("01NOSUCH")
    await durably.stop()


@scenario
async def a_class_without_an_import_path_is_kept_by_its_declared_type(place: Place) -> None:
    class Local(BaseModel):
        n: int

    seen: list[Any] = []

    def annotated() -> Local:
        return Local(n=1)

    def bare():  # type: ignore[no-untyped-def]
        return Local(n=2)

    annotated.__annotations__["return"] = Local

    @job
    async def keeper(step: StepContext, payload: int) -> None:
        seen.append(await step.run("annotated", annotated))
        seen.append(await step.with_options(output=Local).run("given", bare))
        await step.sleep("nap", 1)
        try:
            await step.run("nothing", bare)
        except StepOutputError as error:
            seen.append(error.path)

    first, clock = await begun(place, keeper)
    await first.jobs.keeper.trigger(1)
    await settled(first, clock)
    await first.stop()
    second, _ = await begun(place, keeper, clock=clock)
    await settled(second, clock, 1)
    assert seen == [Local(n=1), Local(n=2)] * 2 + ["$"]
    await second.stop()


# --- schedules ------------------------------------------------------------------------------------


@scenario
async def a_schedule_ticks_once_for_all_workers(place: Place) -> None:
    clock = ManualClock()
    calls: list[Any] = []
    one, _ = await begun(place, echo_job(calls), clock=clock)
    two, _ = await begun(place, echo_job(calls), clock=clock)
    made = await one.schedule("echo", "tick", every=60, key="minutely")
    assert made.next_at.timestamp() * 1000 == clock.now() + 60_000
    for _ in range(5):
        await clock.advance(60)
        await asyncio.gather(one.process_until_idle(), two.process_until_idle())
    assert calls == ["tick"] * 5
    runs = await one.get_runs()
    assert {tuple(run.labels.items()) for run in runs} == {(("schedule", "minutely"),)}
    await one.schedule("echo", "tock", every=30, key="minutely")
    assert [(each.key, each.payload, each.every) for each in await one.get_schedules()] == [("minutely", "tock", 30)]
    await one.unschedule("minutely")
    with raises(NotFoundError):
        await one.unschedule("minutely")
    await settled(one, clock, 600)
    assert calls == ["tick"] * 5
    await one.stop()
    await two.stop()


@scenario
async def missed_ticks_are_caught_up_as_asked(place: Place) -> None:
    calls: list[Any] = []
    durably, clock = await begun(place, echo_job(calls))
    for catch_up in ("one", "all", "skip"):
        await durably.schedule("echo", catch_up, every=timedelta(days=1), key=catch_up, catch_up=catch_up)
    await settled(durably, clock, timedelta(days=7, hours=12))
    assert sorted(calls) == ["all"] * 7 + ["one"]
    calls.clear()
    await settled(durably, clock, timedelta(hours=12))
    assert sorted(calls) == ["all", "one", "skip"]
    for wrong in (
        {"every": 0},
        {"every": 1, "cron": "* * * * *"},
        {},
        {"cron": "nonsense"},
        {"cron": "0 9 * * *", "timezone": "Nowhere/At_All"},
        {"every": 1, "catch_up": "some"},
    ):
        with raises(ValidationError):
            await durably.schedule("echo", 1, key="wrong", **wrong)  # type: ignore[arg-type]
    with raises(NotFoundError):
        await durably.schedule("no-such", 1, key="wrong", every=1)
    await durably.stop()


@scenario
async def a_cron_schedule_ticks_at_its_times(place: Place) -> None:
    clock = ManualClock(datetime(2026, 1, 2, 8, 0, tzinfo=UTC))  # a Friday
    moments: list[datetime] = []

    @job
    async def stamp(step: StepContext, payload: int) -> None:
        moments.append(await step.now())

    durably, _ = await begun(place, stamp, clock=clock)
    await durably.schedule(stamp, 1, cron="30 9 * * 1-5", key="weekdays")
    for _ in range(5 * 24):
        await settled(durably, clock, timedelta(hours=1) - timedelta(minutes=30))
        await settled(durably, clock, timedelta(minutes=30))
    assert [f"{moment:%a %H:%M}" for moment in moments] == ["Fri 09:30", "Mon 09:30", "Tue 09:30"]
    await durably.stop()


# --- crashes --------------------------------------------------------------------------------------


@scenario
async def a_run_that_keeps_killing_its_worker_is_parked_as_failed_naming_the_step(place: Place) -> None:
    """A worker that stops beating is, where nothing better is known, one that died."""
    clock = ManualClock()
    stuck: list[asyncio.Task[Any]] = []
    attempts: list[int] = []
    forever = asyncio.Event()

    async def deadly() -> None:
        attempts.append(len(attempts))
        await forever.wait()

    @job
    async def dangerous(step: StepContext, payload: int) -> None:
        await step.run("safe", lambda: 1)
        await step.run("deadly", deadly)

    instances = []
    durably, _ = await begun(place, dangerous, clock=clock, max_crashes=3)
    only_heartbeats(durably)
    run = await durably.jobs.dangerous.trigger(1)
    failed: list[Any] = []
    durably.on("run:fail", lambda event: failed.append((event.run_id, event.failed_step_name)))
    for n in range(3):
        # Each dies with its own clock standing still: it beats no more.
        victim, _ = await begun(place, dangerous, clock=ManualClock(datetime.fromtimestamp(clock.now() / 1000, UTC)))
        instances.append(victim)
        stuck.append(asyncio.ensure_future(process_when_seen(victim)))
        await until(lambda n=n: len(attempts) == n + 1)  # type: ignore[misc]  # mypy cannot infer n
        await clock.advance(60)
        # Another connection sees the claim a moment later, and frees the run without claiming it.
        for _ in range(1000):
            await durably._worker._look_for_work(0)
            parked = await durably.get_run(run.id)
            assert parked is not None
            if parked.generation == n + 1 and parked.status != "running":
                break
            await asyncio.sleep(0.001)
    assert parked.status == "failed"
    assert parked.error is not None
    assert "died 3 times in step 'deadly'" in parked.error
    assert failed == [(run.id, "deadly")]
    forever.set()
    await asyncio.wait_for(asyncio.gather(*stuck), 10)
    await durably.retry(run.id)
    await settled(durably, clock)
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.status == "completed"
    for instance in [*instances, durably]:
        await instance.stop()


@scenario
async def a_batch_may_mix_payloads_and_triggers(place: Place) -> None:
    durably, clock = await begun(place, echo_job([]))
    runs = await durably.jobs.echo.batch_trigger([1, Trigger(2, priority=3), Trigger(3, delay=60)])
    assert [run.priority for run in runs] == [0, 3, 0]
    assert await durably.process_until_idle() == 2
    await settled(durably, clock, 60)
    assert {run.status for run in await durably.get_runs()} == {"completed"}
    await durably.stop()
