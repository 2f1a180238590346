"""API.md section 4: the shape of `StepContext`, names, `step.log` and `step.progress`, what differs each time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import contract_kit as kit
import pytest
from contract_kit import contract, executed, finished, found, opened, types, watched

from durably import DuplicateStepError, DurablyError, StepContext, job

pytestmark = pytest.mark.slow


# --- the shape ------------------------------------------------------------------------------------


def test_the_step_context_has_the_methods_of_the_contract() -> None:
    """'class StepContext: ...'"""

    def shape(name: str) -> list[tuple[str, str]]:
        return [
            (p.name, p.kind.name[:3] + ("" if p.default is p.empty else f"={p.default}"))
            for p in inspect.signature(getattr(StepContext, name)).parameters.values()
        ][1:]

    called = [("name", "POS"), ("fn", "POS"), ("args", "VAR"), ("kwargs", "VAR")]
    assert shape("run") == called
    assert shape("transaction") == called
    assert shape("with_options") == [("retry", "KEY=None"), ("timeout", "KEY=None"), ("output", "KEY=None")]
    assert shape("progress") == [("current", "POS"), ("total", "POS=None"), ("message", "POS=None")]
    assert shape("sleep") == [("name", "POS"), ("seconds", "POS")]
    assert shape("wait_for_signal") == [("name", "POS"), ("signal", "KEY=None"), ("timeout", "KEY=None")]
    assert shape("now") == shape("random") == shape("uuid") == shape("raise_if_cancelled") == []
    assert (
        shape("trigger")[:3] == shape("trigger_and_wait")[:3] == [("name", "POS"), ("job", "POS"), ("payload", "POS")]
    )
    assert not inspect.iscoroutinefunction(StepContext.progress)


@contract
async def test_a_step_calls_sync_and_async_functions_with_their_arguments() -> None:
    """'async def run(self, name, fn, /, *args, **kwargs)'; 'calls `fn` (sync or async)'; `lambda: save(users)`
    where save is async"""

    def plain(a: int, *, name: str) -> str:
        return f"{a}{name}"

    async def later(a: int, fn: str = "") -> str:
        await asyncio.sleep(0)
        return f"{a}{fn}"

    class CallableObject:
        async def __call__(self, a: int) -> int:
            return a + 1

    async def body(step: StepContext, payload: Any) -> Any:
        import functools

        assert step.run_id
        return [
            await step.run("plain", plain, 1, name="n"),
            await step.run("later", later, 2, fn="f"),
            await step.run("lambda", lambda: later(3)),
            await step.run("object", CallableObject(), 4),
            await step.run("partial", functools.partial(later, 5)),
            await step.run("builtin", max, [1, 7]),
        ]

    durably, _, run = await executed(body)
    assert (run.error, run.output) == (None, ["1n", "2f", "3", 5, "5", 7])
    assert [s.index for s in await durably.get_steps(run.id)] == [0, 1, 2, 3, 4, 5]
    assert run.completed_step_count == 6
    await durably.stop()


@contract
async def test_a_step_result_is_committed_before_run_returns(tmp_path: Path) -> None:
    """'commits its result before returning'"""
    reader, _ = await opened(tmp_path / "a.sqlite3")
    seen: list[Any] = []

    @job
    async def two(step: StepContext, payload: int) -> None:
        await step.run("one", lambda: [1])
        seen.extend((s.name, s.status, s.output) for s in await reader.get_steps(step.run_id))
        seen.append((await found(reader, step.run_id)).completed_step_count)
        await step.run("two", lambda: [2])

    durably, _ = await opened(tmp_path / "a.sqlite3", two)
    await finished(durably, await durably.jobs.two.trigger(1))
    assert seen == [("one", "completed", [1]), 1]
    await durably.stop()
    await reader.stop()


@contract
async def test_later_executions_return_the_stored_result_without_a_call() -> None:
    """'on every later execution returns the stored result without calling `fn`'; '`fn` raising: the step is
    stored as failed, the run fails with that error text, and `retry()` executes it again'"""
    calls: list[str] = []
    broken = True

    def fetch() -> list[int]:
        calls.append("fetch")
        return [1, 2]

    def save(rows: list[int]) -> int:
        calls.append("save")
        if broken:
            raise OSError("disk on fire")
        return len(rows)

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.run("save", save, await step.run("fetch", fetch))

    durably, clock, run = await executed(body)
    events = watched(durably)
    assert run.status == "failed"
    assert "disk on fire" in str(run.error)
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [("fetch", "completed"), ("save", "failed")]
    broken = False
    await clock.advance(5)
    again = await durably.retry(run.id)
    assert (again.id, again.status, again.error, again.completed_at) == (run.id, "pending", None, None)
    done = await finished(durably, run)
    assert (done.status, done.output, calls) == ("completed", 2, ["fetch", "save", "save"])
    assert [(s.name, s.status, s.error) for s in await durably.get_steps(run.id)] == [
        ("fetch", "completed", None), ("save", "completed", None),
    ]  # fmt: skip
    assert types(events) == ["run:retry", "run:start", "step:start", "step:complete", "run:complete"]
    await durably.stop()


