"""`subscribe` under load: first the present state, then live, up to a terminal event, with no event between missed."""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from durably import Durably, NotFoundError, RunStatus, StepContext, create_durably, job

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, quick, found, until, watched, types = (
    kit.contract, kit.opened, kit.quick, kit.found, kit.until, kit.watched, kit.types,
)  # fmt: skip

TERMINAL = {"run:complete", "run:fail", "run:cancel"}
STEPS = 3


async def turns(count: int) -> None:
    """Let everyone else have some turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@job
async def talkative(step: StepContext, payload: int) -> int:
    chance = random.Random(payload)
    for n in range(STEPS):
        step.progress(2 * n)
        step.log.info(f"line {n}")
        await step.run(f"step-{n}", turns, chance.randrange(20))
        step.progress(2 * n + 1)
        await step.now()  # writes the run's row and tells nothing
        await turns(chance.randrange(6))
    if payload % 10 == 3:
        raise ValueError("no luck")
    if payload % 10 == 4:
        await step.wait_for_signal("never")
    return payload


async def follow(durably: Durably, run_id: str, told: list[Any] | None = None) -> list[Any]:
    told = [] if told is None else told
    async for event in durably.subscribe(run_id):
        told.append(event)
    return told


def check_exact(told: list[Any], bus: list[Any]) -> None:
    """What a subscriber was told is the state at a moment of its choice, and then the bus, whole and in order."""
    first, end = told[0], told[-1]
    if end.type in TERMINAL and not any(end is event for event in bus):
        # Its row had the end; what was heard while that was read comes before it.
        heard = told[:-1]
        begin = bus.index(heard[0]) if heard else 0
        assert heard == bus[begin : begin + len(heard)], (types(told), types(bus))
        assert not TERMINAL & set(types(heard))
        return
    state = [event for event in told if event.sequence == first.sequence]
    assert told[: len(state)] == state, types(told)
    before = [event for event in bus if event.sequence <= first.sequence]
    said = [event.progress for event in before if event.type == "run:progress"]
    live = [event for event in bus if event.sequence > first.sequence]
    if first.type == "run:start":
        # Its row can say that it is running before its start is told; then that is told once, as the state.
        live = [event for event in live if event.type != "run:start"]
    else:
        assert first.type == "run:trigger"
    end = next(at for at, event in enumerate(live) if event.type in TERMINAL)
    assert told[len(state) :] == live[: end + 1], (types(told), types(live))
    progress = [event.progress for event in state[1:]]
    if progress != said[-1:]:
        # Then newer progress was heard while the state was read, and comes in its place.
        assert progress == []
        assert any(event.type == "run:progress" for event in live[: end + 1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_subscribers_that_begin_anywhere_miss_nothing_and_hear_nothing_twice(seed: int) -> None:
    """100 runs, three subscribers each that begin at random moments, and more that begin at an event of the run."""
    asyncio.run(asyncio.wait_for(hammer(random.Random(seed)), 60))


async def hammer(chance: random.Random) -> None:
    async with quick(":memory:", talkative, max_concurrent_runs=10, polling_interval=0.01) as durably:
        bus: dict[str, list[Any]] = {}
        talking: dict[str, asyncio.Event] = {}
        ended: dict[str, asyncio.Event] = {}
        following: list[tuple[str, asyncio.Task[list[Any]]]] = []

        async def later(run_id: str) -> list[Any]:
            await turns(chance.randrange(2000))
            return await follow(durably, run_id)

        def begin(run_id: str, awaitable: Any) -> None:
            following.append((run_id, asyncio.ensure_future(awaitable)))

        def hear(event: Any) -> None:
            bus.setdefault(event.run_id, []).append(event)
            if event.type == "run:trigger":
                talking[event.run_id], ended[event.run_id] = asyncio.Event(), asyncio.Event()
                for _ in range(3):
                    begin(event.run_id, later(event.run_id))
            elif event.type == "run:progress":
                talking[event.run_id].set()
            if event.type in TERMINAL:
                ended[event.run_id].set()
            elif chance.random() < 0.05:
                begin(event.run_id, follow(durably, event.run_id))

        async def cancel(run_id: str) -> None:
            await talking[run_id].wait()
            await durably.cancel(run_id)

        durably.on("*", hear)
        runs = await durably.jobs.talkative.batch_trigger(range(100))
        await asyncio.gather(*(cancel(run.id) for run in runs[4::10]))
        await asyncio.gather(*(ended[run.id].wait() for run in runs))
        kinds: Counter[str] = Counter()
        for run_id, task in following:
            told = await task
            check_exact(told, bus[run_id])
            kinds[told[0].type] += 1
        assert kinds["run:trigger"] > 10
        assert kinds["run:start"] > 10


@contract
async def test_a_subscriber_of_another_instance_sees_the_states_in_order_up_to_the_end(tmp_path: Path) -> None:
    """Its bus is another one: it is told what the row says, each state once and progress only forward."""
    path = tmp_path / "a.sqlite3"
    async with quick(path, talkative, max_concurrent_runs=10) as durably:
        other = quick(path, talkative, polling_interval=0.005)
        runs = [run for run in await durably.jobs.talkative.batch_trigger(range(30)) if run.payload % 10 != 4]
        stuck = await durably.get_runs(status=["pending", "running"])
        following = [asyncio.ensure_future(follow(other, run.id)) for run in runs]
        for run in stuck:
            if run.payload % 10 == 4:
                await durably.cancel(run.id)
        for run, task in zip(runs, following, strict=True):
            told = await asyncio.wait_for(task, 30)
            states = types(told, without=("run:progress",))
            assert states in (["run:trigger", "run:start", states[-1]], [*states[:1], states[-1]], [states[-1]])
            assert states[-1] == ("run:fail" if run.payload % 10 == 3 else "run:complete")
            said = [event.progress.current for event in told if event.type == "run:progress"]
            assert said == sorted(set(said))
        await other.stop()


@contract
async def test_progress_that_is_not_stored_yet_belongs_to_the_present_state() -> None:
    """The store hears of progress a moment later. Who subscribes in between would miss the latest and, once
    something else is written of the run, be told an older one as if it were news."""
    here, go = asyncio.Event(), asyncio.Event()

    @job
    async def waits(step: StepContext, payload: int) -> None:
        step.progress(1)
        step.progress(2)
        await step.now()
        here.set()
        await go.wait()
        step.progress(2)
        step.progress(3)

    durably, clock = await opened(":memory:", waits)
    run = await durably.jobs.waits.trigger(1)
    working = asyncio.ensure_future(durably.process_one())
    await here.wait()
    told: list[Any] = []
    following = asyncio.ensure_future(follow(durably, run.id, told))
    await until(lambda: len(told) == 2)
    for _ in range(5):  # the subscriber looks at the row again and again
        await clock.advance(1)
    go.set()
    await working
    await following
    assert types(told) == ["run:start", *["run:progress"] * 3, "run:complete"]
    assert [event.progress.current for event in told[1:-1]] == [2, 2, 3], "said twice is told twice"
    await durably.stop()


@contract
async def test_a_poll_that_meets_the_end_does_not_swallow_what_came_before_it() -> None:
    """The row is read while the run's last events come in: its end must not overtake them."""
    here, go = asyncio.Event(), asyncio.Event()

    @job
    async def last_words(step: StepContext, payload: int) -> None:
        await step.run("first", lambda: 1)
        here.set()
        await go.wait()
        for n in range(20):
            await step.run(f"step-{n}", turns, 0)

    # So short an interval that the subscriber is nearly always reading.
    durably = create_durably(":memory:", jobs=[last_words], polling_interval=0.0001)
    async with durably:
        bus = watched(durably)
        run = await durably.jobs.last_words.trigger(1)
        await here.wait()
        following = [asyncio.ensure_future(follow(durably, run.id)) for _ in range(8)]
        await turns(40)
        go.set()
        for told in await asyncio.gather(*following):
            check_exact(told, [event for event in bus if event.run_id == run.id])


