"""API.md sections 1 and 2, clause by clause: jobs, and the instance that runs them."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from contract_kit import body_job, contract, echo, finished, found, moved, opened, quick, types, until, watched
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import durably as package
from durably import (
    Durably,
    JobDefinition,
    JobHandle,
    JobHandles,
    RunFailedError,
    Statement,
    StepContext,
    ValidationError,
    create_durably,
    define_job,
    job,
)


class SyncInput(BaseModel):
    org_id: str


class SyncOutput(BaseModel):
    synced_count: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


class Row(BaseModel):
    key: int


async def sync_users(step: StepContext, payload: SyncInput) -> SyncOutput:
    users = await step.run("fetch-users", lambda org: [org, org], payload.org_id)
    return SyncOutput(synced_count=len(users))


sync = define_job(name="sync-users", input=SyncInput, output=SyncOutput, run=sync_users)


# --- section 1 ------------------------------------------------------------------------------------


def parameters(function: Any) -> list[tuple[str, str, Any]]:
    return [
        (p.name, p.kind.name, p.default) for p in inspect.signature(function).parameters.values() if p.name != "self"
    ]


EMPTY = inspect.Parameter.empty


def test_define_job_has_the_signature_of_the_contract() -> None:
    """`define_job(*, name, input, output=None, run, timeout=None) -> JobDefinition`"""
    assert parameters(define_job) == [
        ("name", "KEYWORD_ONLY", EMPTY),
        ("input", "KEYWORD_ONLY", EMPTY),
        ("output", "KEYWORD_ONLY", None),
        ("run", "KEYWORD_ONLY", EMPTY),
        ("timeout", "KEYWORD_ONLY", None),
    ]
    assert isinstance(sync, JobDefinition)
    assert sync.name == "sync-users"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": 3},
        {"run": "sync_users"},
        {"timeout": -1},
        {"timeout": 0},
        {"timeout": "soon"},
    ],
    ids=str,
)
def test_define_job_checks_its_arguments(wrong: dict[str, Any]) -> None:
    """'define_job only checks its arguments; it can be made before any instance exists.'"""
    arguments = {"name": "a", "input": int, "run": sync_users} | wrong
    with pytest.raises((TypeError, ValueError)):
        define_job(**arguments)


@pytest.mark.parametrize(
    ("given", "raw", "typed"),
    [
        (SyncInput, {"org_id": "o1"}, SyncInput(org_id="o1")),
        (Point, {"x": 1}, Point(1, 0)),
        (Named, {"name": "n"}, {"name": "n"}),
        (int, 3, 3),
        (list[Row], [{"key": 1}, {"key": 2}], [Row(key=1), Row(key=2)]),
        (dict[str, Point], {"a": {"x": 1, "y": 2}}, {"a": Point(1, 2)}),
        (int | None, None, None),
        (str, "", ""),
    ],
    ids=str,
)
@contract
async def test_the_payload_reaches_run_as_the_validated_typed_object(given: Any, raw: Any, typed: Any) -> None:
    """'input/output are anything pydantic's TypeAdapter takes'; 'The payload reaches run as the validated,
    typed object.'"""
    seen: list[Any] = []

    async def note(step: StepContext, payload: Any) -> Any:
        seen.append(payload)
        return payload

    durably, _ = await opened(":memory:", define_job(name="note", input=given, output=given, run=note))
    run = await durably.jobs["note"].trigger(raw)
    done = await finished(durably, run)
    assert seen == [typed]
    assert type(seen[0]) is type(typed)
    assert (done.status, done.output, done.payload) == ("completed", typed, typed)
    assert type(done.output) is type(typed)
    typed_run = await durably.jobs["note"].trigger(typed)
    assert (await finished(durably, typed_run)).output == typed
    await durably.stop()


