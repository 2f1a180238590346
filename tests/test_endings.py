"""However a run ends: its row, its steps and its events say the same, in order, and it is never left `running`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from durably import (
    RunFailedError,
    RunStatus,
    Statement,
    StepContext,
    StorageError,
    ValidationError,
    create_durably,
    define_job,
    job,
    with_log_persistence,
)
from durably.testing import FaultyDatabase, ManualClock

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, quick, found, finished, until, watched, types, echo = (
    kit.contract, kit.opened, kit.quick, kit.found, kit.finished, kit.until, kit.watched, kit.types, kit.echo,
)  # fmt: skip


def step_states(steps: list[Any]) -> dict[str, str]:
    return {step.name: str(step.status) for step in steps}


class HeldDatabase(FaultyDatabase):
    """Holds back the first batch that contains `text` until `go` is set."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.held, self.go = asyncio.Event(), asyncio.Event()

    async def execute(self, *statements: Statement) -> list[Any]:
        if any(self.text in statement.sql for statement in statements) and not self.held.is_set():
            self.held.set()
            await self.go.wait()
        return await super().execute(*statements)


# --- steps that a job leaves behind ---------------------------------------------------------------


@pytest.mark.parametrize("end", ["return", "raise"])
@contract
async def test_steps_that_a_job_leaves_are_cancelled_before_its_end_is_told(end: str) -> None:
    """Nothing of a run comes after its terminal event, and no step of an ended run is at work or waiting."""
    here = asyncio.Event()

    async def hold() -> None:
        here.set()
        await asyncio.Event().wait()

    @job
    async def leaves(step: StepContext, payload: str) -> None:
        left = [asyncio.ensure_future(step.run("held", hold)), asyncio.ensure_future(step.sleep("nap", 100))]
        await here.wait()
        await step.run("done", lambda: 1)
        if payload == "raise":
            raise ValueError(f"{len(left)} left")

    durably, _ = await opened(":memory:", leaves)
    told = watched(durably)
    run = await durably.jobs.leaves.trigger(end)
    ended = await finished(durably, run)
    assert ended.status == ("failed" if end == "raise" else "completed")
    assert types(told)[-3:] == ["step:cancel", "step:cancel", "run:fail" if end == "raise" else "run:complete"]
    kept = step_states(await durably.get_steps(run.id))
    assert kept == {"held": "cancelled", "nap": "cancelled", "done": "completed"}
    await durably.stop()


@contract
async def test_a_step_that_refuses_to_end_does_not_keep_its_run_running() -> None:
    """Its function swallows its cancellation: the run ends all the same, a second later."""
    here, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            here.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    @job
    async def leaves(step: StepContext, payload: int) -> int:
        task = asyncio.ensure_future(step.run("stubborn", stubborn))
        await here.wait()
        return int(task.done())

    async with quick(":memory:", leaves) as durably:
        told = watched(durably)
        run = await durably.jobs.leaves.trigger(1)
        await until(lambda: "run:complete" in types(told))
        assert types(told)[-2:] == ["step:cancel", "run:complete"]
        assert (await found(durably, run)).status is RunStatus.COMPLETED
        release.set()


# --- interrupted at the end -----------------------------------------------------------------------


@contract
async def test_a_stop_that_runs_out_of_time_at_a_runs_failure_does_not_leave_it_running() -> None:
    """The failure is on its way to the store when the worker is told to hand everything back."""

    @job
    async def fails(step: StepContext, payload: int) -> None:
        raise ValueError("no luck")

    database = HeldDatabase("failed_step_name = :failed_step_name")
    durably = create_durably(database, jobs=[fails], polling_interval=0.02)
    await durably.init()
    told = watched(durably)
    run = await durably.jobs.fails.trigger(1)
    await database.held.wait()
    stopping = asyncio.ensure_future(durably.stop(timeout=0))
    for _ in range(50):
        await asyncio.sleep(0)
    database.go.set()
    await stopping
    assert (await found(durably, run)).status is RunStatus.FAILED
    assert types(told)[-1] == "run:fail"
    await durably.stop()


@contract
async def test_what_a_cancelled_job_raises_on_its_way_out_is_nobodys_error() -> None:
    """The run has its end. It is no failure of the worker either, and none of whoever executes by hand."""
    here = asyncio.Event()

    async def hold() -> None:
        here.set()
        await asyncio.Event().wait()

    @job
    async def untidy(step: StepContext, payload: int) -> None:
        try:
            await step.run("held", hold)
        except asyncio.CancelledError:
            step.progress(99)
            raise ValueError("the clean-up failed") from None

    durably, _ = await opened(":memory:", untidy)
    told = watched(durably)
    run = await durably.jobs.untidy.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    await durably.cancel(run.id)
    assert await working is True
    assert types(told)[-2:] == ["step:cancel", "run:cancel"]
    assert (await found(durably, run)).status is RunStatus.CANCELLED
    await durably.stop()


