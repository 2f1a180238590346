"""API.md section 5: looking at runs, and retry, retrigger, cancel, delete, purge and signal in every status."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from contract_kit import body_job, contract, echo, finished, found, moved, opened, types, watched
from pydantic import BaseModel

from durably import (
    ConflictError,
    Durably,
    DurablyError,
    NotFoundError,
    Run,
    RunStatus,
    StepContext,
    ValidationError,
    job,
    with_log_persistence,
)

UNKNOWN = ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "", "no such run", "%", "'; DROP TABLE durably_runs; --", "ü\x00"]

STATUSES = ["pending", "waiting", "completed", "failed", "cancelled"]


async def life(step: StepContext, payload: Any) -> Any:
    """Ends as its payload says."""
    await step.run("first", lambda: 1)
    if payload == "waiting":
        await step.wait_for_signal("go")
    if payload == "failed":
        raise ValueError("out of luck")
    return payload


async def in_status(durably: Durably, status: str, **options: Any) -> Run[Any]:
    """A run of `life` that is in this status; `waiting` is pending, in the midst of its work."""
    payload = "waiting" if status in ("waiting", "cancelled") else status
    run = await durably.jobs.body.trigger(payload, **options)
    if status != "pending":
        await durably.process_until_idle()
    if status == "cancelled":
        await durably.cancel(run.id)
    run = await found(durably, run)
    assert run.status == {"waiting": "pending"}.get(status, status)
    return run


# --- unknown runs and what a status does not allow ------------------------------------------------


async def drain(durably: Durably, run_id: str) -> None:
    async for _ in durably.subscribe(run_id):
        pass


ASKS: dict[str, Callable[[Durably, str], Awaitable[Any]]] = {
    "get_steps": lambda d, run_id: d.get_steps(run_id),
    "get_logs": lambda d, run_id: d.get_logs(run_id),
    "retry": lambda d, run_id: d.retry(run_id),
    "retrigger": lambda d, run_id: d.retrigger(run_id),
    "fork": lambda d, run_id: d.fork(run_id, "first"),
    "cancel": lambda d, run_id: d.cancel(run_id),
    "delete_run": lambda d, run_id: d.delete_run(run_id),
    "signal": lambda d, run_id: d.signal(run_id, "go"),
    "wait_for_run": lambda d, run_id: d.wait_for_run(run_id, timeout=1),
    "subscribe": drain,
}


@pytest.mark.parametrize("ask", ASKS)
@contract
async def test_an_unknown_run_is_not_found_whatever_is_asked(ask: str) -> None:
    """'Unknown id: `NotFoundError`, `subscribe` included'; 404."""
    durably, _ = await opened(":memory:", echo)
    events = watched(durably)
    for run_id in UNKNOWN:
        with pytest.raises(NotFoundError) as caught:
            await ASKS[ask](durably, run_id)
        assert caught.value.status == 404
        assert isinstance(caught.value, DurablyError)
        assert await durably.get_run(run_id) is None
    assert events == []
    await durably.stop()


REFUSED = {
    "retry": {"pending": "pending", "waiting": "pending", "completed": "completed"},
    "retrigger": {"pending": "pending", "waiting": "pending"},
    "fork": {"pending": "pending", "waiting": "pending"},
    "cancel": {"completed": "completed", "failed": "failed", "cancelled": "cancelled"},
    "delete_run": {"pending": "pending", "waiting": "pending"},
    "signal": {"completed": "completed", "failed": "failed", "cancelled": "cancelled"},
}


@pytest.mark.parametrize(("ask", "status"), [(ask, status) for ask, which in REFUSED.items() for status in which])
@contract
async def test_what_the_status_does_not_allow_is_a_conflict_that_names_it(ask: str, status: str) -> None:
    """'A transition the status does not allow: `ConflictError` whose text names the status.'; nothing changes."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await in_status(durably, status)
    events = watched(durably)
    with pytest.raises(ConflictError) as caught:
        await ASKS[ask](durably, run.id)
    assert caught.value.status == 409
    assert REFUSED[ask][status] in str(caught.value)
    assert run.id in str(caught.value)
    assert await found(durably, run) == run
    assert len(await durably.get_runs()) == 1
    assert events == []
    await durably.stop()


@pytest.mark.parametrize("ask", ["retry", "retrigger", "fork", "delete_run"])
@contract
async def test_a_running_run_is_named_as_running(ask: str) -> None:
    """The same from the inside of the run."""
    texts: list[str] = []

    async def body(step: StepContext, payload: Any) -> None:
        with pytest.raises(ConflictError) as caught:
            await ASKS[ask](durably, step.run_id)
        texts.append(str(caught.value))

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert run.status == "completed", run.error
    assert "running" in texts[0]
    await durably.stop()