@contract
async def test_the_decorator_reads_input_and_output_from_the_annotations() -> None:
    """'@job(name="sync-users") — the same, input and output read from the annotations; name defaults to the
    function's, with dashes'"""

    @job(name="other-name")
    async def first(step: StepContext, payload: SyncInput) -> SyncOutput:
        return SyncOutput(synced_count=len(payload.org_id))

    @job
    async def sync_all_users(step, payload: SyncInput) -> SyncOutput:  # type: ignore[no-untyped-def]
        return SyncOutput(synced_count=2)

    @job()
    async def with_parentheses(step, payload: int):  # type: ignore[no-untyped-def]
        return payload

    assert [d.name for d in (first, sync_all_users, with_parentheses)] == [
        "other-name", "sync-all-users", "with-parentheses",
    ]  # fmt: skip
    durably, _ = await opened(":memory:", first, sync_all_users, with_parentheses)
    run = await durably.jobs.other_name.trigger({"org_id": "abc"})
    assert (await finished(durably, run)).output == SyncOutput(synced_count=3)
    with pytest.raises(ValidationError):
        await durably.jobs.sync_all_users.trigger({"org": "abc"})
    await durably.stop()


@contract
async def test_a_returned_value_that_does_not_match_output_fails_the_run() -> None:
    """'The returned value is validated against `output` when given: a mismatch fails the run with `Invalid
    output: ...`.'"""

    async def wrong(step: StepContext, payload: int) -> Any:
        return {"synced_count": "many"}

    durably, _ = await opened(":memory:", define_job(name="wrong", input=int, output=SyncOutput, run=wrong))
    done = await finished(durably, await durably.jobs.wrong.trigger(1))
    assert done.status == "failed"
    assert (done.error or "").startswith("Invalid output: ")
    assert "synced_count" in (done.error or "")
    assert done.output is None
    await durably.stop()


@contract
async def test_a_returned_dict_becomes_the_output_model() -> None:
    """'The returned value is validated against `output` when given'; '`output` [is] the typed object'"""

    async def loose(step: StepContext, payload: int) -> Any:
        return {"synced_count": "4"}

    durably, _ = await opened(":memory:", define_job(name="loose", input=int, output=SyncOutput, run=loose))
    done = await finished(durably, await durably.jobs.loose.trigger(1))
    assert done.output == SyncOutput(synced_count=4)
    await durably.stop()


@contract
async def test_a_run_past_its_timeout_fails_with_the_text_of_run_timeout_error() -> None:
    """'timeout: seconds for a whole run ...; past it the run fails with `RunTimeoutError`'s text.'"""
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("finally")

    async def slow(step: StepContext, payload: int) -> None:
        await step.run("forever", forever)

    async with quick(":memory:", define_job(name="slow", input=int, run=slow, timeout=0.1)) as durably:
        with pytest.raises(RunFailedError) as caught:
            await durably.jobs.slow.trigger_and_wait(1, timeout=30)
        assert issubclass(package.RunTimeoutError, package.DurablyError)
        assert "0.1" in str(caught.value.run.error)
        assert caught.value.run.status == "failed"
        await until(lambda: ended == ["finally"])


@contract
async def test_waiting_does_not_count_towards_the_timeout_of_a_run() -> None:
    """'timeout: seconds for a whole run, waiting not counted'"""

    async def patient(step: StepContext, payload: int) -> str:
        await step.sleep("week", 7 * 86400)
        await step.wait_for_signal("go")
        return "done"

    durably, clock = await opened(":memory:", define_job(name="patient", input=int, run=patient, timeout=5))
    run = await durably.jobs.patient.trigger(1)
    await durably.process_until_idle()
    await moved(durably, clock, 7 * 86400)
    await moved(durably, clock, 3600)
    await durably.signal(run.id, "go")
    done = await finished(durably, run)
    assert (done.status, done.error, done.output) == ("completed", None, "done")
    await durably.stop()


