"""In PyScript's worker: the job, and what the page may ask of it."""

import asyncio
import json
from math import isqrt

from durably import Event, StepContext, create_durably, job

BLOCK = 2_000_000
PAUSE_SECONDS = 0.1  # so that there is time to reload the page


@job
async def count_primes(step: StepContext, blocks: int) -> int:
    total = 0
    for number in range(blocks):
        total += await step.run(f"block-{number + 1}", count_block, number)
        step.progress(number + 1, blocks)
    return total


async def count_block(number: int) -> int:
    await asyncio.sleep(PAUSE_SECONDS)
    return primes_between(number * BLOCK, (number + 1) * BLOCK)


def primes_between(low: int, high: int) -> int:
    """How many primes there are from `low` up to, not including, `high`."""
    is_prime = bytearray([1]) * (high - low)
    if low == 0:
        is_prime[:2] = b"\0\0"
    for factor in small_primes(isqrt(high)):
        first = max(factor * factor, -(-low // factor) * factor)
        is_prime[first - low :: factor] = bytes(len(range(first, high, factor)))
    return is_prime.count(1)


def small_primes(largest: int) -> list[int]:
    is_prime = bytearray([1]) * (largest + 1)
    for factor in range(2, isqrt(largest) + 1):
        if is_prime[factor]:
            is_prime[factor * factor :: factor] = bytes(len(range(factor * factor, largest + 1, factor)))
    return [number for number in range(2, largest + 1) if is_prime[number]]


durably = create_durably("primes.sqlite3", jobs=[count_primes])
changes = 0
changed = asyncio.Event()


def note(_event: Event) -> None:
    """Something happened, in whichever tab."""
    global changes
    changes += 1
    changed.set()


# -- What the page may call. Without SharedArrayBuffer Python cannot reach from here into the page, so the page asks.


async def begin() -> None:
    """Open the database; what is unfinished goes on by itself."""
    durably.on("*", note)
    await durably.init()


async def news(known: int) -> str:
    """The newest run and what its steps gave, as JSON, once there is more to tell than at change number `known`."""
    while changes == known:
        changed.clear()
        await changed.wait()
    number = changes
    runs = await durably.get_runs(limit=1)
    if not runs:
        return json.dumps({"changes": number, "run": None})
    [run] = runs
    done = [step.output for step in await durably.get_steps(run.id) if step.status == "completed"]
    facts = {"id": run.id, "status": run.status, "of": run.payload, "output": run.output, "error": run.error}
    return json.dumps({"changes": number, "run": {**facts, "blocks": done}})


async def count(blocks: int) -> None:
    """Begin, unless a run is under way: in another tab, say."""
    if not await durably.get_runs(status=["pending", "running"]):
        await durably.jobs.count_primes.trigger(blocks)


async def cancel(run_id: str) -> None:
    await durably.cancel(run_id)


__export__ = ["begin", "cancel", "count", "news"]