# --- looking --------------------------------------------------------------------------------------


@contract
async def test_runs_are_listed_newest_first_and_page_by_page() -> None:
    """'`get_runs(*, status=None, job_name=None, labels=None, limit=None, offset=0)`: newest first', also where all
    were made in one millisecond."""
    durably, clock = await opened(":memory:", echo)
    ids = [run.id for run in await durably.jobs.echo.batch_trigger(list(range(7)))]
    await clock.advance(1)
    ids.append((await durably.jobs.echo.trigger(7, priority=-5, delay=1000)).id)
    newest = ids[::-1]
    assert [run.id for run in await durably.get_runs()] == newest
    assert [run.id for run in await durably.get_runs(limit=3)] == newest[:3]
    assert [run.id for run in await durably.get_runs(limit=3, offset=3)] == newest[3:6]
    assert [run.id for run in await durably.get_runs(limit=3, offset=6)] == newest[6:]
    assert [run.id for run in await durably.get_runs(offset=5)] == newest[5:]
    assert await durably.get_runs(offset=8) == []
    assert await durably.get_runs(limit=0) == []
    pages = [await durably.get_runs(limit=2, offset=offset) for offset in range(0, 8, 2)]
    assert [run.id for page in pages for run in page] == newest
    await durably.stop()


@contract
async def test_filters_are_one_or_several_and_all_must_match() -> None:
    """'`status`/`job_name`: one or several'"""

    @job
    async def other(step: StepContext, payload: str) -> str:
        return payload

    durably, _ = await opened(":memory:", body_job(life), other)
    runs = {
        status: await in_status(durably, status, labels={"kind": status, "all": "yes"})
        for status in ("completed", "failed", "cancelled", "waiting")
    }
    runs["other"] = await durably.jobs.other.trigger("x", labels={"all": "yes", "kind": "completed"})
    names = {run.id: name for name, run in runs.items()}

    async def listed(**filters: Any) -> list[str]:
        return [names[run.id] for run in await durably.get_runs(**filters)]

    everything = ["other", "waiting", "cancelled", "failed", "completed"]
    assert await listed() == everything
    assert await listed(status="completed") == ["completed"]
    assert await listed(status=RunStatus.FAILED) == ["failed"]
    assert await listed(status=["failed", RunStatus.COMPLETED]) == ["failed", "completed"]
    assert await listed(status=("pending",)) == ["other", "waiting"]
    assert await listed(status={"cancelled"}) == ["cancelled"]
    assert await listed(status=list(RunStatus)) == everything
    assert await listed(status="running") == []
    assert await listed(job_name="other") == ["other"]
    assert await listed(job_name=["other", "body", "no such job"]) == everything
    assert await listed(job_name="no such job") == []
    assert await listed(labels={"all": "yes"}) == everything
    assert await listed(labels={"kind": "completed"}) == ["other", "completed"]
    assert await listed(labels={"kind": "completed", "all": "no"}) == []
    assert await listed(labels={"kind": "complete"}) == []
    assert await listed(labels={"missing": ""}) == []
    assert await listed(labels={}) == everything
    assert await listed(labels={"kind": "completed"}, job_name="body", status=["completed", "failed"]) == ["completed"]
    assert await listed(labels={"all": "yes"}, status="pending", limit=1, offset=1) == ["waiting"]
    await durably.stop()


@pytest.mark.parametrize(
    "options",
    [
        {"status": "done"}, {"status": ["pending", "x"]}, {"limit": -1}, {"offset": -1}, {"limit": 1.5}, {"limit": "3"},
        {"offset": 0.5}, {"offset": None},
    ],
    ids=str,
)  # fmt: skip
@contract
async def test_a_filter_that_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    """A misspelt status is no empty list."""
    durably, _ = await opened(":memory:", echo)
    with pytest.raises((ValidationError, ValueError)):
        await durably.get_runs(**options)
    await durably.stop()


@contract
async def test_a_number_of_runs_may_be_larger_than_any_store() -> None:
    """`limit=10**30` means all."""
    durably, clock = await opened(":memory:", echo)
    run = await finished(durably, await durably.jobs.echo.trigger(1))
    assert await durably.get_runs(limit=10**30) == [run]
    assert await durably.get_runs(offset=10**30) == []
    await clock.advance(1)
    assert await durably.purge_runs(datetime(2027, 1, 1, tzinfo=UTC), limit=10**30) == 1
    await durably.stop()