@contract
async def test_define_job_of_an_instance_defines_and_registers() -> None:
    """'`durably.define_job(...)` is define + register in one, and returns the handle.'"""
    durably, _ = await opened()
    handle = durably.define_job(name="sync-users", input=SyncInput, output=SyncOutput, run=sync_users)
    assert isinstance(handle, JobHandle)
    done = await finished(durably, await handle.trigger({"org_id": "o1"}))
    assert done.output == SyncOutput(synced_count=2)
    assert durably.get_job("sync-users") is not None
    await durably.stop()


@contract
async def test_the_same_definition_twice_is_fine_and_another_under_its_name_is_not() -> None:
    """'The same definition twice is fine (idempotent); another definition under a taken name is a `ValueError`.'"""
    other = define_job(name="sync-users", input=int, run=sync_users)
    durably, _ = await opened(":memory:", sync)
    durably.register(sync)
    durably.register({"again": sync})
    with pytest.raises(ValueError, match="sync-users"):
        durably.register(other)
    with pytest.raises(ValueError, match="sync-users"):
        create_durably(":memory:", jobs=[sync, other])
    await durably.stop()


# --- section 2 ------------------------------------------------------------------------------------


def test_create_durably_has_the_signature_of_the_contract() -> None:
    """`create_durably(database="durably.sqlite3", *, jobs=None, polling_interval=None, ...) -> Durably`"""
    assert parameters(create_durably) == [
        ("database", "POSITIONAL_OR_KEYWORD", "durably.sqlite3"),
        *[
            (name, "KEYWORD_ONLY", default)
            for name, default in [
                ("jobs", None), ("polling_interval", None), ("heartbeat_interval", None), ("stale_threshold", None),
                ("max_concurrent_runs", 1), ("max_crashes", 3), ("preserve_steps", True), ("retain_runs", None),
                ("durability", "full"), ("labels", None), ("clock", None),
            ]
        ],
    ]  # fmt: skip


@contract
async def test_jobs_may_be_a_dict_or_a_list() -> None:
    """'create_durably("app.sqlite3", jobs={"sync_users": sync})   # or jobs=[sync]'"""
    by_key = create_durably(":memory:", jobs={"my_sync": sync})
    assert isinstance(by_key, Durably)
    assert by_key.jobs.my_sync.name == "sync-users"
    assert by_key.get_job("sync-users").name == "sync-users"  # type: ignore[union-attr]
    by_name = create_durably(":memory:", jobs=[sync])
    assert by_name.jobs.sync_users.name == "sync-users"
    assert by_name.jobs["sync-users"].name == "sync-users"
    assert by_name.get_job("nobody") is None
    with pytest.raises(AttributeError):
        _ = by_name.jobs.nobody
    with pytest.raises(KeyError):
        by_name.jobs["nobody"]


@contract
async def test_register_gives_handles_by_attribute_item_and_iteration() -> None:
    """'durably.register({"a": def_a, ...}) or durably.register(def_a, def_b) -> JobHandles (attribute and item
    access; iterable)'"""
    durably, _ = await opened()
    handles = durably.register({"a": sync, "b": echo})
    assert isinstance(handles, JobHandles)
    assert handles.a.name == handles["a"].name == "sync-users"
    assert handles.b.name == "echo"
    more = durably.register(sync, echo)
    assert more.sync_users.name == "sync-users"
    assert len(list(more)) == 2
    assert durably.jobs.sync_users.name == "sync-users"
    await durably.stop()


@contract
async def test_init_migrates_and_starts_and_stop_ends(tmp_path: Path) -> None:
    """'await durably.init()  # migrate() + start()'; 'await durably.stop()'"""
    durably = create_durably(tmp_path / "app.sqlite3", jobs=[echo], polling_interval=0.02)
    await durably.init()
    done = await durably.jobs.echo.trigger_and_wait(1, timeout=30)
    assert done.output == 1
    await durably.stop()
    assert (tmp_path / "app.sqlite3").exists()


