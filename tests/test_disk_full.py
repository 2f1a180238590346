"""No space left, or a store that fails at any other call: the run goes on when it can, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durably import (
    Durably,
    JobDefinition,
    Statement,
    StepContext,
    StorageError,
    StorageFullError,
    create_durably,
    define_job,
)
from durably.databases import open_database
from durably.testing import (
    Executions,
    FaultyDatabase,
    ManualClock,
    assert_completed,
    assert_executed_once,
    assert_steps,
)

CHECKPOINT = "INSERT INTO durably_steps"


def full() -> Exception:
    return StorageFullError("no space is left")


def writing_job(size: int = 1, steps: int = 4) -> JobDefinition[Any, Any]:
    async def write(step: StepContext, payload: int) -> int:
        return sum([len(await step.run(f"step-{n}", bytes, size)) for n in range(steps)])

    return define_job(name="write", input=int, run=write)


async def goes_on(durably: Durably) -> None:
    """Execute what is due, and go on after each error of the store."""
    for _ in range(20):
        try:
            if not await durably.process_until_idle():
                return
        except StorageError:
            continue
    raise AssertionError("it does not come to an end")


# --- no space at a checkpoint ---------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 5))
def test_a_run_without_space_at_a_checkpoint_goes_on_when_there_is_some(number: int) -> None:
    async def test() -> None:
        database = FaultyDatabase(error=full)
        durably = create_durably(database, jobs=[writing_job()], clock=ManualClock())
        executions = Executions(durably)
        await durably.migrate()
        run = await durably.jobs.write.trigger(1)
        seen = 0

        def nth_checkpoint(sql: str) -> bool:
            nonlocal seen
            seen += sql.startswith(CHECKPOINT)
            return seen >= number

        database.fail_on = nth_checkpoint
        with pytest.raises(StorageFullError, match="no space"):
            await durably.process_one()
        for _ in range(3):  # for as long as there is no space, nothing happens
            with pytest.raises(StorageFullError):
                await durably.process_one()
        database.fail_on = None
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.is_active, "it is not the run's failure"
        assert found.error is None
        await durably.process_until_idle()
        await assert_completed(durably, run.id, output=4)
        in_flight = f"step-{number - 1}"
        assert executions.of(run.id) == {f"step-{n}": 1 + (f"step-{n}" == in_flight) for n in range(4)}
        await assert_steps(durably, run.id, {f"step-{n}": "completed" for n in range(4)})
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_started_worker_tells_of_the_full_disk_and_goes_on_by_itself(tmp_path: Path) -> None:
    async def test() -> None:
        database = FaultyDatabase(tmp_path / "db.sqlite3", error=full, times=3)
        clock = ManualClock()
        durably = create_durably(database, jobs=[writing_job()], clock=clock)
        executions = Executions(durably)
        told: list[str] = []
        durably.on("worker:error", lambda event: told.append(event.error))
        await durably.migrate()
        run = await durably.jobs.write.trigger(1)
        database.fail_on = lambda sql: not sql.startswith("SELECT")
        durably.start()
        for _ in range(500):
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
            found = await durably.get_run(run.id)
            assert found is not None
            if found.is_terminal:
                break
        await assert_completed(durably, run.id)
        assert_executed_once(executions, run.id)
        assert told
        assert set(told) == {"no space is left"}
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 20))


# --- a fault at every call ------------------------------------------------------------------------

LIFE = {
    "plain": "completed",
    "paid": "completed",
    "nap": "completed",
    "bell": "completed",
    "child": "completed",
    "last": "completed",
}


class Everything:
    """A job that uses what there is, and a log of what it did."""

    def __init__(self) -> None:
        self.did: Counter[str] = Counter()
        self.child = define_job(name="child", input=int, run=self._child)
        self.job = define_job(name="everything", input=int, run=self._run)

    async def _child(self, step: StepContext, payload: int) -> int:
        return await step.run("inner", self._note, "inner", payload)

    async def _run(self, step: StepContext, payload: int) -> list[Any]:
        async def pay(tx: Any) -> str:
            await tx.execute("INSERT INTO payments VALUES (?)", (step.run_id,))
            return self._note("paid", "paid")

        step.progress(1, 6)
        results = [await step.run("plain", self._note, "plain", "plain")]
        results.append(await step.transaction("paid", pay))
        step.progress(2, 6)
        await step.sleep("nap", 60)
        results.append(await step.wait_for_signal("bell"))
        results.append((await step.trigger_and_wait("child", "child", 7)).output)
        results.append(await step.run("last", self._note, "last", "last"))
        return results

    def _note(self, name: str, value: Any) -> Any:
        self.did[name] += 1
        return value


async def live(database: FaultyDatabase, fail_on: int | None) -> tuple[Everything, int]:
    """One life of one run, with a fault at a call after the migration; how many calls there were."""
    everything, clock = Everything(), ManualClock()
    durably = create_durably(database, jobs=[everything.job, everything.child], clock=clock)
    await durably.migrate()
    await database.execute(Statement("CREATE TABLE payments (run_id TEXT)"))
    before = len(database.calls)
    run = await durably.jobs.everything.trigger(1)
    database.fail_on = None if fail_on is None else len(database.calls) + fail_on
    await goes_on(durably)
    await clock.advance(60)
    await goes_on(durably)
    while True:
        try:
            await durably.signal(run.id, "bell", "ding")
            break
        except StorageError:
            if database.when == "after":  # the answer was lost, and the signal was not
                break
    for _ in range(4):
        await goes_on(durably)
        await clock.advance(60)
    calls = len(database.calls) - before
    database.fail_on = None  # from here on it is the test that looks
    done = await assert_completed(durably, run.id, output=["plain", "paid", "ding", 7, "last"])
    assert done.progress is not None
    steps = {step.name: str(step.status) for step in await durably.get_steps(run.id)}
    assert steps == LIFE
    assert done.completed_step_count == len(LIFE)
    [paid] = await database.execute(Statement("SELECT count(*) FROM payments"))
    assert paid.rows[0][0] == 1, "exactly once"
    children = await durably.get_runs(job_name="child")
    assert len(children) == 1
    await durably.stop()
    return everything, calls


CALLS = asyncio.run(live(FaultyDatabase(), None))[1]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS + 1))
def test_one_fault_at_any_call_loses_nothing_and_repeats_one_step_at_most(number: int, when: Any) -> None:
    async def test() -> None:
        database = FaultyDatabase(when=when, error=full)
        everything, _ = await live(database, number)
        assert set(everything.did) == {"plain", "paid", "inner", "last"}
        assert sum(everything.did.values()) <= 4 + database.failures

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_transaction_whose_commit_was_not_confirmed_is_not_done_twice() -> None:
    """The answer to its commit was lost. Whatever becomes of the run, what is committed is a checkpoint."""

    async def test() -> None:
        async def run(step: StepContext, payload: int) -> str:
            async def pay(tx: Any) -> None:
                await tx.execute("INSERT INTO payments VALUES (1)")

            await step.transaction("pay", pay)
            return "paid"

        database = FaultyDatabase(when="after", times=1)
        durably = create_durably(database, jobs=[define_job(name="pay", input=int, run=run)], clock=ManualClock())
        await durably.migrate()
        await database.execute(Statement("CREATE TABLE payments (amount)"))
        started = await durably.jobs.pay.trigger(1)
        database.fail_on = lambda sql: sql == "COMMIT"
        await goes_on(durably)
        found = await durably.get_run(started.id)
        assert found is not None
        if found.status == "failed":
            await durably.retry(started.id)
            await goes_on(durably)
        await assert_completed(durably, started.id, output="paid")
        [paid] = await database.execute(Statement("SELECT count(*) FROM payments"))
        assert paid.rows[0][0] == 1
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_progress_is_stored_again_after_it_once_could_not_be() -> None:
    async def test() -> None:
        async def run(step: StepContext, payload: int) -> None:
            for n in range(3):
                step.progress(n)
                await clock.sleep(1)

        clock, database = ManualClock(), FaultyDatabase(error=full, times=1)
        durably = create_durably(database, jobs=[define_job(name="slow", input=int, run=run)], clock=clock)
        await durably.migrate()
        started = await durably.jobs.slow.trigger(1)
        database.fail_on = lambda sql: "SET progress = :progress" in sql
        working = asyncio.ensure_future(durably.process_one())
        for n in range(3):
            for _ in range(50):
                await asyncio.sleep(0.001)
            await clock.advance(0.5)
            found = await durably.get_run(started.id)
            assert found is not None
            # The first one is stored late, or not at all; a later one is.
            assert n == 0 or (found.progress is not None and found.progress.current == n)
            await clock.advance(0.5)
        await working
        await assert_completed(durably, started.id)
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 20))


# --- a disk that is really full -------------------------------------------------------------------


def test_a_database_that_may_not_grow_says_so_and_goes_on_when_it_may(tmp_path: Path) -> None:
    """SQLite's own limit: every write that needs a page more fails as on a full disk."""

    async def test() -> None:
        database = open_database(tmp_path / "db.sqlite3")
        durably = create_durably(database, jobs=[writing_job(100_000)], clock=ManualClock())
        executions = Executions(durably)
        await durably.migrate()
        run = await durably.jobs.write.trigger(1)
        [pages] = await database.execute(Statement("SELECT page_count FROM pragma_page_count"))
        # Room for two results and not for the third.
        await database.execute(Statement(f"PRAGMA max_page_count={pages.rows[0][0] + 60}"))
        for _ in range(3):
            with pytest.raises(StorageFullError, match="no space is left"):
                await durably.process_one()
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.is_active
        await assert_steps(durably, run.id, {"step-0": "completed", "step-1": "completed"})
        await database.execute(Statement("PRAGMA max_page_count=1000000"))
        await durably.process_until_idle()
        await assert_completed(durably, run.id, output=400_000)
        assert executions.of(run.id) == {"step-0": 1, "step-1": 1, "step-2": 4, "step-3": 1}
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 10))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size. Skips the test where none can be mounted."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if sys.platform != "linux" or mount is None or umount is None:
        pytest.skip("a small file system can be mounted on Linux only")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_is_told_as_that_and_the_run_goes_on_when_there_is_space(tmp_path: Path) -> None:
    async def test(disk: Path) -> None:
        ballast = disk / "ballast"
        durably = create_durably(disk / "db.sqlite3", jobs=[writing_job(100_000, 8)], clock=ManualClock())
        executions = Executions(durably)
        await durably.migrate()
        run = await durably.jobs.write.trigger(1)
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 400_000))
        with pytest.raises(StorageFullError, match="no space is left"):
            await durably.process_until_idle()
        ballast.unlink()
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.is_active
        assert 0 < found.completed_step_count < 8
        await durably.process_until_idle()
        await assert_completed(durably, run.id, output=800_000)
        assert sum(executions.of(run.id).values()) == 9
        await durably.stop()

    with small_disk(tmp_path, "3m") as disk:
        asyncio.run(asyncio.wait_for(test(disk), 10))
