"""The job of the torture test: a walk of steps of every kind, each of which passes its result on to the next.

Every execution of a step is written into the ledger, with the run, the step and the worker that executes it, before
anything else is done; so the output is right only if every result was, and what was executed is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import uuid4

from js import XMLHttpRequest
from pydantic import BaseModel
from pyodide.ffi import JsException
from pyodide.http import pyfetch
from pyodide_js import _module as memory

from durably import Retry, StepContext, UserTransaction, job

MODULUS = 1_000_003
WORKER = uuid4().hex[:8]
"""This worker, as the ledger knows it."""
OFFLINE_PAUSE_SECONDS = 0.1
ATTEMPTS = 3
STUMBLED = "stumbled on purpose"


class Op(BaseModel):
    kind: str
    seconds: float = 0
    fails: int = 0
    """How many of its executions are to fail."""
    ops: list[Op] = []
    """Those of a child."""


class Walk(BaseModel):
    ledger: str
    ops: list[Op]
    value: int = 1


@dataclass(frozen=True)
class Visit:
    """One step of a walk."""

    ledger: str
    run: str
    step: str
    number: int
    op: Op

    def result(self, value: int) -> int:
        return (value * 31 + self.number) % MODULUS

    def address(self) -> str:
        told = {"kind": "step", "run": self.run, "step": self.step, "worker": WORKER, "id": uuid4().hex}
        return f"{self.ledger}?{urlencode({**told, 'fails': self.op.fails, 'heap': memory.HEAPU8.length})}"


@job
async def walk(step: StepContext, walk: Walk) -> int:
    value = walk.value
    for number, op in enumerate(walk.ops, 1):
        visit = Visit(walk.ledger, step.run_id, f"{number:02}-{op.kind}", number, op)
        value = await KINDS[op.kind](step, visit, value)
        step.progress(number, len(walk.ops))
    return value


async def by_async_step(step: StepContext, visit: Visit, value: int) -> int:
    return await step.run(visit.step, think, visit, value)


async def think(visit: Visit, value: int) -> int:
    await note(visit)
    await asyncio.sleep(visit.op.seconds)
    return visit.result(value)


async def by_plain_step(step: StepContext, visit: Visit, value: int) -> int:
    return await step.run(visit.step, compute, visit, value)


def compute(visit: Visit, value: int) -> int:
    send(visit)
    end = time.perf_counter() + visit.op.seconds
    while time.perf_counter() < end:
        pass
    return visit.result(value)


async def by_row(step: StepContext, visit: Visit, value: int) -> int:
    return await step.transaction(visit.step, insert, visit, value)


async def insert(tx: UserTransaction, visit: Visit, value: int) -> int:
    """Nothing in the table keeps a row from coming twice."""
    await note(visit)
    await tx.execute("CREATE TABLE IF NOT EXISTS kept (run TEXT, step TEXT)")
    await tx.execute("INSERT INTO kept (run, step) VALUES (?, ?)", [visit.run, visit.step])
    await asyncio.sleep(visit.op.seconds)
    return visit.result(value)


async def by_sleep(step: StepContext, visit: Visit, value: int) -> int:
    await step.sleep(visit.step, visit.op.seconds)
    return visit.result(value)


async def by_signal(step: StepContext, visit: Visit, value: int) -> int:
    await step.wait_for_signal(visit.step, signal="go")
    return visit.result(value)


async def by_child(step: StepContext, visit: Visit, value: int) -> int:
    child = Walk(ledger=visit.ledger, ops=visit.op.ops, value=value)
    run = await step.trigger_and_wait(visit.step, "walk", child)
    return int(run.output)


async def by_stumbling_step(step: StepContext, visit: Visit, value: int) -> int:
    patient = step.with_options(retry=Retry(attempts=ATTEMPTS, delay=0.05, jitter=False))
    return await patient.run(visit.step, stumble, visit, value)


async def stumble(visit: Visit, value: int) -> int:
    if await note(visit) == "fail":
        raise RuntimeError(STUMBLED)
    await asyncio.sleep(visit.op.seconds)
    return visit.result(value)


KINDS: dict[str, Callable[[StepContext, Visit, int], Awaitable[int]]] = {
    "async": by_async_step,
    "plain": by_plain_step,
    "row": by_row,
    "sleep": by_sleep,
    "signal": by_signal,
    "child": by_child,
    "stumble": by_stumbling_step,
}


async def note(visit: Visit) -> str:
    """Tell the ledger, as soon as it can be told, once; its answer."""
    address = visit.address()
    while True:
        try:
            return await (await pyfetch(address, method="POST")).string()
        except OSError:
            await asyncio.sleep(OFFLINE_PAUSE_SECONDS)


def send(visit: Visit) -> None:
    """The same for a plain step."""
    address = visit.address()
    while True:
        request = XMLHttpRequest.new()
        request.open("POST", address, False)
        try:
            request.send()
        except JsException:
            time.sleep(OFFLINE_PAUSE_SECONDS)
        else:
            return
