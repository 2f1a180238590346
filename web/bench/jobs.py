"""The jobs that are measured, in the browser and on CPython alike. Moments are milliseconds, on one clock a browser."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from time import perf_counter

from pydantic import BaseModel

from durably import StepContext, UserTransaction, job

if sys.platform == "emscripten":
    from js import BroadcastChannel, performance
    from pyodide_js import _module


def now() -> float:
    """The present moment: in a browser the page's clock and the worker's are one."""
    if sys.platform == "emscripten":
        return float(performance.timeOrigin + performance.now())
    return 1000 * perf_counter()


def memory() -> int:
    """Bytes of the memory that the browser has given to Python; elsewhere 0."""
    return int(_module.HEAPU8.length) if sys.platform == "emscripten" else 0


def tell(*moments: float) -> None:
    """Tell the page, which need not listen to the engine's events meanwhile; on CPython `told` has it."""
    if sys.platform == "emscripten":
        channel = BroadcastChannel.new("bench")
        channel.postMessage(json.dumps(moments))
        channel.close()
    else:
        told.append(moments)


told: list[tuple[float, ...]] = []


class Work(BaseModel):
    steps: int = 1
    pause: float = 0.0
    """Seconds that a step takes."""


async def give(number: int) -> int:
    """A step that costs nothing."""
    return number


@job
async def steps(step: StepContext, work: Work) -> None:
    """So many steps; tells when it began and ended."""
    began = now()
    for number in range(work.steps):
        await step.run(f"step-{number}", give, number)
    tell(began, now())


@job
async def one(step: StepContext, work: Work) -> float:
    """A run with one step; the moment of its first line, which it tells, too."""
    began = now()
    await step.run("only", give, 1)
    tell(began)
    return began


@job
async def single(step: StepContext, work: Work) -> int:
    """A run with one step, which tells nothing."""
    return await step.run("only", give, 1)


class CachedError(Exception):
    """What `cached` ends with, so that it can be retried."""


@job
async def cached(step: StepContext, work: Work) -> None:
    """As `steps`, and then a failure; when it is retried all of them are stored."""
    began = now()
    for number in range(work.steps):
        await step.run(f"step-{number}", give, number)
    tell(began, now())
    raise CachedError


@job
async def long(step: StepContext, work: Work) -> list[tuple[float, int]]:
    """At each tenth of the steps the moment, and the memory."""
    marks = [(now(), memory())]
    for number in range(work.steps):
        await step.run(f"step-{number}", give, number)
        if (number + 1) % (work.steps // 10) == 0:
            marks.append((now(), memory()))
    tell()
    return marks


first: list[Callable[[float], None]] = [tell]
"""What the first step calls; it takes it away."""


async def slow(pause: float) -> None:
    """A step that takes its time. The first one since Python was started says when it began."""
    if first:
        first.pop()(now())
    await asyncio.sleep(pause)


@job
async def endless(step: StepContext, work: Work) -> None:
    """Steps, until somebody ends the page."""
    for number in range(work.steps):
        await step.run(f"step-{number}", slow, work.pause)


FINISHED_RUNS = """
INSERT INTO durably_runs
  (id, job_name, status, payload, output, current_step_index, completed_step_count, generation,
   run_at, created_at, updated_at, started_at, completed_at)
WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
SELECT printf('00%024d', n), 'one', 'completed', '{}', '1', 0, 1, 1, n, n, n, n, n FROM numbers
"""
FINISHED_STEPS = """
INSERT INTO durably_steps (run_id, name, step_index, status, output, attempt, started_at, completed_at)
SELECT id, 'only', 0, 'completed', '1', 1, started_at, completed_at FROM durably_runs WHERE id LIKE '00%'
"""


@job
async def fill(step: StepContext, work: Work) -> int:
    """Put so many finished runs into the file, with a step each."""
    return await step.transaction("fill", insert, work.steps)


async def insert(tx: UserTransaction, runs: int) -> int:
    """Write them as the engine leaves them behind."""
    await tx.execute(FINISHED_RUNS, [runs])
    await tx.execute(FINISHED_STEPS)
    return runs