@pytest.mark.parametrize("run_id", [None, 5, 2**70, 1.5, b"x", ["01"], object()], ids=lambda one: type(one).__name__)
@contract
async def test_what_is_no_text_is_the_id_of_no_run(run_id: Any) -> None:
    """It is not there, and the same whatever is asked: not an error of SQLite's."""
    durably, _ = await opened(":memory:", echo)
    await finished(durably, await durably.jobs.echo.trigger(1))
    assert await durably.get_run(run_id) is None
    assert await durably.jobs.echo.get_run(run_id) is None
    for ask in ASKS.values():
        with pytest.raises(NotFoundError):
            await ask(durably, run_id)
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_no_filter_value_is_taken_for_a_pattern_or_for_sql() -> None:
    """Labels hold any text; a filter is that very text."""
    values = ["%", "_", "' OR 1=1 --", '"', "\\", "a\nb", "ü", "💥", "", " ", "null", "[]", "{}"]
    durably, _ = await opened(":memory:", echo)
    runs = [await durably.jobs.echo.trigger(n, labels={"v": value}) for n, value in enumerate(values)]
    for run, value in zip(runs, values, strict=True):
        assert (await found(durably, run)).labels == {"v": value}
        assert [one.id for one in await durably.get_runs(labels={"v": value})] == [run.id]
        assert await durably.get_runs(job_name=value) == []
    await durably.stop()


class Order(BaseModel):
    items: list[str]


@contract
async def test_runs_are_typed_where_their_job_is_registered_else_plain(tmp_path: Path) -> None:
    """'`payload` and `output` are the typed objects where the job is registered, else plain JSON values.'"""

    @job
    async def buy(step: StepContext, payload: Order) -> Order:
        return payload

    shop, _ = await opened(tmp_path / "a.sqlite3", buy)
    office, _ = await opened(tmp_path / "a.sqlite3")
    run = await finished(shop, await shop.jobs.buy.trigger({"items": ["tea"]}))
    assert (run.payload, run.output) == (Order(items=["tea"]), Order(items=["tea"]))
    [plain] = await office.get_runs()
    assert (plain.payload, plain.output) == ({"items": ["tea"]}, {"items": ["tea"]})
    assert (await found(office, run)).output == {"items": ["tea"]}
    await shop.stop()
    await office.stop()


@contract
async def test_a_run_that_has_done_nothing_has_no_steps_and_no_logs() -> None:
    """'`get_steps(run_id) -> list[Step]`, `get_logs(run_id) -> list[Log]`': empty lists, not errors."""
    durably, _ = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(1)
    assert (await durably.get_steps(run.id), await durably.get_logs(run.id)) == ([], [])
    await durably.stop()


# --- retry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@contract
async def test_retry_makes_the_same_run_pending_and_keeps_its_completed_steps(status: str) -> None:
    """'`retry(run_id) -> Run` (failed or cancelled -> pending, the same run, completed steps kept)'"""
    calls: list[str] = []
    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("first", lambda: calls.append("first"))
        if status == "cancelled" and broken:
            await step.wait_for_signal("never")
        await step.run("second", second)
        return "done"

    def second() -> None:
        calls.append("second")
        if broken:
            raise ValueError("not yet")

    durably, clock = await opened(":memory:", body_job(body))
    run = await finished(
        durably, await durably.jobs.body.trigger(1, idempotency_key="k", labels={"a": "b"}, priority=3)
    )
    if status == "cancelled":
        await durably.cancel(run.id)
    before = await found(durably, run)
    assert before.status == status
    broken = False
    await clock.advance(10)
    events = watched(durably)
    again = await durably.retry(run.id)
    assert (again.id, again.status, again.error, again.output) == (run.id, "pending", None, None)
    assert (again.completed_at, again.waiting_for, again.worker_id) == (None, None, None)
    assert (again.labels, again.idempotency_key, again.priority) == ({"a": "b"}, "k", 3)
    assert (again.created_at, again.completed_step_count) == (before.created_at, 1)
    assert again.updated_at > before.updated_at
    assert again.is_active
    assert await found(durably, run) == again
    done = await finished(durably, run)
    assert (done.status, done.output, done.completed_step_count) == ("completed", "done", 2)
    assert calls.count("first") == 1
    assert types(events) == ["run:retry", "run:start", "step:start", "step:complete", "run:complete"]
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_a_run_that_was_cancelled_before_it_began_can_be_retried() -> None:
    """'failed or cancelled -> pending': there is nothing to keep, and it runs."""
    durably, _ = await opened(":memory:", echo)
    run = await durably.jobs.echo.trigger(5, delay=3600)
    await durably.cancel(run.id)
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", 5)
    await durably.stop()