@contract
async def test_an_instance_is_an_async_context_manager(tmp_path: Path) -> None:
    """'or: async with create_durably(...) as durably:'"""
    async with create_durably(str(tmp_path / "a.sqlite3"), jobs=[echo], polling_interval=0.02) as durably:
        assert isinstance(durably, Durably)
        assert (await durably.jobs.echo.trigger_and_wait(2, timeout=30)).output == 2
    async with create_durably(str(tmp_path / "a.sqlite3"), jobs=[echo]) as durably:
        assert [run.output for run in await durably.get_runs()] == [2]


@contract
async def test_memory_databases_are_each_their_own() -> None:
    """'database: ... ":memory:"'"""
    one, _ = await opened(":memory:", echo)
    two, _ = await opened(":memory:", echo)
    await one.jobs.echo.trigger(1)
    assert await two.get_runs() == []
    await one.stop()
    await two.stop()


@contract
async def test_migrate_is_idempotent_and_safe_twice_at_once(tmp_path: Path) -> None:
    """'`await durably.migrate()` idempotent, safe when called twice at once'"""
    durably = create_durably(tmp_path / "a.sqlite3", jobs=[echo])
    others = [create_durably(tmp_path / "a.sqlite3", jobs=[echo]) for _ in range(3)]
    await asyncio.gather(*(d.migrate() for d in (durably, durably, *others)))
    await durably.migrate()
    await durably.jobs.echo.trigger(1)
    assert len(await others[0].get_runs()) == 1
    for instance in (durably, *others):
        await instance.stop()


@contract
async def test_start_takes_the_name_of_the_worker_and_twice_is_one_worker() -> None:
    """'durably.start(worker_id=None)'; '`run:start` payload, worker_id'"""
    durably = quick(":memory:", echo)
    await durably.migrate()
    started = watched(durably, "run:start")
    durably.start(worker_id="my-worker")
    await durably.jobs.echo.trigger_and_wait(1, timeout=30)
    assert started[0].worker_id == "my-worker"
    await durably.stop()


@contract
async def test_stop_waits_for_runs_in_flight() -> None:
    """'await durably.stop(timeout=None) waits for runs in flight'"""
    begun = asyncio.Event()

    @job
    async def brief(step: StepContext, payload: int) -> str:
        begun.set()
        await step.run("a", asyncio.sleep, 0.15)
        await step.run("b", asyncio.sleep, 0.01)
        return "whole"

    durably = quick(":memory:", brief)
    events = watched(durably)
    await durably.init()
    await durably.jobs.brief.trigger(1)
    await durably.jobs.brief.trigger(2)
    await begun.wait()
    await durably.stop()
    assert types(events)[-1] == "run:complete"
    assert types(events).count("run:start") == 1


@contract
async def test_stop_with_a_timeout_hands_runs_back_and_loses_nothing(tmp_path: Path) -> None:
    """'(after `timeout` they are cancelled *locally* and handed back as `pending`, nothing lost)'"""
    calls: list[str] = []
    hold = True

    async def second() -> str:
        calls.append("second")
        if hold:
            await asyncio.sleep(30)
        return "2"

    @job
    async def two(step: StepContext, payload: int) -> str:
        one = await step.run("first", lambda: calls.append("first") or "1")
        return one + await step.run("second", second)

    durably = quick(tmp_path / "a.sqlite3", two)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.two.trigger(1)
    await until(lambda: calls == ["first", "second"])
    await durably.stop(timeout=0.05)
    assert "run:cancel" not in types(events)
    assert "run:fail" not in types(events)
    assert "step:fail" not in types(events)

    hold = False
    again, _ = await opened(tmp_path / "a.sqlite3", two, clock=None)
    back = await found(again, run)
    assert (back.status, back.error, back.worker_id) == ("pending", None, None)
    assert [(s.name, s.status) for s in await again.get_steps(run.id) if s.status == "completed"] == [
        ("first", "completed")
    ]
    await again.stop()
    async with quick(tmp_path / "a.sqlite3", two) as third:
        assert (await third.wait_for_run(run.id, timeout=30)).output == "12"
    assert calls == ["first", "second", "second"]


