"""API.md section 4: steps side by side, through `asyncio.gather` and `TaskGroup`."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from contract_kit import (
    agree,
    body_job,
    contract,
    executed,
    finished,
    found,
    moved,
    opened,
    quick,
    types,
    until,
    watched,
)

from durably import Retry, StepContext

pytestmark = pytest.mark.slow


@contract
async def test_gathered_steps_run_at_once_and_each_is_a_checkpoint() -> None:
    """'`asyncio.gather` over several `step.run` is supported; each is its own checkpoint.'"""
    going = peak = 0
    calls: collections.Counter[int] = collections.Counter()
    broken = True

    async def work(n: int) -> int:
        nonlocal going, peak
        calls[n] += 1
        going += 1
        peak = max(peak, going)
        await asyncio.sleep(0.01)
        going -= 1
        if n == 3 and broken:
            raise ValueError("three")
        return n * n

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(*(step.run(f"n{n}", work, n) for n in range(8)), return_exceptions=not payload)

    durably, _, run = await executed(body, True)
    assert (run.status, peak) == ("failed", 8)
    await until(lambda: going == 0)
    assert "three" in str(run.error)
    kept = {s.name: s.status for s in await durably.get_steps(run.id)}
    assert kept["n3"] == "failed"
    assert "started" not in kept.values()
    assert "running" not in kept.values()
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert done.output == [n * n for n in range(8)]
    assert all(calls[n] == 1 for n in range(8) if kept.get(f"n{n}") == "completed")
    await durably.stop()


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("kind", ["async", "plain", "transaction"])
@contract
async def test_a_line_has_the_name_of_the_step_that_wrote_it(kind: str, timeout: float | None) -> None:
    """'`log:write` level, message, data, step_name': its own, whichever began last."""
    begun = 0
    all_begun, all_begun_here = asyncio.Event(), threading.Event()

    def begin() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            all_begun.set()
            all_begun_here.set()

    async def later(step: StepContext, name: str) -> None:
        begin()
        await all_begun.wait()
        step.log.info(name)
        await asyncio.create_task(further(step, name))
        await asyncio.to_thread(step.log.info, name)

    async def further(step: StepContext, name: str) -> None:
        step.log.info(name)

    def plain(step: StepContext, name: str) -> None:
        begin()
        all_begun_here.wait(30)
        step.log.info(name)

    async def write(tx: Any, step: StepContext, name: str) -> None:
        step.log.info(name)

    async def body(step: StepContext, payload: Any) -> None:
        limited = step.with_options(timeout=timeout)
        names = ["a", "b", "c"]
        if kind == "transaction":
            await asyncio.gather(*(limited.transaction(name, write, step, name) for name in names))
        else:
            fn: Any = later if kind == "async" else plain
            await asyncio.gather(*(limited.run(name, fn, step, name) for name in names))

    durably, _ = await opened(":memory:", body_job(body))
    logs = watched(durably, "log:write")
    done = await finished(durably, await durably.jobs.body.trigger(0))
    assert done.status == "completed", done.error
    assert collections.Counter(e.step_name for e in logs) == dict.fromkeys("abc", 3 if kind == "async" else 1)
    assert [e.step_name for e in logs] == [e.message for e in logs]
    await durably.stop()


@contract
async def test_a_line_of_the_job_has_no_step_and_one_around_a_step_the_outer() -> None:
    """Whatever is at work beside it: a step in the background, one that is attempted again, another run."""
    go, left_go = asyncio.Event(), asyncio.Event()
    left: list[asyncio.Task[None]] = []

    async def body(step: StepContext, payload: Any) -> None:
        if payload == "child":
            await step.run("outer", lambda: step.log.info("outer"))
            step.log.info("None")
            return

        async def leave() -> None:
            await left_go.wait()
            step.log.info("None")

        async def outer() -> None:
            step.log.info("outer")
            await step.run("inner", lambda: step.log.info("inner"))
            step.log.info("outer")
            left.append(asyncio.create_task(leave()))
            await durably.jobs.body.trigger("child")
            if len(left) == 1:
                raise ValueError("again")

        async def outer_again() -> None:
            step.log.info("again")
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("again")

        calls: list[int] = []
        background = asyncio.create_task(step.run("background", go.wait))
        await asyncio.sleep(0.01)
        step.log.info("None")
        with pytest.raises(ValueError, match="again"):
            await step.run("outer", outer)
        step.log.info("None")
        left_go.set()
        await left[0]
        await step.with_options(retry=Retry(attempts=2, delay=0.01)).run("again", outer_again)
        step.log.info("None")
        go.set()
        await background
        step.log.info("None")

    async with quick(":memory:", body_job(body), max_concurrent_runs=2) as durably:
        logs = watched(durably, "log:write")
        await durably.jobs.body.trigger_and_wait("parent", timeout=30)
        await until(lambda: len(logs) == 12)
    assert [str(e.step_name) for e in logs] == [e.message for e in logs]


@contract
async def test_what_finished_before_a_sibling_failed_stays_finished() -> None:
    """'the checkpoints of those that finished stay'"""
    calls: list[str] = []
    fast = asyncio.Event()
    broken = True

    async def quickly() -> str:
        calls.append("quickly")
        fast.set()
        return "q"

    async def failing() -> str:
        calls.append("failing")
        await fast.wait()
        await asyncio.sleep(0.02)
        if broken:
            raise ValueError("no")
        return "f"

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(step.run("quickly", quickly), step.run("failing", failing))

    durably, _, run = await executed(body)
    assert {s.name: s.status for s in await durably.get_steps(run.id)} == {"quickly": "completed", "failing": "failed"}
    broken = False
    await durably.retry(run.id)
    assert (await finished(durably, run)).output == ["q", "f"]
    assert calls == ["quickly", "failing", "failing"]
    await durably.stop()


@contract
async def test_a_task_group_cancels_the_siblings_of_a_failing_step() -> None:
    """'Parallel steps through `asyncio.gather` and `TaskGroup`; a failing one does to its siblings what asyncio
    does there; the checkpoints of those that finished stay.'"""
    ends: list[str] = []
    broken = True

    async def long() -> str:
        if not broken:
            return "long"
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")
        return "never"

    async def fail() -> str:
        await asyncio.sleep(0.02)
        if broken:
            raise ValueError("group member")
        return "fine"

    async def body(step: StepContext, payload: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(step.run("done", lambda: "done")),
                group.create_task(step.run("long", long)),
                group.create_task(step.run("fail", fail)),
            ]
        return [task.result() for task in tasks]

    durably, _, run = await executed(body)
    events = watched(durably)
    assert run.status == "failed"
    assert "group member" in str(run.error)
    assert ends == ["finally"]
    kept = {s.name: s.status for s in await durably.get_steps(run.id)}
    assert kept["done"] == "completed"
    assert kept["fail"] == "failed"
    assert kept["long"] == "cancelled"
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", ["done", "long", "fine"])
    assert types(events).count("step:start") == 2
    await durably.stop()


