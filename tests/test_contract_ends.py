"""The contract where it is easily broken: awkward ends of jobs and steps, cancellation, arguments."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durably import (
    StepContext,
    StepOutputError,
    UserTransaction,
    ValidationError,
    create_durably,
    define_job,
    job,
)

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


# --- never `running` for ever ---------------------------------------------------------------------


@contract
async def test_a_job_that_cancels_itself_ends_as_failed_not_as_running() -> None:
    """'a stray `CancelledError` that nobody asked for'"""

    @job
    async def selfish(step: StepContext, payload: int) -> None:
        await step.run("one", lambda: 1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await step.run("two", asyncio.sleep, 0.01)

    durably, _ = await opened(":memory:", selfish)
    run = await durably.jobs.selfish.trigger(1)
    await asyncio.wait_for(durably.process_until_idle(), 3)
    assert (await found(durably, run)).status == "failed"
    await durably.stop()


@contract
async def test_a_job_that_cancels_itself_does_not_go_round_for_ever_under_a_worker() -> None:
    """'a stray `CancelledError` that nobody asked for ...: the run always reaches a terminal state'"""
    starts: list[int] = []

    @job
    async def selfish(step: StepContext, payload: int) -> None:
        starts.append(1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with quick(":memory:", selfish) as durably:
        run = await durably.jobs.selfish.trigger(1)
        await until(lambda: _ended(durably, run), seconds=1)
        assert len(starts) <= 4


async def _ended(durably: Any, run: Any) -> bool:
    return bool((await found(durably, run)).is_terminal)


@pytest.mark.parametrize(("kind", "where"), sorted(kit.HARD_ENDS))
@contract
async def test_a_run_always_reaches_a_terminal_state_with_a_true_record(kind: str, where: str) -> None:
    """'`fn` raising: the step is stored as failed, the run fails with that error text'; 'the run always reaches
    a terminal state with a true record'"""
    await asyncio.wait_for(kit.ends_truly(kind, where), 1.5)


@contract
async def test_process_until_idle_claims_nothing_more_once_stop_is_called() -> None:
    """'await durably.stop(timeout=None) waits for runs in flight (after `timeout` they are cancelled *locally*
    and handed back as `pending`'"""
    starts: list[int] = []

    async def body(step: StepContext, payload: Any) -> Any:
        starts.append(1)
        await step.run("held", asyncio.sleep, 30)

    durably = quick(":memory:", body_job(body))
    await durably.migrate()
    await durably.jobs.body.trigger(1)
    working = asyncio.ensure_future(durably.process_until_idle())
    await until(lambda: starts)
    await asyncio.wait_for(durably.stop(timeout=0.02), 2)
    await asyncio.sleep(0.1)
    assert (working.done(), len(starts)) == (True, 1)


# --- transactions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["COMMIT", "END", "-- c\nCOMMIT", "/* c */ commit;", " \n;COMMIT"])
@contract
async def test_a_transaction_cannot_be_committed_from_inside(statement: str) -> None:
    """'its writes and the checkpoint commit together, or not at all: exactly once'"""

    async def body(step: StepContext, payload: Any) -> Any:
        async def sneak(tx: UserTransaction) -> None:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute(statement)
            raise ValueError("and fail")

        async def tables(tx: UserTransaction) -> int:
            return len(await tx.execute("SELECT name FROM sqlite_master WHERE name = 'mine'"))

        try:
            await step.transaction("sneak", sneak)
        except Exception:  # noqa: BLE001
            return await step.transaction("look", tables)

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert (run.status, run.output) == ("completed", 0), run.error
    await durably.stop()


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "END", "/* c */ rollback"])
@contract
async def test_a_transaction_ended_from_inside_is_no_completed_step(statement: str) -> None:
    """'its writes and the checkpoint commit together, or not at all': never a checkpoint without its writes,
    nor the reverse"""

    async def body(step: StepContext, payload: Any) -> Any:
        async def sneak(tx: UserTransaction) -> str:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute(statement)
            return "fine"

        async def tables(tx: UserTransaction) -> int:
            return len(await tx.execute("SELECT name FROM sqlite_master WHERE name = 'mine'"))

        try:
            await step.transaction("sneak", sneak)
        except Exception as error:  # noqa: BLE001
            return [type(error).__name__, await step.transaction("look", tables)]
        return ["completed", await step.transaction("look", tables)]

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    kind, tables = run.output
    sneak = {s.name: str(s.status) for s in await durably.get_steps(run.id)}["sneak"]
    assert (kind != "completed", tables, sneak) == (True, 0, "failed")
    await durably.stop()


# --- what was cancelled ---------------------------------------------------------------------------


@contract
async def test_the_events_of_a_cancelled_run_end_with_its_cancellation() -> None:
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
        await durably.jobs.echo.trigger_and_wait(2, timeout=4)
        mine = [event for event in events if event.run_id == run.id]
        assert types(mine) == ["run:trigger", "run:start", "step:start", "step:cancel", "run:cancel"]


@contract
async def test_the_step_that_was_cancelled_has_a_row_that_says_so() -> None:
    """'What happened is what the event stream, the run row and the steps say, all three.'"""
    here = asyncio.Event()

    async def hold() -> None:
        here.set()
        await asyncio.sleep(30)

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("held", hold)

    async with quick(":memory:", body_job(body), echo) as durably:
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        await durably.cancel(run.id)
        await durably.jobs.echo.trigger_and_wait(2, timeout=4)
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


# --- arguments ------------------------------------------------------------------------------------


def test_a_fraction_of_a_run_is_no_limit() -> None:
    """'`max_concurrent_runs` from 1 to 1,000'"""
    with pytest.raises((ValueError, TypeError)):
        create_durably(":memory:", max_concurrent_runs=2.5)  # type: ignore[arg-type]


def test_retain_runs_takes_plain_digits() -> None:
    """'`retain_runs="30d" | "12h" | "90m" | timedelta` ... A bad string: `ValueError`.'"""
    with pytest.raises(ValueError, match=r"\S"):
        create_durably(":memory:", retain_runs="\u0663d")


@contract
async def test_labels_that_are_no_dict_are_a_validation_error() -> None:
    """'`labels`: `dict[str, str]`'"""
    durably, _ = await opened(":memory:", echo)
    for bad in (["a"], "a=b", 5):
        with pytest.raises((ValidationError, ValueError, TypeError)):
            await durably.jobs.echo.trigger(1, labels=bad)
    await durably.stop()


@pytest.mark.parametrize("bad", [1.5, "3"])
@contract
async def test_a_retry_that_is_no_integer_is_refused(bad: Any) -> None:
    """'with_options(retry: Retry | int | None)'; without a word it is taken for no retry at all, or breaks at
    the first failure."""

    async def body(step: StepContext, payload: Any) -> Any:
        with pytest.raises((ValueError, TypeError)):
            step.with_options(retry=bad)

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert run.status == "completed", run.error
    await durably.stop()


@contract
async def test_a_result_that_contains_itself_is_refused_with_its_path() -> None:
    """'raises `StepOutputError` naming the step and the offending path'"""
    texts: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        ring: list[Any] = []
        ring.append(ring)
        try:
            await step.run("my-step", lambda: {"rows": [0, ring]})
        except StepOutputError as error:
            texts.append(str(error))

    durably, _ = await opened(":memory:", body_job(body))
    await finished(durably, await durably.jobs.body.trigger(1))
    assert "my-step" in texts[0]
    assert "rows" in texts[0]
    await durably.stop()