@contract
async def test_process_one_and_process_until_idle_are_the_worker_without_a_loop() -> None:
    """'await durably.process_one() -> bool, await durably.process_until_idle(max_runs=None) -> int'"""
    durably, _ = await opened(":memory:", echo)
    assert await durably.process_one() is False
    assert await durably.process_until_idle() == 0
    runs = await durably.jobs.echo.batch_trigger([1, 2, 3, 4, 5])
    assert await durably.process_one() is True
    assert (await found(durably, runs[0])).status == "completed"
    assert await durably.process_until_idle(max_runs=2) == 2
    assert [str((await found(durably, run)).status) for run in runs] == ["completed"] * 3 + ["pending"] * 2
    assert await durably.process_until_idle() == 2
    assert await durably.process_one() is False
    await durably.stop()


@contract
async def test_a_worker_claims_only_the_jobs_it_knows(tmp_path: Path) -> None:
    """'Claiming: ... only jobs the worker knows'; '[payload] plain JSON values' where the job is not registered."""
    owner, _ = await opened(tmp_path / "a.sqlite3", sync, echo)
    stranger, _ = await opened(tmp_path / "a.sqlite3", echo)
    run = await owner.jobs.sync_users.trigger({"org_id": "o1"})
    await owner.jobs.echo.trigger(1)
    assert await stranger.process_until_idle() == 1
    seen = await found(stranger, run)
    assert (seen.status, seen.payload) == ("pending", {"org_id": "o1"})
    assert await owner.process_until_idle() == 1
    assert (await found(stranger, run)).output == {"synced_count": 2}
    assert (await found(owner, run)).output == SyncOutput(synced_count=2)
    await owner.stop()
    await stranger.stop()


@pytest.mark.parametrize("most", [1, 2, 100])
@contract
async def test_no_more_runs_than_max_concurrent_runs_go_on_at_once(most: int) -> None:
    """'max_concurrent_runs=1'; 'from 1 to 1,000'"""
    now = peak = 0
    full = asyncio.Event()

    async def count() -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        if peak >= most:
            full.set()
        await full.wait()
        await asyncio.sleep(0.02)  # time for one too many
        now -= 1

    @job
    async def counted(step: StepContext, payload: int) -> None:
        await step.run("count", count)

    amount = most * 2 if most > 1 else 3
    durably = quick(":memory:", counted, max_concurrent_runs=most)
    await durably.migrate()
    runs = await durably.jobs.counted.batch_trigger(list(range(amount)))
    durably.start()
    await asyncio.gather(*(durably.wait_for_run(run.id, timeout=30) for run in runs))
    assert peak == most
    await durably.stop()


@pytest.mark.parametrize("bad", [0, -1, 1001, "3"])
def test_max_concurrent_runs_outside_of_1_to_1000_is_refused(bad: Any) -> None:
    """'`max_concurrent_runs` from 1 to 1,000'"""
    with pytest.raises((ValueError, TypeError)):
        create_durably(":memory:", max_concurrent_runs=bad)


