"""API.md section 3, clause by clause: triggering, and what a `Run` tells."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from contract_kit import contract, echo, finished, found, moved, opened, quick, types, until, watched
from pydantic import BaseModel

from durably import (
    DurablyError,
    JobHandle,
    Log,
    NotFoundError,
    Progress,
    Run,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    Step,
    StepContext,
    Trigger,
    ValidationError,
    job,
    with_log_persistence,
)


class SyncInput(BaseModel):
    org_id: str


class SyncOutput(BaseModel):
    synced_count: int


@job
async def sync(step: StepContext, payload: SyncInput) -> SyncOutput:
    return SyncOutput(synced_count=len(payload.org_id))


@job
async def failing(step: StepContext, payload: str) -> None:
    def fail() -> None:
        raise LookupError(payload)

    await step.run("fail", fail)


@job
async def held(step: StepContext, payload: int) -> int:
    await step.wait_for_signal("go")
    return payload


def test_trigger_has_the_signature_of_the_contract() -> None:
    """`JobHandle.trigger(payload, *, idempotency_key=None, concurrency_key=None, coalesce=None, labels=None,
    delay=None, run_at=None, priority=0) -> Run`"""
    got = [
        (p.name, p.kind.name, p.default)
        for p in inspect.signature(JobHandle.trigger).parameters.values()
        if p.name != "self"
    ]
    assert got == [
        ("payload", "POSITIONAL_OR_KEYWORD", inspect.Parameter.empty),
        ("idempotency_key", "KEYWORD_ONLY", None),
        ("concurrency_key", "KEYWORD_ONLY", None),
        ("coalesce", "KEYWORD_ONLY", None),
        ("labels", "KEYWORD_ONLY", None),
        ("delay", "KEYWORD_ONLY", None),
        ("run_at", "KEYWORD_ONLY", None),
        ("priority", "KEYWORD_ONLY", 0),
    ]


@contract
async def test_a_trigger_takes_a_model_or_a_dict_and_gives_a_pending_created_run() -> None:
    """'trigger(SyncInput(org_id="o1"))  # a model, or a dict'; 'run.id, run.status, run.disposition  #
    '01J...', 'pending', 'created''"""
    durably, _ = await opened(":memory:", sync)
    for payload in (SyncInput(org_id="o1"), {"org_id": "o1"}):
        run = await durably.jobs.sync.trigger(payload)
        assert (run.status, run.disposition, run.payload) == ("pending", "created", SyncInput(org_id="o1"))
        assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", run.id)
    await durably.stop()


@contract
async def test_ids_are_ulids_that_grow_even_within_one_millisecond() -> None:
    """'`id` (ULID, monotonic)'"""
    durably, _ = await opened(":memory:", echo)
    ids = [(await durably.jobs.echo.trigger(n)).id for n in range(20)]
    ids += [run.id for run in await durably.jobs.echo.batch_trigger(list(range(50)))]
    assert ids == sorted(ids)
    assert len(set(ids)) == 70
    await durably.stop()


