"""The jobs of the browser tests. Each execution of a step is written into the test's ledger before anything else.

A step's result goes into the next step, so that an output is right only if every result was.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from time import perf_counter

from js import XMLHttpRequest
from pydantic import BaseModel
from pyodide.http import pyfetch

from durably import Retry, StepContext, StepTimeoutError, UserTransaction, job

MODULUS = 1_000_003
HEAP_SIZE = 2_000_000


class Work(BaseModel):
    ledger: str
    steps: int = 20
    seconds: float = 0.05
    """How long each async step takes."""
    busy: float = 0
    """How long the plain step of `think` takes, in seconds."""
    in_c: bool = False
    """Whether `never_ends` is busy in code where nothing can interrupt it."""


@job
async def chain(step: StepContext, work: Work) -> int:
    """Async steps."""
    value = 1
    for number in range(1, work.steps + 1):
        name = f"step-{number:02}"
        value = await step.run(name, link, work, name, number, value)
        step.progress(number, work.steps)
    return value


async def link(work: Work, name: str, number: int, value: int) -> int:
    await note(work.ledger, name)
    await asyncio.sleep(work.seconds)
    return (value * 31 + number) % MODULUS


@job
async def think(step: StepContext, work: Work) -> int:
    """A plain step, which keeps the whole worker busy, between async ones."""
    before = await step.run("before", link, work, "before", 1, 1)
    thought = await step.run("think", compute, work, before)
    return await step.run("after", link, work, "after", 3, thought)


def compute(work: Work, value: int) -> int:
    send(work.ledger, "think")
    end = perf_counter() + work.busy
    while perf_counter() < end:
        pass
    return (value * 31 + 2) % MODULUS


@job
async def never_ends(step: StepContext, work: Work) -> int:
    """A plain step without an end, after an async one."""
    before = await step.run("before", link, work, "before", 1, 1)
    return await step.run("loop", loop, work, before)


def loop(work: Work, value: int) -> int:
    send(work.ledger, "loop")
    if work.in_c:
        sum(range(10**15))
    while True:
        value += 1


@job
async def thinks_at_once(step: StepContext, work: Work) -> int:
    """The plain step of `think`, with nothing before it."""
    return await step.run("think", compute, work, 1)


@job
async def gives_up(step: StepContext, work: Work) -> str:
    """A plain step without an end, which has half a second, twice."""
    try:
        in_time = step.with_options(timeout=0.5, retry=Retry(attempts=2, delay=0.01))
        await in_time.run("loop", loop, work, 1)
    except StepTimeoutError as error:
        return await step.run("give-up", str, error)
    return "it ended"


@job(timeout=1)
async def is_given_up(step: StepContext, work: Work) -> int:
    """A plain step without an end, in a job that has a second."""
    return await step.run("loop", loop, work, 1)


@job
async def naps(step: StepContext, work: Work) -> str:
    """Sleeps durably."""
    await note(work.ledger, "asleep")
    await step.sleep("nap", work.seconds)
    await note(work.ledger, "awake")
    return "rested"


@job
async def is_stubborn(step: StepContext, work: Work) -> None:
    """An async step that does not let itself be cancelled."""
    await step.run("stays", stay, work)


async def stay(work: Work) -> None:
    await note(work.ledger, "stays")
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)


@job
async def breaks_its_tab(step: StepContext, work: Work) -> int:
    """A step that ends the worker as a lack of memory does."""
    before = await step.run("before", link, work, "before", 1, 1)
    return await step.run("break", break_down, work, before)


def break_down(work: Work, value: int) -> int:
    send(work.ledger, "break")
    json.loads("[" * 100_000)  # overflows the stack of the worker, and not only Python's
    return value


@job
async def asks(step: StepContext, work: Work) -> str:
    """Waits for a person."""
    await note(work.ledger, "asks")
    return str(await step.wait_for_signal("answer"))


@job
async def keep_rows(step: StepContext, work: Work) -> list[int]:
    """Transactions that write into a table, in which nothing keeps a row from coming twice."""
    for number in range(1, work.steps + 1):
        await step.transaction(f"row-{number:02}", insert, work, f"row-{number:02}", number)
    return await step.transaction("rows", rows, work)


async def insert(tx: UserTransaction, work: Work, name: str, number: int) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER)")
    await tx.execute("INSERT INTO kept (number) VALUES (?)", [number])
    await note(work.ledger, name)
    await asyncio.sleep(work.seconds)


async def rows(tx: UserTransaction, work: Work) -> list[int]:
    await note(work.ledger, "rows")
    return [row["number"] for row in await tx.execute("SELECT number FROM kept ORDER BY rowid")]


@job
async def hoard(step: StepContext, work: Work) -> int:
    """Steps with results of megabytes."""
    return sum([len(await step.run(name, heap, work, name)) for name in map("heap-{}".format, range(work.steps))])


async def heap(work: Work, name: str) -> bytes:
    await note(work.ledger, name)
    await asyncio.sleep(work.seconds)
    return bytes(HEAP_SIZE)


async def note(ledger: str, name: str) -> None:
    await pyfetch(f"{ledger}?step={name}", method="POST")


def send(ledger: str, name: str) -> None:
    """The same for a plain step."""
    request = XMLHttpRequest.new()
    request.open("POST", f"{ledger}?step={name}", False)
    request.send()