@contract
async def test_code_outside_of_steps_that_raises_fails_the_run() -> None:
    """'`run:fail` error, failed_step_name': none, where no step failed."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("fine", lambda: 1)
        raise KeyError("outside")

    durably, _, run = await executed(body)
    assert run.status == "failed"
    assert "outside" in str(run.error)
    assert [s.status for s in await durably.get_steps(run.id)] == ["completed"]
    await durably.stop()


@contract
async def test_a_step_failure_may_be_caught_and_the_run_goes_on() -> None:
    """A step's exception reaches the job as itself, so that Python's `except` works."""

    def fail() -> None:
        raise ConnectionError("nobody home")

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.run("risky", fail)
        except ConnectionError as error:
            return await step.run("instead", "rescued from {}".format, error)

    durably, _, run = await executed(body)
    assert (run.status, run.output) == ("completed", "rescued from nobody home")
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [
        ("risky", "failed"), ("instead", "completed"),
    ]  # fmt: skip
    await durably.stop()


# --- names ----------------------------------------------------------------------------------------


@contract
async def test_the_same_name_twice_in_one_execution_is_an_error() -> None:
    """'**The same name twice in one execution raises `DuplicateStepError`**'"""
    calls: list[int] = []
    raised: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("same", lambda: calls.append(1))
        for again in (
            lambda: step.run("same", lambda: calls.append(2)),
            lambda: step.with_options(retry=2).run("same", lambda: calls.append(3)),
            lambda: step.sleep("same", 1),
            lambda: step.wait_for_signal("same"),
            lambda: step.transaction("same", lambda tx: None),
            lambda: step.trigger("same", "body", 1),
            lambda: step.trigger_and_wait("same", "body", 1),
        ):
            try:
                await again()
            except DuplicateStepError as error:
                raised.append(str(error))

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert calls == [1]
    assert len(raised) == 7
    assert all("same" in text for text in raised)
    await durably.stop()


@pytest.mark.parametrize(
    "name", ["", "a" * 5000, "new\nline", "\ud800", "nul\x00", "ünï", 5, None], ids=lambda n: ascii(n)[:20]
)
@contract
async def test_any_step_name_is_either_kept_as_it_is_or_refused(name: Any) -> None:
    """Where the page is silent: a run always ends, and its steps tell the truth."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run(name, lambda: 1)

    durably, _, run = await executed(body)
    assert run.is_terminal
    steps = await durably.get_steps(run.id)
    if run.status == "completed":
        assert [s.name for s in steps] == [name]
    else:
        assert run.error
    await durably.stop()


# --- step.log, step.progress ----------------------------------------------------------------------


