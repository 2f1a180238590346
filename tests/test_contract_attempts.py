"""API.md section 4: retries and time-outs of steps."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from typing import Any

import pytest
from contract_kit import contract, executed, finished, found, opened, quick, types, until, watched

from durably import DurablyError, NonRetryableError, Retry, RetryAfter, StepContext, StepTimeoutError, define_job, job

pytestmark = pytest.mark.slow


@contract
async def test_an_integer_retry_counts_all_calls() -> None:
    """'`with_options(retry=3)` ...: `attempts` counts all calls, the first included'"""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError(f"call {len(calls)}")

    async def body(step: StepContext, payload: Any) -> Any:
        patient = step.with_options(retry=Retry(attempts=3, delay=0, jitter=False))
        assert isinstance(patient, StepContext)
        assert patient is not step
        assert patient.run_id == step.run_id
        await patient.run("fail", fail)

    durably, _, run = await executed(body)
    assert (run.status, len(calls)) == ("failed", 3)
    assert "call 3" in str(run.error)
    [step] = await durably.get_steps(run.id)
    assert (step.status, step.attempt) == ("failed", 3)

    async def plain(step: StepContext, payload: Any) -> Any:
        step.with_options(retry=5)
        await step.run("fail", fail)

    calls.clear()
    _, _, run = await executed(plain)
    assert len(calls) == 1
    await durably.stop()


@contract
async def test_retry_in_real_time_takes_an_integer() -> None:
    """'`with_options(retry=3)`'"""
    calls: list[int] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) < 2:
            raise OSError("once")
        return "ok"

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.with_options(retry=3).run("fail", fail)

    durably, clock = await opened(":memory:", define_job(name="body", input=Any, run=body))
    run = await durably.jobs.body.trigger(1)
    working = asyncio.ensure_future(durably.process_until_idle())
    await until(lambda: len(calls) == 1)
    for _ in range(40):
        await clock.advance(1)
        if working.done():
            break
        await asyncio.sleep(0.002)
    assert (await finished(durably, run)).output == "ok"
    await durably.stop()


@contract
async def test_retry_events_and_steps_tell_of_each_attempt() -> None:
    """'`step:retry` events carry `attempt` (the one that failed, from 1), `error` and `next_attempt_at`.'"""
    calls: list[int] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(f"call {len(calls)}")
        return "ok"

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.with_options(retry=Retry(attempts=3, delay=0, jitter=False)).run("s", fail)

    async def run_body(step: StepContext, payload: Any) -> Any:
        return await body(step, payload)

    durably, _ = await opened(":memory:", define_job(name="body", input=Any, run=run_body))
    events = watched(durably)
    run = await finished(durably, await durably.jobs.body.trigger(0))
    assert run.output == "ok"
    told = [event for event in events if event.type.startswith("step:")]
    assert types(told, without=("step:start",)) == ["step:retry", "step:retry", "step:complete"]
    retries = [event for event in told if event.type == "step:retry"]
    assert [event.attempt for event in retries] == [1, 2]
    assert all(f"call {n}" in event.error for n, event in enumerate(retries, 1))
    assert all(isinstance(e.next_attempt_at, datetime) and e.next_attempt_at.tzinfo for e in retries)
    assert all((e.step_name, e.step_index) == ("s", 0) for e in told)
    [step] = await durably.get_steps(run.id)
    assert (step.status, step.attempt, step.error) == ("completed", 3, None)
    await durably.stop()


@contract
async def test_retry_anew_starts_the_attempts_anew() -> None:
    """'`retry(run_id)` starts them anew'"""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError("always")

    async def body(step: StepContext, payload: Any) -> Any:
        await step.with_options(retry=Retry(attempts=2, delay=0)).run("fail", fail)

    durably, _, run = await executed(body)
    assert len(calls) == 2
    await durably.retry(run.id)
    assert (await finished(durably, run)).status == "failed"
    assert len(calls) == 4
    await durably.stop()


@contract
async def test_non_retryable_ends_the_attempts_and_other_errors_are_not_tried_again() -> None:
    """'Raising `NonRetryableError` ends the attempts'; '`on=(HTTPError,)`'"""
    calls: list[str] = []
    same_errors: list[bool] = []

    class HTTPError(Exception):
        pass

    class MissingError(HTTPError):
        pass

    def fail(error: Exception) -> None:
        calls.append(str(error))
        raise error

    async def body(step: StepContext, payload: Any) -> Any:
        policy = Retry(attempts=4, delay=0, jitter=False, on=(HTTPError,))
        for name, error in (("a", NonRetryableError("a")), ("b", KeyError("b")), ("c", MissingError("c"))):
            try:
                await step.with_options(retry=policy).run(name, fail, error)
            except Exception as raised:  # noqa: BLE001
                same_errors.append(str(raised) == str(error))

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert same_errors == [True, True, True]
    assert calls == ["a", "'b'", "c", "c", "c", "c"]
    await durably.stop()


@contract
async def test_retry_after_sets_the_next_delay() -> None:
    """'`RetryAfter(seconds)` sets the next delay'"""
    calls: list[int] = []
    clocks: list[Any] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RetryAfter(30)
        return "ok"

    @job
    async def later(step: StepContext, payload: int) -> str:
        return await step.with_options(retry=Retry(attempts=2, delay=1, jitter=False)).run("fail", fail)

    durably, clock = await opened(":memory:", later)
    clocks.append(clock)
    events = watched(durably, "step:retry")
    run = await durably.jobs.later.trigger(1)
    working = asyncio.ensure_future(durably.process_until_idle())
    await until(lambda: events)
    assert (events[0].next_attempt_at - events[0].timestamp).total_seconds() == 30
    await clock.advance(29.9)
    assert len(calls) == 1
    await clock.advance(0.1)
    await until(lambda: len(calls) == 2)
    await working
    assert (await finished(durably, run)).output == "ok"
    await durably.stop()


@pytest.mark.parametrize("bad", [0, -1, -2], ids=str)
@contract
async def test_a_retry_without_a_meaning_is_refused(bad: Any) -> None:
    """'retry: Retry | int | None'; `attempts` counts the first call, so it is at least one."""

    async def body(step: StepContext, payload: Any) -> Any:
        with pytest.raises((ValueError, TypeError)):
            step.with_options(retry=bad)

    _, _, run = await executed(body)
    assert run.status == "completed", run.error


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": 2, "delay": -1}, {"attempts": 2, "backoff": 0}, {"attempts": 2, "max_delay": -1}],
    ids=str,
)
def test_a_policy_without_a_meaning_is_refused(bad: dict[str, Any]) -> None:
    """'Retry(attempts=3, delay=1, backoff=2, max_delay=60, jitter=True, on=(HTTPError,))'"""
    with pytest.raises((ValueError, TypeError)):
        Retry(**bad)


@contract
async def test_an_async_step_past_its_timeout_is_cancelled_and_raises_step_timeout_error() -> None:
    """'`timeout` cancels the step and raises `StepTimeoutError`'"""
    ends: list[str] = []
    caught: list[BaseException] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")

    @job
    async def hurried(step: StepContext, payload: int) -> None:
        try:
            await step.with_options(timeout=0.05).run("slow", slow)
        except StepTimeoutError as error:
            caught.append(error)
            raise

    durably = quick(":memory:", hurried)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.hurried.trigger(1)
    await until(lambda: "run:fail" in types(events))
    assert ends == ["finally"]
    assert isinstance(caught[0], DurablyError)
    assert "slow" in str(caught[0])
    [step] = await durably.get_steps(run.id)
    assert (step.name, step.status) == ("slow", "failed")
    failed = await found(durably, run)
    assert step.error == failed.error
    assert types(events) == ["run:trigger", "run:start", "step:start", "step:fail", "run:fail"]
    assert events[-1].failed_step_name == "slow"
    await durably.stop()


@contract
async def test_a_sync_step_that_runs_on_after_its_timeout_changes_nothing_any_more() -> None:
    """'a sync step that runs on after its timeout: the run always reaches a terminal state with a true record'"""
    go, ended = threading.Event(), threading.Event()

    def slow() -> str:
        go.wait(30)
        ended.set()
        return "too late"

    @job
    async def hurried(step: StepContext, payload: int) -> str:
        return await step.with_options(timeout=0.05).run("slow", slow)

    durably = quick(":memory:", hurried)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.hurried.trigger(1)
    await until(lambda: "run:fail" in types(events))
    go.set()
    await until(ended.is_set)
    await asyncio.sleep(0.03)
    failed = await found(durably, run)
    [step] = await durably.get_steps(run.id)
    assert (failed.status, step.status, step.output) == ("failed", "failed", None)
    assert types(events) == ["run:trigger", "run:start", "step:start", "step:fail", "run:fail"]
    await durably.stop()


@contract
async def test_a_timeout_is_tried_again_like_any_error() -> None:
    """'timeout' and 'retry' together: each attempt has its own time."""
    calls: list[int] = []

    async def slow() -> str:
        calls.append(1)
        if len(calls) < 3:
            await asyncio.sleep(30)
        return "ok"

    @job
    async def hurried(step: StepContext, payload: int) -> str:
        return await step.with_options(timeout=0.04, retry=Retry(attempts=3, delay=0)).run("slow", slow)

    async with quick(":memory:", hurried) as durably:
        assert (await durably.jobs.hurried.trigger_and_wait(1, timeout=30)).output == "ok"
    assert len(calls) == 3