@contract
async def test_a_run_has_the_fields_of_the_contract_and_is_frozen() -> None:
    """'`Run` (frozen dataclass, generic in its output): id, job_name, status, ... disposition, and is_active /
    is_terminal'"""
    durably, clock = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(7, idempotency_key="i", concurrency_key="c", labels={"a": "b"}, priority=3)
    assert {field.name for field in dataclasses.fields(Run)} == {
        "id", "job_name", "status", "payload", "output", "error", "progress", "labels", "idempotency_key",
        "concurrency_key", "priority", "current_step_index", "completed_step_count", "waiting_for", "generation",
        "worker_id", "heartbeat_at", "run_at", "created_at", "updated_at", "started_at", "completed_at", "disposition",
    }  # fmt: skip
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (run.job_name, run.payload, run.output, run.error, run.progress) == ("echo", 7, None, None, None)
    assert (run.labels, run.idempotency_key, run.concurrency_key, run.priority) == ({"a": "b"}, "i", "c", 3)
    assert (run.completed_step_count, run.waiting_for, run.generation) == (0, None, 0)
    assert (run.worker_id, run.heartbeat_at, run.started_at, run.completed_at) == (None, None, None, None)
    assert (run.created_at, run.updated_at, run.created_at.tzinfo) == (start, start, UTC)
    assert (run.is_active, run.is_terminal) == (True, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.status = RunStatus.FAILED  # type: ignore[misc]
    assert Run[int] is not None
    await clock.advance(2)
    done = await finished(durably, run)
    assert (done.status, done.output, done.is_active, done.is_terminal) == ("completed", 7, False, True)
    assert done.generation == 1
    assert done.started_at == done.completed_at == done.updated_at == start + timedelta(seconds=2)
    assert done.created_at == start
    await durably.stop()


@contract
async def test_a_read_run_is_the_run_that_was_created() -> None:
    """`get_run` of a fresh run tells what `trigger` told."""
    durably, _ = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(7, concurrency_key="c", labels={"a": "b"}, delay=5)
    again = await found(durably, run)
    differing = [
        f.name for f in dataclasses.fields(Run)
        if f.name != "disposition" and getattr(run, f.name) != getattr(again, f.name)
    ]  # fmt: skip
    assert differing == []
    await durably.stop()


def test_run_status_is_a_str_enum_of_five() -> None:
    """'`status` is one of `pending running completed failed cancelled` (a `StrEnum`, `RunStatus`)'"""
    assert issubclass(RunStatus, enum.StrEnum)
    assert {str(status) for status in RunStatus} == {"pending", "running", "completed", "failed", "cancelled"}
    assert {field.name for field in dataclasses.fields(Step)} == {
        "name", "index", "status", "output", "error", "attempt", "started_at", "completed_at",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Log)} == {"level", "message", "data", "step_name", "created_at"}
    assert [field.name for field in dataclasses.fields(Progress)] == ["current", "total", "message"]


@contract
async def test_an_invalid_payload_is_refused_and_nothing_is_stored() -> None:
    """'Invalid payload: `ValidationError` (status 400), nothing stored'"""
    durably, _ = await opened(":memory:", sync)
    events = watched(durably)
    for bad in ({"org": 1}, None, 3, "text", {"org_id": None}, [], echo):
        with pytest.raises(ValidationError) as caught:
            await durably.jobs.sync.trigger(bad)
        assert caught.value.status == 400
        assert isinstance(caught.value, DurablyError)
    with pytest.raises(ValidationError, match="org_id"):
        await durably.jobs.sync.trigger({})
    assert await durably.get_runs() == []
    assert events == []
    await durably.stop()


@contract
async def test_a_batch_is_stored_as_a_whole_or_not_at_all() -> None:
    """'`batch_trigger` validates all, then stores all in one transaction, or none.'"""
    durably, _ = await opened(":memory:", sync)
    events = watched(durably)
    for bad in ({"org": 1}, Trigger({"org_id": "1"}, labels={"a b": "c"}), Trigger({"org_id": "1"}, coalesce="skip")):
        with pytest.raises((ValidationError, ValueError)):
            await durably.jobs.sync.batch_trigger([{"org_id": "1"}, bad])
    assert await durably.get_runs() == []
    assert events == []
    runs = await durably.jobs.sync.batch_trigger(
        [{"org_id": "o1"}, SyncInput(org_id="o2"), Trigger({"org_id": "o3"}, labels={"src": "csv"}, priority=4)]
    )
    assert [run.payload.org_id for run in runs] == ["o1", "o2", "o3"]
    assert [(run.labels, run.priority, run.disposition) for run in runs] == [
        ({}, 0, "created"), ({}, 0, "created"), ({"src": "csv"}, 4, "created"),
    ]  # fmt: skip
    assert [(event.type, event.run_id) for event in events] == [("run:trigger", run.id) for run in runs]
    assert await durably.jobs.sync.batch_trigger([]) == []
    await durably.stop()


@contract
async def test_a_batch_answers_each_of_its_triggers() -> None:
    """Idempotency and coalescing hold within one batch, too."""
    durably, _ = await opened(":memory:", echo)
    runs = await durably.jobs.echo.batch_trigger(
        [
            Trigger(1, idempotency_key="a"),
            Trigger(2, idempotency_key="a"),
            Trigger(3, concurrency_key="k", coalesce="skip"),
            Trigger(4, concurrency_key="k", coalesce="skip"),
        ]
    )
    assert [run.disposition for run in runs] == ["created", "idempotent", "created", "coalesced"]
    assert runs[0].id == runs[1].id
    assert runs[2].id == runs[3].id
    assert [run.payload for run in runs] == [1, 1, 3, 3]
    assert len(await durably.get_runs()) == 2
    await durably.stop()


