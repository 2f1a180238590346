"""What the contract tests share. They see the library as a stranger does: `durably` and `durably.testing` only."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from durably import Durably, LeaseLostError, Run, StepContext, create_durably, define_job, job
from durably.testing import ManualClock

LIMIT_SECONDS = 60


def contract(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test to its end, in a loop of its own; a test that hangs is a test that fails."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(LIMIT_SECONDS):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def opened(database: Any = ":memory:", *jobs: Any, **options: Any) -> tuple[Durably, ManualClock]:
    """A migrated instance whose time stands still, and no worker: runs are executed by `process_*`."""
    clock = options.pop("clock", None) or ManualClock()
    durably = create_durably(database, jobs=list(jobs), clock=clock, **options)
    await durably.migrate()
    return durably, clock


def quick(database: Any = ":memory:", *jobs: Any, **options: Any) -> Durably:
    """An instance in real time that polls often."""
    options.setdefault("polling_interval", 0.02)
    return create_durably(database, jobs=list(jobs), **options)


async def found(durably: Durably, run: Run[Any] | str) -> Run[Any]:
    again = await durably.get_run(run if isinstance(run, str) else run.id)
    assert again is not None
    return again


async def finished(durably: Durably, run: Run[Any]) -> Run[Any]:
    """Execute what is due and read `run` again."""
    await durably.process_until_idle()
    return await found(durably, run)


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait in real time until `condition()`, which may be async, is true."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.003)


async def moved(durably: Durably, clock: ManualClock, span: float | timedelta) -> None:
    await clock.advance(span)
    await durably.process_until_idle()


def watched(durably: Durably, pattern: str = "*") -> list[Any]:
    """The list that every later event is put in."""
    events: list[Any] = []
    durably.on(pattern, events.append)
    return events


def types(events: list[Any], *, without: tuple[str, ...] = ()) -> list[str]:
    return [str(event.type) for event in events if event.type not in without]


def body_job(body: Callable[..., Awaitable[Any]], name: str = "body", **options: Any) -> Any:
    """A job of any payload that does `body(step, payload)`."""

    async def run(step: StepContext, payload: Any) -> Any:
        return await body(step, payload)

    return define_job(name=name, input=Any, run=run, **options)


async def executed(
    body: Callable[..., Awaitable[Any]], payload: Any = 0, **options: Any
) -> tuple[Durably, ManualClock, Run[Any]]:
    """Run `body(step, payload)` once as a job of its own."""
    durably, clock = await opened(":memory:", body_job(body), **options)
    return durably, clock, await finished(durably, await durably.jobs.body.trigger(payload))


ENDS = {"completed": "run:complete", "failed": "run:fail", "cancelled": "run:cancel"}
STEP_ENDS = {"step:complete": "completed", "step:fail": "failed", "step:cancel": "cancelled"}


async def agree(durably: Durably, run: Run[Any], events: list[Any]) -> None:
    """The event stream, the run's row and its steps say the same of a run that has ended: nothing comes after the
    end, every step that began has ended, and each has a row that says how. (What `step.now()` and its kin note has a
    row and no events.)"""
    row = await found(durably, run)
    mine = [event for event in events if event.run_id == run.id]
    assert [kind for kind in types(mine) if kind in ENDS.values()] == [ENDS[row.status]], types(mine)
    assert types(mine)[-1] == ENDS[row.status], types(mine)
    assert [event.sequence for event in mine] == sorted({event.sequence for event in mine})
    assert row.completed_at is not None
    assert (row.waiting_for, row.worker_id) == (None, None)
    told = {event.step_name: event.type for event in mine if event.type.startswith("step:")}
    steps = {step.name: step.status for step in await durably.get_steps(run.id)}
    noted = {name: status for name, status in steps.items() if name.startswith("durably:")}
    assert {name: STEP_ENDS.get(kind, kind) for name, kind in told.items()} | noted == steps, types(mine)
    assert row.completed_step_count == list(steps.values()).count("completed")


@job(name="echo")
async def echo(step: StepContext, payload: int) -> int:
    return payload


class BrokenStrError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str either")


class EmptyError(Exception):
    pass


class NotTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # which is what it is for


class EqualsNothing(BaseException):
    pass


AWKWARD: dict[str, Callable[[], BaseException]] = {
    "surrogate": lambda: ValueError("lone \ud800 here"),
    "nul": lambda: ValueError("a\x00b"),
    "broken str": BrokenStrError,
    "empty": EmptyError,
    "not text": NotTextError,
    "long": lambda: ValueError("x" * 3_000_000),
    "stray cancelled": lambda: asyncio.CancelledError("nobody asked"),
    "group": lambda: ExceptionGroup("many", [ValueError("a"), KeyError("b")]),
    "stop iteration": lambda: StopIteration(3),
    "stop async": lambda: StopAsyncIteration(3),
    "generator exit": GeneratorExit,
    "system exit": lambda: SystemExit(3),
    "base": lambda: EqualsNothing("base"),
    "timeout": lambda: TimeoutError("mine"),
    "lease": lambda: LeaseLostError("of another run"),
    "invalid state": asyncio.InvalidStateError,
}


def awkward_error(kind: str) -> BaseException:
    return AWKWARD[kind]()


LEFT_OUT = {("generator exit", "sync step")}
"""A `GeneratorExit` from a thread is left out: a future that carries one ends the coroutine which awaits it as if the
interpreter were closing it, and nothing can be awaited after that."""


async def ends_truly(kind: str, where: str) -> None:
    """A run that ends as `AWKWARD[kind]` says, `where` it says, is failed: row, steps and events agree."""

    def fail() -> None:
        raise awkward_error(kind)

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise awkward_error(kind)

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("before", lambda: 1)
        if where == "job":
            raise awkward_error(kind)
        await step.run("fail", fail if where == "sync step" else fail_later)

    @job
    async def awkward(step: StepContext, payload: int) -> None:
        await body(step, payload)

    durably, _ = await opened(":memory:", awkward, echo)
    events = watched(durably)
    run = await durably.jobs.awkward.trigger(1)
    await asyncio.wait_for(durably.process_until_idle(), 30)
    failed = await found(durably, run)
    assert failed.status == "failed", failed
    assert isinstance(failed.error, str)
    assert failed.error.strip()
    failed.error.encode()
    kept = {s.name: s.status for s in await durably.get_steps(run.id)}
    assert kept.pop("before") == "completed"
    if where != "job":
        assert kept == {"fail": "failed"}
        assert types(events)[-2:] == ["step:fail", "run:fail"]
        assert events[-1].failed_step_name == "fail"
        assert events[-2].error == events[-1].error == failed.error
    else:
        assert types(events)[-1] == "run:fail"
        assert events[-1].failed_step_name is None
    wanted = {"surrogate": "here", "nul": "b", "group": "a", "timeout": "mine", "base": "base"}.get(kind, "")
    assert wanted in failed.error
    assert (await finished(durably, await durably.jobs.echo.trigger(1))).output == 1
    await durably.stop()
