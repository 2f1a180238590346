"""Claims come in batches: a hundred slots do not cost a hundred questions, and a batch keeps every rule of a claim."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from durably import RunStatus, StepContext, Trigger, create_durably, job
from durably.clock import to_datetime
from durably.databases.sqlite import SQLiteDatabase
from durably.testing import FaultyDatabase, ManualClock

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, found, moved, until, watched = (
    kit.contract, kit.opened, kit.found, kit.moved, kit.until, kit.watched,
)  # fmt: skip

T = TypeVar("T")


class CountingDatabase(FaultyDatabase):
    """Never fails; its `calls` are the batches that were sent."""

    def claims(self) -> int:
        return sum("generation = generation + 1" in call for call in self.calls)


class InPlaceDatabase(SQLiteDatabase):
    """Answers without a turn of the loop, as the one in a browser does: much may happen between two of them."""

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return work()


@pytest.mark.parametrize("number", [100, 1000])
@contract
async def test_a_hundred_pending_runs_are_claimed_in_one_batch(number: int) -> None:
    """`max_concurrent_runs` from 1 to 1,000: what fills the slots is one claim, whatever their number."""
    running, go = 0, asyncio.Event()
    all_run = asyncio.Event()

    @job
    async def waits(step: StepContext, payload: int) -> int:
        nonlocal running
        running += 1
        if running == number:
            all_run.set()
        await go.wait()
        return payload

    database = CountingDatabase()
    durably = create_durably(database, jobs=[waits], max_concurrent_runs=number, clock=ManualClock())
    await durably.migrate()
    runs = await durably.jobs.waits.batch_trigger(range(number))
    database.calls.clear()
    durably.start()
    await all_run.wait()
    assert database.claims() <= 2
    # One batch to look, one to claim, and each run reads its steps.
    assert len(database.calls) <= number + 6
    go.set()
    await durably.stop()
    assert {run.status for run in await durably.get_runs()} == {RunStatus.COMPLETED}
    assert len(runs) == number
    assert database.claims() <= 3 + number // 10, "ending runs wake the worker together, not one by one"


@contract
async def test_a_batch_takes_the_first_runs_by_priority_then_moment_then_age() -> None:
    begun: list[str] = []

    @job
    async def notes(step: StepContext, payload: str) -> None:
        begun.append(payload)
        await asyncio.sleep(0)

    durably, clock = await opened(":memory:", notes, max_concurrent_runs=3)
    now = to_datetime(clock.now())
    await durably.jobs.notes.batch_trigger(
        [
            Trigger("low", priority=-1),
            Trigger("plain"),
            Trigger("later", run_at=now + timedelta(seconds=5), priority=9),
            Trigger("younger"),
            Trigger("earlier moment", run_at=now - timedelta(seconds=5)),
            Trigger("high", priority=5),
        ]
    )
    durably.start()
    await until(lambda: len(begun) == 5)
    assert begun == ["high", "earlier moment", "plain", "younger", "low"]
    await durably.stop()
    await clock.advance(5)
    await durably.process_until_idle()
    assert begun[-1] == "later"
    await durably.stop()


@contract
async def test_a_batch_never_takes_two_runs_with_one_key_and_takes_the_first_of_each() -> None:
    """Also across jobs, and with runs that are not due or unknown to the worker ahead of them in the queue."""
    at_once: dict[str, int] = {}
    most: dict[str, int] = {}
    order: list[str] = []

    async def enter(payload: str) -> None:
        key = payload.split("-")[0]
        at_once[key] = at_once.get(key, 0) + 1
        most[key] = max(most.get(key, 0), at_once[key])
        order.append(payload)
        await asyncio.sleep(0)
        at_once[key] -= 1

    @job
    async def one(step: StepContext, payload: str) -> None:
        await step.run("enter", enter, payload)

    @job
    async def two(step: StepContext, payload: str) -> None:
        await step.run("enter", enter, payload)

    @job
    async def unknown(step: StepContext, payload: str) -> None:
        """Registered where it is triggered, and not with the worker."""

    database = CountingDatabase()
    clock = ManualClock()
    elsewhere = create_durably(database, jobs=[unknown], clock=clock)
    durably = create_durably(database, jobs=[one, two], max_concurrent_runs=50, clock=clock)
    await durably.migrate()
    await elsewhere.jobs.unknown.trigger("a-unknown", concurrency_key="a", priority=99)
    await durably.jobs.one.trigger("b-later", concurrency_key="b", delay=60, priority=99)
    for number in range(5):
        for key in "abc":
            await durably.jobs[("one", "two")[number % 2]].trigger(
                f"{key}-{number}", concurrency_key=key, priority=int(number == 4)
            )
    durably.start()
    await until(lambda: len(order) == 15)
    await durably.stop()
    assert most == {"a": 1, "b": 1, "c": 1}
    for key in "abc":
        assert [name for name in order if name[0] == key] == [f"{key}-{n}" for n in (4, 0, 1, 2, 3)]


@contract
async def test_a_wait_for_something_that_has_come_costs_one_claim() -> None:
    """A run that is claimed again looks before it may be parked again; else each wake-up would be paid twice."""

    @job
    async def child(step: StepContext, payload: int) -> int:
        return payload

    @job
    async def parent(step: StepContext, payload: int) -> Any:
        value = (await step.trigger_and_wait("child", child, 5)).output
        await step.sleep("nap", 10)
        return [value, await step.wait_for_signal("bell")]

    durably, clock = await opened(":memory:", parent, child)
    run = await durably.jobs.parent.trigger(1)
    await durably.process_until_idle()
    assert (await found(durably, run)).generation == 2
    await moved(durably, clock, 10)
    assert (await found(durably, run)).generation == 3
    await durably.signal(run.id, "bell", "ding")
    await durably.process_until_idle()
    done = await found(durably, run)
    assert (done.generation, done.output) == (4, [5, "ding"])
    await durably.stop()


@pytest.mark.parametrize("backend", [SQLiteDatabase, InPlaceDatabase])
@contract
async def test_the_next_run_is_claimed_by_the_commit_that_ends_one(backend: type[SQLiteDatabase]) -> None:
    """With one slot a run of one step costs two commits and no look; the order is that of any claim."""
    executed = []

    @job
    async def tiny(step: StepContext, payload: int) -> int:
        executed.append(payload)
        return await step.run("only", same, payload)

    async def same(payload: int) -> int:
        return payload

    database = CountingDatabase(backend(":memory:"))
    durably = create_durably(database, jobs=[tiny], max_concurrent_runs=1, clock=ManualClock())
    await durably.migrate()
    # Two of three share a key, which the commit that ends the one before them frees.
    await durably.jobs.tiny.batch_trigger(
        [Trigger(n, concurrency_key=f"key-{n // 3}" if n % 3 else None, priority=-(n % 5)) for n in range(40)]
    )
    database.calls.clear()
    durably.start()
    await until(lambda: len(executed) == 40)
    await durably.stop()
    assert executed == sorted(range(40), key=lambda n: (n % 5, n))
    assert {run.status for run in await durably.get_runs()} == {RunStatus.COMPLETED}
    writes = [call for call in database.calls if "UPDATE" in call]
    assert len(writes) <= 2 * 40 + 2
    assert len(database.calls) - len(writes) <= 6, "looks are made at the beginning and at the end"


@contract
async def test_what_is_stopped_claims_no_next_run() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @job
    async def held(step: StepContext, payload: int) -> int:
        begun.set()
        await go.wait()
        return payload

    durably = create_durably(":memory:", jobs=[held], max_concurrent_runs=1, clock=ManualClock())
    await durably.migrate()
    runs = await durably.jobs.held.batch_trigger(range(3))
    durably.start()
    await begun.wait()
    stopping = asyncio.ensure_future(durably.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert [(await found(durably, run.id)).status for run in runs] == ["completed", "pending", "pending"]


@contract
async def test_a_run_claimed_by_hand_brings_no_other_with_it() -> None:
    @job
    async def tiny(step: StepContext, payload: int) -> int:
        return payload

    durably = create_durably(":memory:", jobs=[tiny], clock=ManualClock())
    await durably.migrate()
    await durably.jobs.tiny.batch_trigger(range(3))
    assert await durably.process_one()
    assert len(await durably.get_runs(status="completed")) == 1
    await durably.stop()


@contract
async def test_the_commit_that_stores_a_run_claims_it_where_there_is_room() -> None:
    """And its events come in the order in which all others come: it was triggered before it began."""

    @job
    async def tiny(step: StepContext, payload: int) -> int:
        return payload

    database, types, clock = CountingDatabase(), [], ManualClock()
    durably = create_durably(database, jobs=[tiny], clock=clock, max_concurrent_runs=2)
    durably.on("*", lambda event: types.append(event.type))
    async with durably:
        await durably.jobs.tiny.trigger_and_wait(1)  # before its first run a worker has to show that it lives
        await durably.get_runs()
        await clock.advance(0)  # it has looked whether there is more to do
        database.calls.clear()
        types.clear()
        await durably.jobs.tiny.trigger_and_wait(2)
        [stored] = [call for call in database.calls if "INSERT INTO durably_runs" in call]
        assert "generation = generation + 1" in stored
        assert database.claims() == 1
        assert types == ["run:trigger", "run:start", "run:complete"]


@contract
async def test_a_trigger_claims_what_comes_first_and_not_what_it_stores() -> None:
    order = []

    @job
    async def tiny(step: StepContext, payload: str) -> None:
        order.append(payload)

    durably = create_durably(":memory:", jobs=[tiny], max_concurrent_runs=1, clock=ManualClock())
    async with durably:
        await durably.jobs.tiny.trigger_and_wait("first")
        await durably.jobs.tiny.trigger("later", delay=60)
        urgent = Trigger("urgent", priority=1)
        await durably.jobs.tiny.batch_trigger([Trigger("usual"), urgent])
        await until(lambda: len(order) == 3)
    assert order == ["first", "urgent", "usual"]