@contract
async def test_an_idempotency_key_gives_the_existing_run_whatever_its_status() -> None:
    """'unique per job: the second trigger returns the existing run, whatever its status,
    `disposition="idempotent"`, no event'"""
    durably, _ = await opened(":memory:", echo, failing, held, sync)
    for name, payload, want in (("echo", 1, "completed"), ("failing", "x", "failed"), ("held", 1, "running")):
        handle = durably.jobs[name]
        first = await handle.trigger(payload, idempotency_key="once")
        events = watched(durably)
        again = await handle.trigger(payload, idempotency_key="once")
        assert (again.id, again.status, again.disposition) == (first.id, "pending", "idempotent")
        await durably.process_until_idle()
        later = await handle.trigger(payload, idempotency_key="once")
        assert (later.id, later.disposition) == (first.id, "idempotent")
        assert later.status == want or want == "running"
        assert "run:trigger" not in types(events)
    held_run = (await durably.jobs.held.get_runs())[0]
    await durably.cancel(held_run.id)
    cancelled = await durably.jobs.held.trigger(5, idempotency_key="once")
    assert (cancelled.id, cancelled.status, cancelled.disposition) == (held_run.id, "cancelled", "idempotent")
    other = await durably.jobs.sync.trigger({"org_id": "1"}, idempotency_key="once")
    assert other.disposition == "created"
    await durably.stop()


@contract
async def test_twenty_triggers_at_once_with_one_key_make_one_run(tmp_path: Path) -> None:
    """'`idempotency_key`, unique per job' holds across instances and at once."""
    one, _ = await opened(tmp_path / "a.sqlite3", echo)
    two, _ = await opened(tmp_path / "a.sqlite3", echo)
    runs = await asyncio.gather(*(d.jobs.echo.trigger(n, idempotency_key="k") for n in range(10) for d in (one, two)))
    assert len({run.id for run in runs}) == 1
    assert sorted(str(run.disposition) for run in runs) == ["created"] + ["idempotent"] * 19
    await one.stop()
    await two.stop()


@contract
async def test_a_concurrency_key_admits_one_running_run_across_jobs_in_order() -> None:
    """'across all jobs, at most one run per key is `running` at a time; others stay pending in order'"""
    going: list[str] = []
    order: list[int] = []

    async def work(n: int) -> None:
        assert going == []
        going.append("x")
        order.append(n)
        await asyncio.sleep(0.01)
        going.clear()

    @job
    async def one(step: StepContext, payload: int) -> None:
        await step.run("w", work, payload)

    @job
    async def two(step: StepContext, payload: int) -> None:
        await step.run("w", work, payload)

    durably = quick(":memory:", one, two, max_concurrent_runs=10)
    await durably.migrate()
    runs = [await (durably.jobs.one if n % 2 else durably.jobs.two).trigger(n, concurrency_key="k") for n in range(6)]
    durably.start()
    for run in runs:
        await durably.wait_for_run(run.id, timeout=30)
    assert order == [0, 1, 2, 3, 4, 5]
    await durably.stop()


@contract
async def test_other_keys_and_keyless_runs_go_past_a_held_key() -> None:
    """'at most one run per key is `running` at a time': only of its own key."""
    durably, _ = await opened(":memory:", echo)
    blocked = asyncio.Event()

    @job
    async def holding(step: StepContext, payload: int) -> None:
        await step.run("hold", blocked.wait)

    durably.register(holding)
    first = await durably.jobs.holding.trigger(1, concurrency_key="k")
    working = asyncio.ensure_future(durably.process_one())
    await until(lambda: _is(durably, first, "running"))
    behind = await durably.jobs.echo.trigger(1, concurrency_key="k", priority=9)
    free = await durably.jobs.echo.trigger(2)
    other = await durably.jobs.echo.trigger(3, concurrency_key="other")
    assert await durably.process_until_idle() == 2
    assert (await found(durably, behind)).status == "pending"
    assert (await found(durably, free)).status == (await found(durably, other)).status == "completed"
    blocked.set()
    await working
    assert (await finished(durably, behind)).status == "completed"
    await durably.stop()