@pytest.mark.parametrize(
    "option",
    [
        {"polling_interval": 0}, {"heartbeat_interval": -1}, {"stale_threshold": 0}, {"max_crashes": 0},
        {"durability": "some"}, {"heartbeat_interval": 5.0, "stale_threshold": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_options_without_a_meaning_are_refused(option: dict[str, Any]) -> None:
    """Where the page is silent: 'build what a Python user would expect'."""
    with pytest.raises((ValueError, TypeError)):
        create_durably(":memory:", **option)


@pytest.mark.parametrize("form", ["30d", "12h", "90m", timedelta(minutes=90)], ids=str)
@contract
async def test_retain_runs_purges_terminal_runs_that_are_older_while_idle(form: Any) -> None:
    """'`retain_runs="30d" | "12h" | "90m" | timedelta`: terminal runs older than this are purged while idle.'"""
    span = {"30d": timedelta(days=30), "12h": timedelta(hours=12)}.get(str(form), timedelta(minutes=90))
    durably, clock = await opened(":memory:", sync, echo, retain_runs=form)
    old = await durably.jobs.echo.trigger(1)
    await durably.process_until_idle()
    waiting = await durably.jobs.sync_users.trigger({"org_id": "1"}, delay=timedelta(days=365))
    await clock.advance(span - timedelta(seconds=30))
    await durably.process_until_idle()
    assert await durably.get_run(old.id) is not None
    await clock.advance(timedelta(seconds=31))
    for _ in range(3):  # the pauses between two purges are the worker's own affair
        await clock.advance(3600)
        await durably.process_until_idle()
    assert await durably.get_run(old.id) is None
    assert (await found(durably, waiting)).status == "pending"
    await durably.stop()


@pytest.mark.parametrize("form", ["", "d", "30", "30 days", "-1d", "0d", "1w2", "1.5.d", timedelta(0), -5])
def test_a_bad_retain_runs_is_a_value_error(form: Any) -> None:
    """'A bad string: `ValueError`.'"""
    with pytest.raises((ValueError, TypeError) if not isinstance(form, str) else ValueError):
        create_durably(":memory:", retain_runs=form)


@contract
async def test_preserve_steps_false_drops_the_steps_of_completed_runs_only() -> None:
    """'step rows of a *completed* run are deleted when it completes. Failed and cancelled runs keep theirs, so
    retry resumes.'"""
    calls: list[str] = []

    @job
    async def steps(step: StepContext, payload: bool) -> None:
        await step.run("a", calls.append, "a")
        await step.run("b", lambda: 1 / (0 if len(calls) == payload else 1))

    durably, _ = await opened(":memory:", steps, preserve_steps=False)
    good = await durably.jobs.steps.trigger(False)
    await durably.process_until_idle()
    assert (await found(durably, good)).status == "completed"
    assert await durably.get_steps(good.id) == []
    calls.clear()
    bad = await durably.jobs.steps.trigger(True)
    await durably.process_until_idle()
    assert (await found(durably, bad)).status == "failed"
    assert [(s.name, s.status) for s in await durably.get_steps(bad.id)] == [("a", "completed"), ("b", "failed")]
    await durably.retry(bad.id)
    calls.append("so that it succeeds")
    assert (await finished(durably, bad)).status == "completed"
    assert calls == ["a", "so that it succeeds"]
    assert await durably.get_steps(bad.id) == []
    await durably.stop()


class Labels(BaseModel, extra="forbid"):
    source: str = "none"
    region: str


@contract
async def test_labels_are_validated_by_the_model_of_the_instance() -> None:
    """'labels: ... validated by the model given as `create_durably(labels=Model)` when set.'"""
    durably, _ = await opened(":memory:", echo, labels=Labels)
    run = await durably.jobs.echo.trigger(1, labels={"region": "eu"})
    assert run.labels["region"] == "eu"
    for wrong in ({"region": "eu", "colour": "red"}, {}, None):
        with pytest.raises(ValidationError) as caught:
            await durably.jobs.echo.trigger(1, labels=wrong)
        assert caught.value.status == 400
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("relaxed", 1)])
@contract
async def test_durability_is_how_much_a_commit_flushes(tmp_path: Path, durability: str, level: int) -> None:
    """'durability="full"' and, by the design, "relaxed": SQLite's `synchronous` FULL and NORMAL."""
    async with quick(tmp_path / "a.sqlite3", echo, durability=durability) as durably:
        assert (await durably.jobs.echo.trigger_and_wait(1, timeout=30)).output == 1
        [found] = await durably._services.store.database.execute(Statement("PRAGMA synchronous"))
        assert found.rows[0][0] == level


CRASHING = textwrap.dedent(
    """
    import asyncio, os, sys
    from durably import create_durably, job

    @job
    async def deadly(step, payload: int) -> str:
        await step.run("safe", lambda: 1)
        return await step.run("deadly-step", die)

    def die():
        if os.path.exists(sys.argv[2]):
            return "alive"
        os._exit(9)

    async def main():
        durably = create_durably(sys.argv[1], jobs=[deadly], stale_threshold=0.3, heartbeat_interval=0.1,
                                 polling_interval=0.05, max_crashes=2)
        await durably.init()
        run = (await durably.get_runs())[:1] or [await durably.jobs.deadly.trigger(1)]
        try:
            print((await durably.wait_for_run(run[0].id, timeout=30)).output)
        except Exception as error:
            print(type(error).__name__, error)
        await durably.stop()

    asyncio.run(main())
    """
)


@contract
async def test_what_annotations_ask_for_beyond_the_type_is_checked() -> None:
    """'the same, input and output read from the annotations'"""

    @job
    async def small(step: StepContext, payload: Annotated[int, Field(gt=0)]) -> Annotated[int, Field(lt=10)]:
        return payload * 10

    durably, _ = await opened(":memory:", small)
    with pytest.raises(ValidationError, match="greater than 0"):
        await durably.jobs.small.trigger(-5)
    failed = await finished(durably, await durably.jobs.small.trigger(5))
    assert failed.status == "failed"
    assert "Invalid output: " in str(failed.error)
    await durably.stop()


class Aliased(BaseModel):
    read: str = Field(validation_alias="readAs")
    written: str = Field(serialization_alias="writtenAs")
    always: str = Field(alias="alwaysAs")


@contract
async def test_aliases_that_are_for_one_direction_alone_lose_nothing() -> None:
    """'The payload reaches `run` as the validated, typed object'"""

    @job
    async def aliased(step: StepContext, payload: Aliased) -> Aliased:
        return payload

    durably, _ = await opened(":memory:", aliased)
    given = {"readAs": "a", "written": "b", "alwaysAs": "c"}
    done = await finished(durably, await durably.jobs.aliased.trigger(given))
    assert done.payload == done.output == Aliased(**given)
    await durably.stop()


@contract
async def test_a_job_that_stops_its_own_instance_is_told_that_it_would_wait_for_itself() -> None:
    """After `timeout` it is handed back like any other: 'nothing lost'"""

    async def body(step: StepContext, payload: Any) -> Any:
        await durably.stop()

    durably = quick(":memory:", body_job(body), echo)
    await durably.init()
    with pytest.raises(RunFailedError, match="give it a timeout"):
        await durably.jobs.body.trigger_and_wait(1, timeout=30)
    assert (await durably.jobs.echo.trigger_and_wait(1, timeout=30)).output == 1
    stopped = asyncio.Event()

    async def stop(event: Any) -> None:
        await durably.stop()
        stopped.set()

    durably.on("run:complete", stop)  # a listener may: it is not what is waited for
    await durably.jobs.echo.trigger(2)
    await stopped.wait()


@contract
async def test_a_run_that_kills_its_process_is_parked_after_max_crashes(tmp_path: Path) -> None:
    """'max_crashes=3'; 'after max_crashes deaths the run fails with an error that names the step; `retry()`
    clears the count'"""
    program = tmp_path / "deadly.py"
    program.write_text(CRASHING)
    arguments = [sys.executable, str(program), str(tmp_path / "a.sqlite3"), str(tmp_path / "mended")]

    def once() -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=os.environ, check=False)

    assert [(await asyncio.to_thread(once)).returncode for _ in range(2)] == [9, 9]
    third = await asyncio.to_thread(once)
    assert third.returncode == 0, third.stderr
    assert third.stdout.startswith("RunFailedError")
    assert "deadly-step" in third.stdout

    (tmp_path / "mended").touch()

    @job
    async def deadly(step: StepContext, payload: int) -> str:
        return ""

    durably, _ = await opened(tmp_path / "a.sqlite3", deadly)
    [run] = await durably.get_runs()
    assert run.status == "failed"
    assert (await durably.retry(run.id)).status == "pending"
    await durably.stop()
    fourth = await asyncio.to_thread(once)
    assert (fourth.returncode, fourth.stdout.strip()) == (0, "alive"), fourth.stderr
