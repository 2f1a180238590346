"""A worker that was frozen for longer than `stale_threshold` wakes up and tries everything: nothing of it is stored."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import LeaseLostError, Statement, StepContext, define_job, job, with_log_persistence
from durably.clock import to_datetime
from durably.databases import open_database
from durably.rows import Checkpoint, Claim
from durably.store import Store
from durably.testing import ManualClock

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, found, types, until, watched = (
    kit.contract, kit.opened, kit.found, kit.types, kit.until, kit.watched,
)  # fmt: skip


@job
async def child(step: StepContext, payload: int) -> int:
    return payload


async def write(tx: Any) -> None:
    await tx.execute("INSERT INTO notes VALUES ('frozen')")


async def fail() -> None:
    raise ValueError("frozen")


async def several(step: StepContext) -> None:
    await asyncio.gather(*(step.run(f"part-{n}", lambda: "frozen") for n in range(3)))


TRIES: dict[str, Callable[[StepContext], Awaitable[Any]]] = {
    "step": lambda step: step.run("late", lambda: "frozen"),
    "failing step": lambda step: step.run("late", fail),
    "retried step": lambda step: step.with_options(retry=3).run("late", fail),
    "steps at once": several,
    "transaction": lambda step: step.transaction("late", write),
    "sleep": lambda step: step.sleep("late", 5),
    "signal": lambda step: step.wait_for_signal("late", signal="bell"),
    "child": lambda step: step.trigger("late", child, 1),
    "child waited for": lambda step: step.trigger_and_wait("late", child, 1),
    "now": lambda step: step.now(),
    "random": lambda step: step.random(),
    "return": lambda step: asyncio.sleep(0),
    "raise": lambda step: fail(),
}


@pytest.mark.parametrize("tried", TRIES)
@pytest.mark.parametrize("frozen_in", ["a step", "the job's code"])
@contract
async def test_nothing_of_a_worker_that_lost_its_run_is_stored(tried: str, frozen_in: str, tmp_path: Path) -> None:
    """Beside what it tries it says progress and logs, before it can know that the run is not its own any more."""
    path = tmp_path / "a.sqlite3"
    here, go = asyncio.Event(), asyncio.Event()
    workers = ["frozen", "quick"]
    raised: list[BaseException] = []

    async def freeze() -> str:
        here.set()
        await asyncio.shield(go.wait())
        return "frozen"

    async def run(step: StepContext, payload: int) -> str:
        if workers.pop(0) == "quick":
            await step.run("frozen", lambda: "quick")
            step.progress(1, message="quick")
            step.log.info("quick")
            await step.wait_for_signal("hold")
            return "quick"
        try:
            if frozen_in == "a step":
                await step.run("frozen", freeze)
            else:
                await freeze()
            step.progress(99, message="frozen")
            step.log.info("frozen")
            await TRIES[tried](step)
        except BaseException as error:
            raised.append(error)
            step.progress(100, message="frozen")
            step.log.warning("frozen")
            raise
        return "frozen"

    held = define_job(name="held", input=int, run=run)
    frozen, clock = await opened(path, held, child)
    # Each worker has a clock of its own: the frozen one's stands still, and so its heartbeats are as old as its claim.
    other, _ = await opened(path, held, child, clock=ManualClock(to_datetime(clock.now()) + timedelta(minutes=1)))
    for durably in (frozen, other):
        durably.use(with_log_persistence())
    database = open_database(str(path))
    await database.execute(Statement("CREATE TABLE notes (note TEXT)"))
    told = watched(frozen)
    bound = await frozen.jobs.held.trigger(1)
    await frozen.signal(bound.id, "bell", "for nobody but the owner")
    working = asyncio.ensure_future(frozen.process_one())
    await here.wait()
    await other.process_until_idle()
    before = await found(other, bound)
    assert (before.status, before.waiting_for, before.generation) == ("pending", "signal:hold", 2)
    kept = [await other.get_steps(bound.id), await other.get_logs(bound.id)]
    go.set()
    await asyncio.wait_for(working, 30)
    await frozen.stop()
    assert await found(other, bound) == before
    assert [await other.get_steps(bound.id), await other.get_logs(bound.id)] == kept
    assert [line.message for line in kept[1]] == ["quick"]
    assert await other.get_runs(job_name="child") == []
    [notes] = await database.execute(Statement("SELECT * FROM notes"))
    assert notes.rows == []
    [unread] = await database.execute(Statement("SELECT consumed_by FROM durably_signals"))
    assert unread.rows[0][0] is None
    ends = {"step:complete", "step:fail", "step:retry", "run:complete", "run:fail", "run:cancel", "worker:error"}
    assert not ends & set(types(told))
    if tried not in ("return", "raise") or frozen_in == "a step":
        assert isinstance(raised[0], LeaseLostError | asyncio.CancelledError)
    await other.signal(bound.id, "hold")
    await other.process_until_idle()
    assert (await found(other, bound)).output == "quick"
    await other.stop()
    await database.close()


@contract
async def test_a_completed_step_is_never_written_over(tmp_path: Path) -> None:
    """Whatever comes later, even under the claim of the day: what was once returned is what every replay returns."""
    path = tmp_path / "a.sqlite3"
    database = open_database(str(path))
    store, written = Store(database), []

    @job
    async def two(step: StepContext, payload: int) -> str:
        first = await step.run("first", lambda: "kept")
        running = await store.find_run(step.run_id)
        assert running is not None
        claim, now = Claim(run_id=running.id, generation=running.generation), running.created_at
        late = Checkpoint(name="first", step_index=0, status="completed", output='"late"', started_at=now, now=now)
        written.append(await store.put_step(claim, late))
        written.append(await store.put_cancelled_step(claim, late, now))
        return first

    durably, _ = await opened(path, two)
    run = await durably.jobs.two.trigger(1)
    await durably.process_until_idle()
    done = await found(durably, run)
    assert written == [False, False]
    assert (done.output, done.completed_step_count) == ("kept", 1)
    [step] = await durably.get_steps(run.id)
    assert (step.name, step.status, step.output) == ("first", "completed", "kept")
    await durably.stop()
    await database.close()