async def _is(durably: Any, run: Any, status: str) -> bool:
    return bool((await found(durably, run)).status == status)


@contract
async def test_coalesce_skip_returns_the_pending_run_of_this_job_with_the_key() -> None:
    """'if a pending run of this job has the key, it is returned, `disposition="coalesced"`, event
    `run:coalesced`' with 'skipped_payload, skipped_labels'"""
    durably, _ = await opened(":memory:", echo, held)
    first = await durably.jobs.echo.trigger(1, concurrency_key="k", labels={"n": "1"})
    events = watched(durably)
    same = await durably.jobs.echo.trigger(2, concurrency_key="k", coalesce="skip", labels={"n": "2"})
    assert (same.id, same.disposition, same.payload, same.labels) == (first.id, "coalesced", 1, {"n": "1"})
    [event] = events
    assert (event.type, event.run_id, event.job_name) == ("run:coalesced", first.id, "echo")
    assert (event.skipped_payload, event.skipped_labels) == (2, {"n": "2"})
    other_key = await durably.jobs.echo.trigger(3, concurrency_key="other", coalesce="skip")
    other_job = await durably.jobs.held.trigger(3, concurrency_key="k", coalesce="skip")
    assert (other_key.disposition, other_job.disposition) == ("created", "created")
    await durably.process_until_idle()
    after = await durably.jobs.echo.trigger(4, concurrency_key="k", coalesce="skip")
    assert after.disposition == "created"
    await durably.stop()