# --- retrigger ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@contract
async def test_retrigger_makes_a_fresh_run_of_the_same_payload_and_labels(status: str) -> None:
    """'`retrigger(run_id) -> Run` (a fresh run, same payload and labels, no idempotency key)'; 'take a terminal run'"""
    durably, clock = await opened(":memory:", body_job(life))
    run = await in_status(durably, status, labels={"x": "y"}, idempotency_key="k")
    await clock.advance(5)
    events = watched(durably)
    fresh = await durably.retrigger(run.id)
    assert fresh.id > run.id
    assert (fresh.status, fresh.job_name, fresh.payload, fresh.labels) == ("pending", "body", run.payload, {"x": "y"})
    assert (fresh.idempotency_key, fresh.output, fresh.error, fresh.completed_step_count) == (None, None, None, 0)
    assert (fresh.generation, fresh.started_at) == (0, None)
    assert fresh.created_at == run.created_at + timedelta(seconds=5)
    assert await durably.get_steps(fresh.id) == []
    assert await found(durably, run) == run
    assert [(e.type, e.run_id, e.payload, e.labels) for e in events] == [
        ("run:trigger", fresh.id, run.payload, {"x": "y"}),
    ]  # fmt: skip
    again = await durably.jobs.body.trigger("completed", idempotency_key="k")
    assert again.id == run.id
    await durably.stop()


# --- cancel, delete, purge ------------------------------------------------------------------------


@contract
async def test_a_cancelled_run_is_not_claimed_and_says_when_it_ended() -> None:
    """'`cancel(run_id)` (pending or running)'"""
    durably, clock = await opened(":memory:", body_job(life))
    delayed = await durably.jobs.body.trigger("completed", delay=60)
    await clock.advance(1)
    await durably.cancel(delayed.id)
    run = await found(durably, delayed)
    assert (run.status, run.is_terminal, run.error, run.output) == ("cancelled", True, None, None)
    assert run.completed_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    await moved(durably, clock, 120)
    assert await found(durably, run) == run
    await durably.stop()


@contract
async def test_deleting_a_run_takes_all_that_is_its_own_and_nothing_else() -> None:
    """'`delete_run(run_id)` (terminal only)': steps, logs, labels, signals and the idempotency key go with it."""

    async def body(step: StepContext, payload: Any) -> Any:
        step.log.info("hello")
        return await step.run("s", lambda: payload)

    durably, _ = await opened(":memory:", body_job(body))
    durably.use(with_log_persistence())
    kept = await finished(durably, await durably.jobs.body.trigger(1, labels={"a": "b"}))
    gone = await durably.jobs.body.trigger(2, labels={"a": "b"}, idempotency_key="k")
    await durably.signal(gone.id, "unheard", 1)
    gone = await finished(durably, gone)
    events = watched(durably)
    assert await durably.delete_run(gone.id) is None
    assert [(e.type, e.run_id, e.job_name, e.labels) for e in events] == [("run:delete", gone.id, "body", {"a": "b"})]
    assert await durably.get_run(gone.id) is None
    assert [run.id for run in await durably.get_runs(labels={"a": "b"})] == [kept.id]
    for ask in (durably.get_steps, durably.get_logs, durably.delete_run):
        with pytest.raises(NotFoundError):
            await ask(gone.id)
    assert [(step.name, step.output) for step in await durably.get_steps(kept.id)] == [("s", 1)]
    assert [log.message for log in await durably.get_logs(kept.id)] == ["hello"]
    fresh = await durably.jobs.body.trigger(3, idempotency_key="k")
    assert (fresh.disposition, fresh.payload) == ("created", 3)
    await durably.stop()


def test_purge_and_get_runs_have_the_signature_of_the_contract() -> None:
    """'`purge_runs(older_than: datetime, limit=500) -> int`', '`signal(run_id, name, payload=None)`', ..."""

    def shape(name: str) -> str:
        parameters = list(inspect.signature(getattr(Durably, name)).parameters.values())[1:]
        return ", ".join(
            ("*" if p.kind is p.KEYWORD_ONLY else "") + p.name + ("" if p.default is p.empty else f"={p.default!r}")
            for p in parameters
        )

    assert shape("get_runs") == "*status=None, *job_name=None, *labels=None, *limit=None, *offset=0"
    assert shape("purge_runs") == "older_than, limit=500"
    assert shape("signal") == "run_id, name, payload=None"
    assert shape("fork") == "run_id, from_step"
    assert shape("schedule").startswith("job, payload, *every=None, *cron=None, *key, *catch_up='one'")
    assert shape("import_database") == "data"
    assert {shape(name) for name in ("retry", "retrigger", "cancel", "delete_run", "get_run", "get_steps")} == {
        "run_id"
    }