@contract
async def test_progress_of_a_run_that_ended_is_no_error_in_the_background() -> None:
    """It waits to be stored when the run is taken away; asyncio would report the task that nobody looks at."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    here, end = asyncio.Event(), asyncio.Event()

    @job
    async def slow_to_end(step: StepContext, payload: int) -> None:
        step.progress(1)
        here.set()
        try:
            await asyncio.Event().wait()
        finally:
            await end.wait()

    durably, clock = await opened(":memory:", slow_to_end)
    run = await durably.jobs.slow_to_end.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    await durably.cancel(run.id)
    await clock.advance(1)
    gc.collect()
    end.set()
    await working
    await durably.stop()
    gc.collect()
    assert reported == []


@contract
async def test_a_signal_that_is_taken_while_the_run_is_interrupted_is_told_as_taken() -> None:
    """The commit that delivers it cannot be called back; then its event is not to be a cancellation."""

    @job
    async def listens(step: StepContext, payload: int) -> Any:
        # Beside the wait something is at work, so that the run is not parked.
        busy = asyncio.ensure_future(step.run("busy", asyncio.Event().wait))
        value = await step.wait_for_signal("bell")
        return [value, busy.done()]

    database = HeldDatabase("UPDATE durably_signals SET consumed_by")
    durably = create_durably(database, jobs=[listens], polling_interval=0.02)
    await durably.init()
    told = watched(durably)
    run = await durably.jobs.listens.trigger(1)
    await database.held.wait()
    await durably.signal(run.id, "bell", "ding")
    stopping = asyncio.ensure_future(durably.stop(timeout=0))
    for _ in range(50):
        await asyncio.sleep(0)
    database.go.set()
    await stopping
    ends = [(e.type, e.step_name) for e in told if e.type in ("step:complete", "step:cancel")]
    assert ("step:complete", "bell") in ends
    assert ("step:cancel", "bell") not in ends
    assert step_states(await durably.get_steps(run.id))["bell"] == "completed"
    await durably.stop()


@contract
async def test_a_step_whose_result_is_being_stored_when_its_time_is_over_has_made_it() -> None:
    """Its timeout is for its function. Else the row would say completed and the run that the step took too long."""

    @job
    async def hurried(step: StepContext, payload: int) -> int:
        return await step.with_options(timeout=5).run("first", lambda: payload)

    database, clock = HeldDatabase("INSERT INTO durably_steps"), ManualClock()
    durably = create_durably(database, jobs=[hurried], clock=clock)
    await durably.migrate()
    run = await durably.jobs.hurried.trigger(3)
    working = asyncio.ensure_future(durably.process_one())
    await database.held.wait()
    await clock.advance(6)
    database.go.set()
    await working
    assert (await found(durably, run)).output == 3
    await durably.stop()


# --- a store that fails ---------------------------------------------------------------------------


@contract
async def test_a_full_disk_inside_a_task_group_is_not_the_jobs_failure() -> None:
    """There the refused checkpoint arrives inside an exception group."""

    @job
    async def grouped(step: StepContext, payload: int) -> int:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(step.run(f"part-{n}", lambda n=n: n)) for n in range(3)]
        return sum(part.result() for part in parts)

    database = FaultyDatabase(":memory:", lambda sql: sql.startswith("INSERT INTO durably_steps"), times=1)
    durably = create_durably(database, jobs=[grouped], clock=ManualClock())
    await durably.migrate()
    run = await durably.jobs.grouped.trigger(1)
    with pytest.raises(StorageError):
        await durably.process_one()
    assert (await finished(durably, run)).output == 3
    await durably.stop()


@contract
async def test_a_run_that_cannot_be_parked_does_not_hold_up_who_executes_by_hand_nor_a_stop() -> None:
    @job
    async def waits(step: StepContext, payload: int) -> str:
        return str(await step.wait_for_signal("go"))

    database = FaultyDatabase(":memory:", lambda sql: "waiting_for = :waiting_for" in sql)
    durably = create_durably(database, jobs=[waits], clock=ManualClock())
    await durably.migrate()
    run = await durably.jobs.waits.trigger(1)
    with pytest.raises(StorageError):
        await durably.process_one()
    await durably.stop()
    assert (await found(durably, run)).status is RunStatus.PENDING
    database.fail_on = None
    await durably.process_until_idle()
    assert (await found(durably, run)).waiting_for == "signal:go"
    await durably.signal(run.id, "go", "on")
    assert (await finished(durably, run)).output == "on"
    await durably.stop()


@pytest.mark.parametrize("by_hand", [True, False])
@contract
async def test_a_database_in_memory_lives_through_stop_and_init(by_hand: bool) -> None:
    """It ends with its object, not with its worker: a run that waits goes on after the second `init`."""

    @job
    async def waits(step: StepContext, payload: int) -> list[Any]:
        first = await step.run("first", lambda: payload)
        return [first, await step.wait_for_signal("go")]

    durably = create_durably(":memory:", jobs=[waits], polling_interval=0.02)
    await durably.init()
    run = await durably.jobs.waits.trigger(7)
    waiting = None
    while waiting is None:
        waiting = (await found(durably, run)).waiting_for
    for _ in range(3):
        await durably.stop()
        await (durably.migrate() if by_hand else durably.init())
    await durably.signal(run.id, "go", "on")
    if by_hand:
        await durably.process_until_idle()
    done = await durably.wait_for_run(run.id, timeout=30)
    assert done.output == [7, "on"]
    await durably.stop()


# --- time, names ----------------------------------------------------------------------------------


@contract
async def test_a_clock_that_is_set_neither_ends_a_run_nor_spares_it() -> None:
    """A run's timeout is the time that it was at work, not the difference of two readings of the clock."""
    here, go = asyncio.Event(), asyncio.Event()

    async def long(step: StepContext, payload: int) -> int:
        await step.run("first", lambda: 1)
        here.set()
        await go.wait()
        return await step.run("second", lambda: payload)

    class JumpingClock(ManualClock):
        offset = 0

        def now(self) -> Any:
            return super().now() + self.offset

    clock = JumpingClock()
    durably, _ = await opened(":memory:", define_job(name="long", input=int, run=long, timeout=60), clock=clock)
    run = await durably.jobs.long.trigger(5)
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    clock.offset = 3_600_000
    await clock.advance(30)
    go.set()
    await working
    assert (await found(durably, run)).output == 5
    again = await durably.jobs.long.trigger(6)
    here.clear()
    go.clear()
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    clock.offset = 0
    await clock.advance(61)
    await working
    assert (await found(durably, again)).status is RunStatus.FAILED
    await durably.stop()