@pytest.mark.parametrize(
    "options",
    [
        {"coalesce": "skip"}, {"coalesce": "latest", "concurrency_key": "k"}, {"labels": {"a b": "c"}},
        {"labels": {"": "c"}}, {"labels": {"a": 1}}, {"labels": {"é": "c"}}, {"labels": {"a\n": "c"}},
        {"priority": "high"}, {"priority": 1.5}, {"delay": -1}, {"delay": "soon"},
        {"run_at": datetime(2026, 1, 2)},  # noqa: DTZ001
        {"run_at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))},
        {"run_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))},
        {"run_at": "tomorrow"}, {"idempotency_key": 4}, {"concurrency_key": 4},
        {"delay": float("nan")}, {"delay": float("inf")}, {"priority": 2**70}, {"labels": {"a": "\ud800"}},
        {"idempotency_key": "\ud800"},
    ],
    ids=ascii,
)  # fmt: skip
@contract
async def test_options_that_cannot_be_meant_are_refused_and_nothing_is_stored(options: dict[str, Any]) -> None:
    """'needs `concurrency_key`'; 'keys `[A-Za-z0-9._/-]+`'; aware datetimes; nothing of a refused trigger is stored."""
    durably, _ = await opened(":memory:", echo)
    with pytest.raises((ValidationError, ValueError, TypeError)) as caught:
        await durably.jobs.echo.trigger(1, **options)
    assert getattr(caught.value, "status", 400) == 400
    assert await durably.get_runs() == []
    await durably.stop()


@contract
async def test_labels_have_keys_of_letters_digits_and_a_few_signs() -> None:
    """'`labels`: `dict[str, str]`, keys `[A-Za-z0-9._/-]+`'"""
    durably, _ = await opened(":memory:", echo)
    labels = {"Az09._/-": "any text ü \n '", "b": ""}
    run = await durably.jobs.echo.trigger(1, labels=labels)
    assert (await found(durably, run)).labels == labels
    assert [r.id for r in await durably.get_runs(labels={"Az09._/-": "any text ü \n '", "b": ""})] == [run.id]
    await durably.stop()


@pytest.mark.parametrize(
    "when",
    [{"delay": 60}, {"delay": timedelta(minutes=1)}, {"run_at": datetime(2026, 1, 1, 0, 1, tzinfo=UTC)},
     {"run_at": datetime(2026, 1, 1, 2, 1, tzinfo=__import__("zoneinfo").ZoneInfo("Africa/Cairo"))}],
    ids=str,
)  # fmt: skip
@contract
async def test_a_delayed_run_is_not_claimed_before_its_time(when: dict[str, Any]) -> None:
    """'`delay`/`run_at`: not claimed before.'"""
    durably, clock = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(1, **when)
    assert run.run_at == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert run.run_at.utcoffset() == timedelta(0)
    await moved(durably, clock, 59.999)
    assert (await found(durably, run)).status == "pending"
    await moved(durably, clock, 0.001)
    assert (await found(durably, run)).status == "completed"
    await durably.stop()


@contract
async def test_higher_priority_goes_first_then_the_oldest() -> None:
    """'`priority`: higher first; then oldest first.'"""
    order: list[int] = []

    @job
    async def note(step: StepContext, payload: int) -> None:
        order.append(payload)

    durably, clock = await opened(":memory:", note)
    for number, priority in enumerate([0, 5, -3, 5, 0, 100]):
        await durably.jobs.note.trigger(number, priority=priority)
        await clock.advance(1)
    await durably.process_until_idle()
    assert order == [5, 1, 3, 0, 4, 2]
    await durably.stop()


@contract
async def test_within_one_millisecond_runs_are_executed_in_the_order_of_their_triggers() -> None:
    """'then oldest first': ids are monotonic, so that age is never a tie."""
    order: list[int] = []

    @job
    async def note(step: StepContext, payload: int) -> None:
        order.append(payload)

    durably, _ = await opened(":memory:", note)
    await durably.jobs.note.batch_trigger(list(range(30)))
    await durably.process_until_idle()
    assert order == list(range(30))
    await durably.stop()


# --- waiting for the end --------------------------------------------------------------------------


@contract
async def test_trigger_and_wait_returns_the_typed_output() -> None:
    """'done = await sync.trigger_and_wait({"org_id": "o1"}, timeout=5)  # done.output: SyncOutput'"""
    async with quick(":memory:", sync) as durably:
        done = await durably.jobs.sync.trigger_and_wait({"org_id": "o1"}, timeout=30)
        assert (done.status, done.output) == ("completed", SyncOutput(synced_count=2))
        again = await durably.wait_for_run(done.id, timeout=30)
        assert again.output == SyncOutput(synced_count=2)
        keyed = await durably.jobs.sync.trigger_and_wait(
            {"org_id": "o"}, timeout=30, idempotency_key="k", labels={"a": "b"}
        )
        assert (keyed.idempotency_key, keyed.labels) == ("k", {"a": "b"})


@contract
async def test_waiting_for_a_failed_run_raises_with_the_run_and_its_error() -> None:
    """'Raises `RunFailedError` (with `.run` and the stored error text)'"""
    async with quick(":memory:", failing) as durably:
        with pytest.raises(RunFailedError) as caught:
            await durably.jobs.failing.trigger_and_wait("out of milk", timeout=30)
        run = caught.value.run
        assert (run.status, run.output) == ("failed", None)
        assert "out of milk" in str(run.error)
        assert str(run.error) in str(caught.value)
        with pytest.raises(RunFailedError):
            await durably.wait_for_run(run.id, timeout=30)


@contract
async def test_waiting_for_a_cancelled_run_raises() -> None:
    """'Raises ... `RunCancelledError`'"""
    async with quick(":memory:", held) as durably:
        run = await durably.jobs.held.trigger(1)
        waiting = asyncio.ensure_future(durably.wait_for_run(run.id, timeout=30))
        await until(lambda: _waits(durably, run))
        await durably.cancel(run.id)
        with pytest.raises(RunCancelledError):
            await waiting
        with pytest.raises(RunCancelledError):
            await durably.wait_for_run(run.id)


async def _waits(durably: Any, run: Any) -> bool:
    return (await found(durably, run)).waiting_for is not None


@contract
async def test_waiting_may_time_out_and_the_run_goes_on() -> None:
    """'`TimeoutError` (the run goes on)'"""
    async with quick(":memory:", held) as durably:
        with pytest.raises(TimeoutError):
            await durably.jobs.held.trigger_and_wait(3, timeout=0.05)
        [run] = await durably.get_runs()
        assert run.is_active
        await durably.signal(run.id, "go")
        assert (await durably.wait_for_run(run.id, timeout=30)).output == 3


@contract
async def test_waiting_no_time_at_all_looks_at_the_run_once() -> None:
    """`timeout=0` asks how it is now: what has ended is returned, or raises as it does otherwise."""
    durably, _ = await opened(":memory:", sync, failing, held)
    done = await finished(durably, await durably.jobs.sync.trigger({"org_id": "o1"}))
    failed = await finished(durably, await durably.jobs.failing.trigger("out of milk"))
    active = await durably.jobs.held.trigger(1)
    assert await durably.wait_for_run(done.id, timeout=0) == done
    with pytest.raises(RunFailedError, match="out of milk"):
        await durably.wait_for_run(failed.id, timeout=0)
    with pytest.raises(TimeoutError, match="it goes on"):
        await durably.wait_for_run(active.id, timeout=0)
    with pytest.raises(NotFoundError):
        await durably.wait_for_run("01ARZ3NDEKTSV4RRFFQ69G5FAV", timeout=0)
    await durably.stop()


@contract
async def test_waiting_for_an_unknown_run_is_not_found() -> None:
    """'`NotFoundError`'; 'NotFoundError 404'"""
    durably, _ = await opened()
    with pytest.raises(NotFoundError) as caught:
        await durably.wait_for_run("01ARZ3NDEKTSV4RRFFQ69G5FAV", timeout=1)
    assert caught.value.status == 404
    await durably.stop()


@contract
async def test_the_last_moment_that_there_is_may_be_when_a_run_is_due() -> None:
    durably, _ = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(1, run_at=datetime.max.replace(tzinfo=UTC))
    assert run.run_at == datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    assert await durably.get_runs() == [replace(run, disposition=None)]
    await durably.stop()


@contract
async def test_a_run_that_is_deleted_while_waited_for_does_not_leave_the_waiter_hanging() -> None:
    """A waiter always gets an answer: the run that it waits for is no more, `NotFoundError`."""
    durably, _ = await opened(":memory:", held)
    run = await durably.jobs.held.trigger(1)
    waiting = asyncio.ensure_future(durably.wait_for_run(run.id, timeout=30))
    await asyncio.sleep(0.01)
    await durably.cancel(run.id)
    await durably.delete_run(run.id)
    with pytest.raises((RunCancelledError, NotFoundError)):
        await waiting
    await durably.stop()


@contract
async def test_a_waiter_is_told_of_progress_and_logs() -> None:
    """'`trigger_and_wait(..., timeout=None, on_progress=None, on_log=None) -> Run`'"""

    @job
    async def telling(step: StepContext, payload: int) -> None:
        def work() -> None:
            step.progress(1, 3, "one")
            step.log.info("inside", {"n": 1})

        await step.run("work", work)
        step.progress(3)
        step.log.warning("outside")

    progress: list[Any] = []
    logs: list[Any] = []

    async def on_log(log: Any) -> None:
        logs.append(log)

    async with quick(":memory:", telling) as durably:
        await durably.jobs.telling.trigger_and_wait(1, timeout=30, on_progress=progress.append, on_log=on_log)
    # what is handed over is the progress itself, or the event that carries it: the page does not say
    progress = [getattr(item, "progress", item) for item in progress]
    assert [(p.current, p.total, p.message) for p in progress] == [(1, 3, "one"), (3, None, None)]
    assert [(e.level, e.message, e.data, e.step_name) for e in logs] == [
        ("info", "inside", {"n": 1}, "work"),
        ("warning", "outside", None, None),
    ]


@job
async def quick_to_speak(step: StepContext, payload: int) -> None:
    """Says all but its last words before it gives way for the first time."""
    for n in range(3):
        step.log.info(str(n))
        step.progress(n + 1, 3)
    if payload:
        await step.run("a", lambda: 1)
    step.log.info("end")


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("timeout", [None, 30])
@contract
async def test_a_waiter_is_told_of_what_a_fresh_run_says_first(steps: int, timeout: float | None) -> None:
    """A worker that is idle begins the run with the trigger's own commit; nothing of it is missed, nor told twice."""
    async with quick(":memory:", quick_to_speak) as durably:
        for _ in range(3):
            progress: list[Any] = []
            logs: list[Any] = []
            await durably.jobs.quick_to_speak.trigger_and_wait(
                steps, timeout=timeout, on_progress=progress.append, on_log=logs.append
            )
            assert [p.current for p in progress] == [1, 2, 3]
            assert [e.message for e in logs] == ["0", "1", "2", "end"]


@pytest.mark.parametrize("timeout", [None, 30])
@contract
async def test_a_waiter_that_comes_with_the_trigger_is_told_of_all_that_follows(timeout: float | None) -> None:
    """`wait_for_run` hears from its call on, also where it is to read that the run has ended already."""
    async with quick(":memory:", quick_to_speak) as durably:
        logs: list[Any] = []
        run = await durably.jobs.quick_to_speak.trigger(0)
        await durably.wait_for_run(run.id, timeout=timeout, on_log=logs.append)
        assert [e.message for e in logs] == ["0", "1", "2", "end"]


@contract
async def test_a_waiter_for_a_run_that_was_there_is_told_of_its_present_progress_first() -> None:
    """An idempotent trigger is answered with a run that has said something already."""
    spoken, go = asyncio.Event(), asyncio.Event()

    @job
    async def at_work(step: StepContext, payload: int) -> None:
        step.log.info("early")
        step.progress(1, 2)
        spoken.set()
        await go.wait()
        step.log.info("late")
        step.progress(2, 2)

    async with quick(":memory:", at_work) as durably:
        run = await durably.jobs.at_work.trigger(1, idempotency_key="k")
        await spoken.wait()
        progress: list[Any] = []
        logs: list[Any] = []
        waiting = asyncio.ensure_future(
            durably.jobs.at_work.trigger_and_wait(
                1, idempotency_key="k", on_progress=progress.append, on_log=logs.append
            )
        )
        await until(lambda: progress)
        go.set()
        assert (await waiting).id == run.id
        assert [p.current for p in progress] == [1, 2]
        assert [e.message for e in logs] == ["late"]


@contract
async def test_two_instances_on_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """`wait_for_run` works for 'an existing run', whoever executes it."""
    async with quick(tmp_path / "a.sqlite3", sync) as worker:
        client = quick(tmp_path / "a.sqlite3", sync)
        await client.migrate()
        done = await client.jobs.sync.trigger_and_wait({"org_id": "abc"}, timeout=30)
        assert done.output == SyncOutput(synced_count=3)
        await client.stop()
        assert len(await worker.get_runs()) == 1


# --- handles --------------------------------------------------------------------------------------


@contract
async def test_a_handle_sees_the_runs_of_its_own_job_only() -> None:
    """'`JobHandle` also has `get_run(id)` and `get_runs(...)` of its own job.'"""
    durably, _ = await opened(":memory:", echo, sync)
    mine = await durably.jobs.echo.trigger(1, labels={"a": "1"})
    theirs = await durably.jobs.sync.trigger({"org_id": "1"})
    more = await durably.jobs.echo.trigger(2)
    handle = durably.jobs.echo
    assert (await handle.get_run(mine.id)).id == mine.id
    assert await handle.get_run(theirs.id) is None
    assert await handle.get_run("nothing") is None
    assert [run.id for run in await handle.get_runs()] == [more.id, mine.id]
    assert [run.id for run in await handle.get_runs(labels={"a": "1"}, status="pending", limit=5, offset=0)] == [
        mine.id
    ]
    await durably.stop()


@contract
async def test_steps_and_logs_have_the_fields_of_the_contract() -> None:
    """'`Step`: name index status output error attempt started_at completed_at (one row a step; its last
    attempt). `Log`: level message data step_name created_at'"""

    @job
    async def two(step: StepContext, payload: int) -> None:
        await step.run("one", lambda: {"a": (1, 2)})
        step.log.error("oh", {"why": [1]})

        def bad() -> None:
            raise ValueError("no such luck")

        await step.run("two", bad)

    durably, _ = await opened(":memory:", two)
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.two.trigger(1))
    one, second = await durably.get_steps(run.id)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (one.name, one.index, one.status, one.output, one.error, one.attempt) == (
        "one", 0, "completed", {"a": (1, 2)}, None, 1,
    )  # fmt: skip
    assert (one.started_at, one.completed_at) == (start, start)
    assert (second.name, second.index, second.status, second.output, second.attempt) == ("two", 1, "failed", None, 1)
    assert "no such luck" in str(second.error)
    [log] = await durably.get_logs(run.id)
    assert (log.level, log.message, log.data, log.step_name) == ("error", "oh", {"why": [1]}, None)
    assert log.created_at == start
    assert (run.completed_step_count, run.error) == (1, second.error)
    await durably.stop()