@contract
async def test_a_run_that_is_handed_back_and_begun_again_is_told_as_begun_again(tmp_path: Path) -> None:
    """An orderly stop tells nothing, but the new start is an event like any other."""
    begun = asyncio.Event()

    @job
    async def twice(step: StepContext, payload: int) -> int:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(30)
        return 1

    durably = quick(tmp_path / "a.sqlite3", twice)
    await durably.init()
    run = await durably.jobs.twice.trigger(1)
    await begun.wait()
    told: list[Any] = []
    following = asyncio.ensure_future(follow(durably, run.id, told))
    await until(lambda: told)
    await durably.stop(timeout=0)
    await durably.init()
    assert types(await following) == ["run:start", "run:start", "run:complete"]
    await durably.stop()


@contract
async def test_subscribing_races_with_cancel_retry_and_delete() -> None:
    """Whatever happens to the run at the same time: the subscription ends with a terminal event, or there is no run."""
    chance = random.Random(7)

    @job
    async def waits(step: StepContext, payload: int) -> None:
        await step.run("one", turns, chance.randrange(5))
        await step.wait_for_signal("never")

    async with quick(":memory:", waits, max_concurrent_runs=20) as durably:

        async def life(run_id: str) -> None:
            for _ in range(3):
                await turns(chance.randrange(60))
                await durably.cancel(run_id)
                await turns(chance.randrange(10))
                await durably.retry(run_id)
            await durably.cancel(run_id)
            await turns(chance.randrange(10))
            await durably.delete_run(run_id)

        async def watch(run_id: str) -> int:
            ends = 0
            while True:
                await turns(chance.randrange(80))
                try:
                    told = await follow(durably, run_id)
                except NotFoundError:
                    assert await durably.get_run(run_id) is None
                    return ends
                assert types(told)[-1] == "run:cancel"
                assert not TERMINAL & set(types(told)[:-1])
                ends += 1

        runs = await durably.jobs.waits.batch_trigger(range(20))
        lives = asyncio.gather(*(life(run.id) for run in runs))
        ends = await asyncio.gather(*(watch(run.id) for run in runs for _ in range(3)))
        await lives
        assert sum(ends) > 20


@contract
async def test_the_progress_of_a_run_that_waits_is_part_of_its_present_state() -> None:
    @job
    async def waits(step: StepContext, payload: int) -> None:
        step.progress(5, 10)
        await step.wait_for_signal("go")

    durably, _ = await opened(":memory:", waits)
    run = await durably.jobs.waits.trigger(1)
    await durably.process_until_idle()
    told: list[Any] = []
    following = asyncio.ensure_future(follow(durably, run.id, told))
    await until(lambda: len(told) == 2)
    await durably.cancel(run.id)
    assert types(await following)[:2] == ["run:trigger", "run:progress"]
    assert (await found(durably, run)).status is RunStatus.CANCELLED
    await durably.stop()