@pytest.mark.parametrize("name", ["naïve ☃ 日本", "a\x00b", "'; --", "x" * 100_000, " "])
@contract
async def test_any_text_may_name_a_step_a_signal_and_a_log_line(name: str) -> None:
    @job
    async def named(step: StepContext, payload: int) -> list[Any]:
        step.log.info(name, {name: name})
        return [await step.run(name, lambda: 1), await step.wait_for_signal(f"wait {name}", signal=name)]

    durably, _ = await opened(":memory:", named)
    durably.use(with_log_persistence())
    run = await durably.jobs.named.trigger(1)
    await durably.process_until_idle()
    await durably.signal(run.id, name, name)
    assert (await finished(durably, run)).output == [1, name]
    assert [step.name for step in await durably.get_steps(run.id)] == [name, f"wait {name}"]
    assert [(line.message, line.data) for line in await durably.get_logs(run.id)] == [(name, {name: name})]
    await durably.stop()


@contract
async def test_half_a_surrogate_pair_is_refused_or_escaped_but_breaks_no_worker() -> None:
    """No database can store it. One bad name must not keep every other run from being claimed."""
    bad = "lone \ud800"

    @job
    async def named(step: StepContext, payload: str) -> None:
        step.log.info(bad, {"data": bad})
        if payload == "step":
            await step.run(bad, lambda: 1)
        else:
            await step.wait_for_signal("ok", signal=bad)

    durably, _ = await opened(":memory:", named, echo)
    durably.use(with_log_persistence())
    for payload in ("step", "signal"):
        failed = await finished(durably, await durably.jobs.named.trigger(payload))
        assert failed.status is RunStatus.FAILED
        [line] = await durably.get_logs(failed.id)
        assert "ud800" in line.message
        assert "ud800" in str(line.data)
    for text in (bad, "a\x00b"):
        with pytest.raises(ValueError, match="a job needs a name"):
            define_job(name=text, input=int, run=echo.run)
        with pytest.raises(ValidationError):
            await durably.jobs.echo.trigger(1, labels={"key": text})
        with pytest.raises(ValidationError):
            await durably.schedule(echo, 1, every=5, key=text)
    with pytest.raises(ValidationError):
        await durably.get_run(bad)
    assert (await finished(durably, await durably.jobs.echo.trigger(3))).output == 3
    await durably.stop()