@contract
async def test_purge_deletes_ended_runs_that_are_older_oldest_first_up_to_the_limit() -> None:
    """'`purge_runs(older_than: datetime, limit=500) -> int`': terminal ones only, by when they ended."""
    durably, clock = await opened(":memory:", body_job(life))
    ended = []
    for status in ("completed", "failed", "cancelled", "completed", "completed"):
        ended.append(await in_status(durably, status))
        await clock.advance(60)
    waiting = await in_status(durably, "waiting")
    events = watched(durably)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert await durably.purge_runs(start) == 0
    assert await durably.purge_runs(older_than=start + timedelta(days=9), limit=2) == 2
    assert [event.run_id for event in events] == [ended[0].id, ended[1].id]
    assert await durably.purge_runs(start + timedelta(seconds=150)) == 1
    assert [run.id for run in await durably.get_runs()] == [waiting.id, ended[4].id, ended[3].id]
    assert await durably.purge_runs(datetime(2100, 1, 1, tzinfo=UTC)) == 2
    assert [run.id for run in await durably.get_runs()] == [waiting.id]
    assert set(types(events)) == {"run:delete"}
    assert len(events) == 5
    await durably.stop()


@contract
async def test_the_moment_of_a_purge_may_be_in_any_time_zone_but_must_be_a_moment() -> None:
    """'Datetimes are timezone-aware UTC.' A naive one names no instant."""
    durably, clock = await opened(":memory:", echo)
    await finished(durably, await durably.jobs.echo.trigger(1))
    await clock.advance(3600)
    for wrong in (datetime(2027, 1, 1), "2027-01-01", 5, None):  # noqa: DTZ001
        with pytest.raises((ValidationError, ValueError, TypeError)):
            await durably.purge_runs(wrong)  # type: ignore[arg-type]
    for limit in (-1, 0, 2.5, "3", None):
        with pytest.raises((ValidationError, ValueError)):
            await durably.purge_runs(datetime(2027, 1, 1, tzinfo=UTC), limit=limit)  # type: ignore[arg-type]  # what is refused
    assert len(await durably.get_runs()) == 1
    berlin = ZoneInfo("Europe/Berlin")
    assert await durably.purge_runs(datetime(2026, 1, 1, 1, 0, tzinfo=berlin)) == 0
    assert await durably.purge_runs(datetime(2026, 1, 1, 1, 1, tzinfo=berlin)) == 1
    await durably.stop()


# --- signal ---------------------------------------------------------------------------------------


@contract
async def test_a_signal_reaches_its_run_and_its_name_only() -> None:
    """'`signal(run_id, name, payload=None)`'"""

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.wait_for_signal("go")

    durably, _ = await opened(":memory:", body_job(body))
    one, two = await durably.jobs.body.batch_trigger([1, 2])
    await durably.process_until_idle()
    assert await durably.signal(one.id, "stop", "wrong name") is None
    await durably.signal(one.id, "go", {"for": ("one", 1)})
    await durably.process_until_idle()
    assert (await found(durably, one)).status == "completed"
    [step] = await durably.get_steps(one.id)
    assert step.output == {"for": ("one", 1)}
    assert (await found(durably, two)).waiting_for == "signal:go"
    await durably.signal(two.id, "go")
    done = await finished(durably, two)
    assert (done.status, done.output) == ("completed", None)
    await durably.stop()


@pytest.mark.parametrize("payload", [object(), {"a": lambda: 1}, 1j], ids=["object", "function", "complex"])
@contract
async def test_a_signal_that_cannot_be_kept_is_refused_before_it_is_sent(payload: Any) -> None:
    """A payload is what a step may return; the sender hears of anything else, not the run."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await in_status(durably, "waiting")
    with pytest.raises((ValidationError, ValueError, TypeError)):
        await durably.signal(run.id, "go", payload)
    assert (await finished(durably, run)).waiting_for == "signal:go"
    await durably.stop()


@pytest.mark.parametrize("name", ["", None, 5], ids=ascii)
@contract
async def test_a_signal_without_a_name_is_refused(name: Any) -> None:
    """No step could ever wait for it."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await in_status(durably, "waiting")
    with pytest.raises((ValidationError, ValueError, TypeError)):
        await durably.signal(run.id, name)
    await durably.stop()
