"""The contract where it is easily broken: awkward ends of jobs and steps, and arguments that cannot be meant."""

from __future__ import annotations

import asyncio
from typing import Any

import contract_kit as kit
import pytest
from contract_kit import body_job, contract, echo, finished, found, opened, quick, until

from durably import StepContext, StepOutputError, ValidationError, create_durably, job

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
    await asyncio.wait_for(durably.process_until_idle(), 30)
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
    await asyncio.wait_for(durably.stop(timeout=0.02), 30)
    await asyncio.sleep(0.1)
    assert (working.done(), len(starts)) == (True, 1)


# --- awkward ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (kind, where)
        for kind in kit.AWKWARD
        for where in ("sync step", "async step", "job")
        if (kind, where) not in kit.LEFT_OUT
    ],
)
@contract
async def test_a_run_always_reaches_a_terminal_state_with_a_true_record(kind: str, where: str) -> None:
    """'an error whose text cannot be printed or stored as it is (lone surrogate, NUL, a `__str__` that raises),
    a stray `CancelledError` that nobody asked for ...: the run always reaches a terminal state with a true
    record, never stays `running`'"""
    await kit.ends_truly(kind, where)


@pytest.mark.parametrize("kind", ["stray cancelled", "surrogate", "broken str", "base"])
@contract
async def test_a_worker_survives_awkward_ends(kind: str) -> None:
    """The same under `start()`: the loop goes on with the next run."""

    @job
    async def awkward(step: StepContext, payload: int) -> None:
        def fail() -> None:
            raise kit.awkward_error(kind)

        await step.run("fail", fail)

    async with quick(":memory:", awkward, echo) as durably:
        run = await durably.jobs.awkward.trigger(1)
        await until(lambda: _terminal(durably, run))
        assert (await found(durably, run)).status == "failed"
        assert (await durably.jobs.echo.trigger_and_wait(3, timeout=30)).output == 3


async def _terminal(durably: Any, run: Any) -> bool:
    return bool((await found(durably, run)).is_terminal)


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