@contract
async def test_lists_may_ask_for_more_than_any_database_has() -> None:
    durably, _ = await opened(":memory:", echo)
    await durably.jobs.echo.trigger(1)
    assert len(await durably.get_runs(limit=2**70)) == 1
    assert await durably.get_runs(offset=2**70) == []
    names, labels = [f"job-{n}" for n in range(10_000)], {f"key-{n}": "value" for n in range(10_000)}
    assert len(await durably.get_runs(job_name=[*names, "echo"])) == 1
    run = await durably.jobs.echo.trigger(2, labels=labels)
    assert [each.id for each in await durably.get_runs(labels=labels)] == [run.id]
    await durably.stop()


# --- children -------------------------------------------------------------------------------------


@contract
async def test_retrying_a_run_whose_child_failed_runs_a_new_child() -> None:
    """A step that raised is a failed one, which `retry()` executes again; else the parent could never succeed."""
    calls: list[int] = []

    @job
    async def child(step: StepContext, payload: int) -> int:
        calls.append(payload)
        if len(calls) == 1:
            raise ValueError("the first time")
        return payload

    @job
    async def parent(step: StepContext, payload: int) -> Any:
        return (await step.trigger_and_wait("child", child, payload)).output

    durably, _ = await opened(":memory:", parent, child)
    told = watched(durably)
    run = await durably.jobs.parent.trigger(5)
    failed = await finished(durably, run)
    assert (failed.status, failed.error) == ("failed", "the first time")
    assert step_states(await durably.get_steps(run.id)) == {"child": "failed"}
    mine = [event for event in told if event.run_id == run.id]
    assert types(mine)[-2:] == ["step:fail", "run:fail"]
    assert mine[-1].failed_step_name == "child"
    await durably.retry(run.id)
    assert (await finished(durably, run)).output == 5
    assert len(calls) == 2
    await durably.stop()


@contract
async def test_a_childs_failure_that_was_handled_is_the_same_on_replay(tmp_path: Path) -> None:
    calls: list[int] = []

    @job
    async def child(step: StepContext, payload: int) -> None:
        calls.append(payload)
        raise ValueError("always")

    @job
    async def parent(step: StepContext, payload: int) -> Any:
        try:
            await step.trigger_and_wait("child", child, payload)
        except RunFailedError as error:
            seen = [str(error), error.run.status]
        return [*seen, await step.wait_for_signal("go")]

    first, clock = await opened(tmp_path / "a.sqlite3", parent, child)
    run = await first.jobs.parent.trigger(5)
    await first.process_until_idle()
    await first.stop()
    second, _ = await opened(tmp_path / "a.sqlite3", parent, child, clock=clock)
    await second.signal(run.id, "go", "on")
    done = await finished(second, run)
    assert (done.error, done.output) == (None, ["always", "failed", "on"])
    assert calls == [5]
    await second.stop()


@contract
async def test_a_retried_parent_finds_its_detached_child_again() -> None:
    """It was told not to end with its parent: a retry waits for that one, and starts no second."""

    @job
    async def child(step: StepContext, payload: int) -> Any:
        return await step.wait_for_signal("go")

    @job
    async def parent(step: StepContext, payload: int) -> Any:
        return (await step.trigger_and_wait("child", child, payload, detached=True)).output

    durably, _ = await opened(":memory:", parent, child)
    run = await durably.jobs.parent.trigger(5)
    await durably.process_until_idle()
    await durably.cancel(run.id)
    await durably.process_until_idle()
    await durably.retry(run.id)
    await durably.process_until_idle()
    [only] = await durably.jobs.child.get_runs()
    assert only.status is RunStatus.PENDING
    await durably.signal(only.id, "go", "found")
    assert (await finished(durably, run)).output == "found"
    await durably.stop()


@contract
async def test_a_parent_does_not_wait_for_ever_for_a_child_that_was_deleted(tmp_path: Path) -> None:
    """It ended and was deleted by another instance before its parent had looked."""

    @job
    async def child(step: StepContext, payload: int) -> int:
        return payload

    @job
    async def parent(step: StepContext, payload: int) -> Any:
        return (await step.trigger_and_wait("child", child, payload)).output

    durably, clock = await opened(tmp_path / "a.sqlite3", parent, child)
    other, _ = await opened(tmp_path / "a.sqlite3", child, clock=clock)
    run = await durably.jobs.parent.trigger(5)
    await durably.process_one()
    await other.process_until_idle()
    [ended] = await other.jobs.child.get_runs()
    await other.delete_run(ended.id)
    failed = await finished(durably, run)
    assert failed.status is RunStatus.FAILED
    assert f"the child run {ended.id} has been deleted" in str(failed.error)
    await durably.retry(run.id)
    await durably.process_until_idle()
    assert (await finished(durably, run)).output == 5
    await durably.stop()
    await other.stop()