@contract
async def test_progress_and_logs_are_plain_calls_that_send_events() -> None:
    """'def progress(self, current, total=None, message=None) -> None'; 'log:
    .info/.warning(.warn)/.error(message, data=None)'"""

    async def body(step: StepContext, payload: Any) -> Any:
        assert step.progress(1) is None  # type: ignore[func-returns-value]
        step.progress(2, 4)
        step.progress(current=3, total=4, message="three")
        for write in (step.log.info, step.log.warning, step.log.warn, step.log.error):
            assert write("m", {"k": (1, 2)}) is None
        step.log.info("no data")

        def inside() -> None:
            step.log.info("in a thread")
            step.progress(4)

        await step.run("s", inside)

    @job
    async def telling(step: StepContext, payload: int) -> None:
        await body(step, payload)

    durably, _ = await opened(":memory:", telling)
    progress, logs = watched(durably, "run:progress"), watched(durably, "log:write")
    run = await finished(durably, await durably.jobs.telling.trigger(1))
    assert run.status == "completed", run.error
    assert [(e.progress.current, e.progress.total, e.progress.message) for e in progress] == [
        (1, None, None), (2, 4, None), (3, 4, "three"), (4, None, None),
    ]  # fmt: skip
    assert [(e.level, e.message, e.step_name) for e in logs] == [
        ("info", "m", None), ("warning", "m", None), ("warning", "m", None), ("error", "m", None),
        ("info", "no data", None), ("info", "in a thread", "s"),
    ]  # fmt: skip
    assert (run.progress.current, run.progress.total, run.progress.message) == (4, None, None)
    await durably.stop()


@contract
async def test_the_last_progress_is_always_stored() -> None:
    """'progress writes are coalesced (about ten a second a run, the last one always), events always'"""

    async def body(step: StepContext, payload: Any) -> Any:
        for n in range(500):
            step.progress(n, 500)

    @job
    async def busy(step: StepContext, payload: int) -> None:
        await body(step, payload)

    durably, _ = await opened(":memory:", busy)
    events = watched(durably, "run:progress")
    run = await finished(durably, await durably.jobs.busy.trigger(1))
    assert (run.progress.current, run.progress.total) == (499, 500)
    assert [event.progress.current for event in events] == list(range(500))
    await durably.stop()


@pytest.mark.parametrize(
    "awkward",
    ["\ud800", "nul \x00", kit.BrokenStrError(), object(), None, 5],
    ids=lambda v: type(v).__name__ + ascii(v)[:8] if isinstance(v, str) else type(v).__name__,
)
@contract
async def test_an_awkward_log_line_or_progress_text_never_breaks_a_run(awkward: Any) -> None:
    """'Everything that only signals (`progress`, `log`, `on`) is a plain call'; a signal does not leave a run
    `running`."""
    from durably import with_log_persistence

    @job
    async def telling(step: StepContext, payload: int) -> str:
        for tell in (
            lambda: step.log.info(awkward),
            lambda: step.log.info("m", awkward),
            lambda: step.log.info("m", {"k": [awkward]}),
            lambda: step.progress(1, message=awkward),
        ):
            with contextlib.suppress(TypeError, ValueError, DurablyError):
                tell()
        await step.run("s", lambda: 1)
        return "ok"

    durably, _ = await opened(":memory:", telling)
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.telling.trigger(1))
    assert (run.status, run.output) == ("completed", "ok"), run.error
    await durably.get_logs(run.id)
    await durably.stop()


# --- now, random, uuid ----------------------------------------------------------------------------


@contract
async def test_now_random_and_uuid_are_the_same_on_replay() -> None:
    """'`await step.now()`, `step.random()`, `step.uuid()` give the same value on replay (each call is numbered
    in its order).'"""
    got: list[Any] = []

    async def body(step: StepContext, payload: Any) -> Any:
        got.append(
            [
                await step.now(),
                await step.random(),
                await step.uuid(),
                await step.random(),
                await step.uuid(),
                await step.now(),
            ]
        )
        if len(got) == 1:
            raise RuntimeError("again")

    durably, clock, run = await executed(body)
    await clock.advance(100)
    await durably.retry(run.id)
    assert (await finished(durably, run)).status == "completed"
    first, second = got
    assert first == second
    assert first[0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert first[0].tzinfo is not None
    assert 0 <= first[1] < 1
    assert first[1] != first[3]
    assert isinstance(first[2], UUID)
    assert first[2] != first[4]
    await durably.stop()