@pytest.mark.parametrize("sibling", ["step", "sleep", "signal", "child"])
@pytest.mark.parametrize("end", ["fails", "completes"])
@contract
async def test_a_step_that_its_job_leaves_behind_is_cancelled_before_the_run_is_told_to_have_ended(
    sibling: str, end: str
) -> None:
    """'What happened is what the event stream, the run row and the steps say, all three': nothing after the end, and a
    row for every step that began."""
    here = asyncio.Event()

    async def long() -> None:
        here.set()
        await asyncio.sleep(30)

    async def waits(step: StepContext, payload: Any) -> None:
        await step.wait_for_signal("never")

    async def body(step: StepContext, payload: Any) -> None:
        left: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "step": lambda: step.run("left", long),
            "sleep": lambda: step.sleep("left", 1000),
            "signal": lambda: step.wait_for_signal("left"),
            "child": lambda: step.trigger_and_wait("left", "waits", 1),
        }
        task = asyncio.create_task(left[sibling]())
        await until(lambda: "step:start" in types([e for e in events if getattr(e, "step_name", "") == "left"]))
        await step.run("last", lambda: 1 / (end == "completes"))
        assert not task.done()

    async with quick(":memory:", body_job(body), body_job(waits, "waits")) as durably:
        events = watched(durably)
        run = await durably.jobs.body.trigger(1)
        await until(lambda: {"run:complete", "run:fail"} & set(types([e for e in events if e.run_id == run.id])))
    await agree(durably, run, events)
    assert {step.name: step.status for step in await durably.get_steps(run.id)}["left"] == "cancelled"


@contract
async def test_sleeps_and_signals_may_wait_side_by_side() -> None:
    """Parallel waits: the run waits until all of them are over, without a slot."""

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(
            step.sleep("an-hour", 3600),
            step.sleep("two-hours", 7200),
            step.wait_for_signal("go"),
            step.run("s", lambda: 4),
        )

    durably, clock, run = await executed(body)
    assert (await found(durably, run)).waiting_for is not None
    await moved(durably, clock, 3600)
    await durably.signal(run.id, "go", "payload")
    await moved(durably, clock, 3599)
    assert not (await found(durably, run)).is_terminal
    await moved(durably, clock, 1)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", [None, None, "payload", 4])
    await durably.stop()
