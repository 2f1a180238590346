"""The jobs of the walk through the client. They run in a page and on CPython alike."""

from __future__ import annotations

import time

from pydantic import BaseModel

from durably import StepContext, job


class Numbers(BaseModel):
    numbers: list[int]


@job
async def add(step: StepContext, payload: Numbers) -> int:
    total = 0
    for position, number in enumerate(payload.numbers, 1):
        total = await step.run(f"add-{position}", int.__add__, total, number)
        step.progress(position, len(payload.numbers))
    step.log.info("added", {"total": total})
    return total


@job
async def asks(step: StepContext, question: str) -> str:
    """Waits for a person, and says before that it does."""
    step.log.warning(question)
    return str(await step.wait_for_signal("answer"))


@job
async def blocks(step: StepContext, seconds: float) -> None:
    """Lets nothing else happen in a page's Python meanwhile."""
    await step.run("block", time.sleep, seconds)


@job
async def chats(step: StepContext, lines: int) -> None:
    """Says all that it has to say without a pause."""
    for number in range(lines):
        step.log.info(f"line {number}")


@job
async def fails(step: StepContext, text: str) -> None:
    raise ValueError(text)
