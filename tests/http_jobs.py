"""Jobs that the tests of `python -m durably serve` have it execute."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from durably import StepContext, job


@job
async def greet(step: StepContext, payload: str) -> str:
    return await step.run("greet", lambda: f"hello {payload}")


@job
async def holds(step: StepContext, payload: str) -> str:
    """In flight for as long as there is no file of the name `payload`."""
    await step.run("before", lambda: "kept")

    async def look() -> None:
        while not await asyncio.to_thread(Path(payload).exists):
            await asyncio.sleep(0.01)

    await step.run("look", look)
    return "seen"


@job
async def varied(step: StepContext, payload: int) -> int:
    """Says how far it is, and ends well, badly, or when it is cancelled."""
    for n in range(5):
        step.progress(n + 1, 5, "x" * 50)
        await step.run(f"step-{n}", asyncio.sleep, 0.001 * (payload % 5))
    if payload % 5 == 3:
        raise ValueError(f"no luck with {payload}")
    if payload % 5 == 4:
        await step.wait_for_signal("never")
    return payload


@job
async def floods(step: StepContext, payload: int) -> None:
    """Logs as many lines of a thousand letters."""
    for n in range(payload):
        step.log.info(f"{n} " + "x" * 1000)
        if n % 10 == 0:
            await asyncio.sleep(0)


@job
async def takes(step: StepContext, payload: Any) -> None:
    await asyncio.sleep(60)
