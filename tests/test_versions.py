"""A file that another process has brought to a newer schema: this durably stops, hands back, and writes no more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durably import (
    Durably,
    JobDefinition,
    SchemaVersionError,
    StepContext,
    UserTransaction,
    create_durably,
    define_job,
)
from durably.migrations import newest_version
from durably.testing import FaultyDatabase, ManualClock

NEWER = newest_version() + 1
DUMP = "SELECT * FROM durably_runs ORDER BY id", "SELECT * FROM durably_steps ORDER BY run_id, name"


def migrate_further(file: Path) -> None:
    """What a tab with a newer durably does."""
    with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ALTER TABLE durably_runs ADD COLUMN mood TEXT")
        connection.execute("CREATE INDEX durably_runs_by_mood ON durably_runs (mood)")
        connection.execute("INSERT INTO durably_schema_versions VALUES (?, 0)", [NEWER])
        connection.execute("COMMIT")


def migrate_back(file: Path) -> None:
    """So that this durably can show that nothing was lost."""
    with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
        connection.execute("DELETE FROM durably_schema_versions WHERE version = ?", [NEWER])
        connection.execute("DROP INDEX durably_runs_by_mood")
        connection.execute("ALTER TABLE durably_runs DROP COLUMN mood")


def rows_of(file: Path) -> list[list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(file)) as connection:
        return [connection.execute(sql).fetchall() for sql in DUMP]


def column(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute(sql)]


async def until(clock: ManualClock, condition: Callable[[], bool]) -> None:
    """Let time pass until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await clock.advance(0.5)
            await asyncio.sleep(0.001)


def held_job(begun: asyncio.Event, go_on: asyncio.Event) -> JobDefinition[Any, Any]:
    async def hold(step: StepContext, payload: int) -> int:
        first = await step.run("first", lambda: payload)

        async def wait() -> int:
            begun.set()
            await go_on.wait()
            return first + 1

        return await step.run("second", wait)

    return define_job(name="hold", input=int, output=int, run=hold)


def test_a_worker_stops_and_hands_its_run_back_when_another_has_migrated_the_file(tmp_path: Path) -> None:
    """It says so once, as an event that a page can show."""

    async def test() -> None:
        file, clock, told = tmp_path / "db.sqlite3", ManualClock(), []
        begun, go_on = asyncio.Event(), asyncio.Event()
        old = create_durably(file, jobs=[held_job(begun, go_on)], clock=clock)
        old.on("worker:error", lambda event: told.append(event.error))
        await old.init()
        run = await old.jobs.hold.trigger(1)
        await asyncio.wait_for(begun.wait(), 10)

        migrate_further(file)
        await until(clock, lambda: column(file, "SELECT status FROM durably_runs") == ["pending"])

        assert column(file, "SELECT worker_id FROM durably_runs") == [None]
        assert column(file, "SELECT crash_count FROM durably_runs") == [0], "that it is of the past is no crash"
        assert column(file, "SELECT name FROM durably_steps") == ["first"]
        assert len(told) == 1
        assert f"schema version {NEWER}" in told[0]
        assert "reload" in told[0]
        after = rows_of(file)
        await clock.advance(3600)
        await asyncio.sleep(0.01)
        assert rows_of(file) == after, "it claims nothing more, and nothing of it beats"
        await old.stop()

        migrate_back(file)
        begun.clear()
        go_on.set()
        async with create_durably(file, jobs=[held_job(begun, go_on)], clock=clock) as newer:
            assert (await newer.wait_for_run(run.id)).output == 2

    asyncio.run(asyncio.wait_for(test(), 60))


def calls(durably: Durably, run_id: str) -> dict[str, Callable[[], Any]]:
    handle = durably.jobs.hold
    return {
        "trigger": lambda: handle.trigger(1),
        "batch_trigger": lambda: handle.batch_trigger([1, 2]),
        "cancel": lambda: durably.cancel(run_id),
        "retry": lambda: durably.retry(run_id),
        "delete": lambda: durably.delete_run(run_id),
        "signal": lambda: durably.signal(run_id, "go"),
        "schedule": lambda: durably.schedule("hold", 1, every=60, key="k"),
        "unschedule": lambda: durably.unschedule("k"),
        "process_one": durably.process_one,
        "init": durably.init,
        "import": lambda: durably.import_database(b"SQLite format 3\0" * 100),
    }


@pytest.mark.parametrize("is_started", [True, False])
def test_no_call_that_writes_writes_into_a_newer_file(tmp_path: Path, is_started: bool) -> None:
    """Not even in the moment before the worker notices, and also where there is no worker."""

    async def test() -> None:
        file, clock = tmp_path / "db.sqlite3", ManualClock()
        go_on = asyncio.Event()
        go_on.set()
        old = create_durably(file, jobs=[held_job(asyncio.Event(), go_on)], clock=clock)
        await old.migrate()
        ended = await old.jobs.hold.trigger(1)
        await old.process_until_idle()
        waiting = await old.jobs.hold.trigger(1, delay=1_000_000)
        if is_started:
            old.start()
        migrate_further(file)
        before = rows_of(file)

        for_each = [call for run in (ended, waiting) for call in calls(old, run.id).items()]
        for name, call in [*for_each, ("retrigger", lambda: old.retrigger(ended.id))]:
            with pytest.raises(SchemaVersionError, match="reload"):
                await call()
            assert rows_of(file) == before, name
        found = await old.get_run(ended.id)
        assert found is not None, "looking is allowed"
        assert found.output == 2
        await old.stop()
        assert rows_of(file) == before

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_checkpoint_that_comes_after_the_migration_is_not_written(tmp_path: Path) -> None:
    """The worker has had no time to notice; the run is handed back all the same."""

    async def test() -> None:
        file, clock = tmp_path / "db.sqlite3", ManualClock()

        async def leap(step: StepContext, payload: int) -> int:
            return await step.run("migrates", lambda: migrate_further(file)) or 0

        durably = create_durably(file, jobs=[define_job(name="leap", input=int, run=leap)], clock=clock)
        await durably.migrate()
        await durably.jobs.leap.trigger(1)
        with pytest.raises(SchemaVersionError):
            await durably.process_one()
        assert column(file, "SELECT name FROM durably_steps") == []
        assert column(file, "SELECT status FROM durably_runs") == ["pending"]
        assert column(file, "SELECT worker_id FROM durably_runs") == [None]
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_transaction_of_the_users_is_not_begun_in_a_newer_file(tmp_path: Path) -> None:
    async def test() -> None:
        file, entered = tmp_path / "db.sqlite3", []

        async def insert(tx: UserTransaction) -> None:
            entered.append("inside")
            await tx.execute("CREATE TABLE mine (a)")

        async def work(step: StepContext, payload: int) -> None:
            migrate_further(file)
            await step.transaction("insert", insert)

        durably = create_durably(file, jobs=[define_job(name="work", input=int, run=work)], clock=ManualClock())
        await durably.migrate()
        await durably.jobs.work.trigger(1)
        with pytest.raises(SchemaVersionError):
            await durably.process_one()
        assert entered == []
        assert column(file, "SELECT count(*) FROM sqlite_schema WHERE name = 'mine'") == [0]
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_tables_that_the_newer_version_has_changed_are_no_riddle(tmp_path: Path) -> None:
    """What SQLite says there (no such column) would tell nobody to reload."""

    async def test() -> None:
        file = tmp_path / "db.sqlite3"
        durably = create_durably(file, jobs=[held_job(asyncio.Event(), asyncio.Event())], clock=ManualClock())
        await durably.migrate()
        migrate_further(file)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("ALTER TABLE durably_runs RENAME COLUMN payload TO input")
        with pytest.raises(SchemaVersionError, match="reload"):
            await durably.jobs.hold.trigger(1)
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_other_errors_of_the_store_are_told_as_they_are(tmp_path: Path) -> None:
    async def test() -> None:
        database = FaultyDatabase(tmp_path / "db.sqlite3")
        durably = create_durably(database, jobs=[held_job(asyncio.Event(), asyncio.Event())])
        await durably.migrate()
        database.fail_on = lambda _: True
        with pytest.raises(Exception, match="because a test told it to"):
            await durably.jobs.hold.trigger(1)
        database.fail_on = None
        await durably.stop()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_migration_while_two_are_at_work_neither_waits_for_ever_nor_loses_anything(tmp_path: Path) -> None:
    """Writers and the migration take turns at the file; nobody's half of anything is left in it."""

    async def count(step: StepContext, payload: int) -> int:
        return sum([await step.run(f"step-{number}", lambda: 1) for number in range(payload)])

    async def test() -> None:
        file, job = tmp_path / "db.sqlite3", define_job(name="count", input=int, output=int, run=count)
        told = [asyncio.Event(), asyncio.Event()]
        half_way = asyncio.Event()
        old = [create_durably(file, jobs=[job], max_concurrent_runs=4, polling_interval=0.05) for _ in told]
        for instance, event in zip(old, told, strict=True):
            instance.on("worker:error", lambda _, event=event: event.set())
            instance.on("run:complete", lambda _: half_way.set())
            await instance.migrate()
        runs = await old[0].jobs.count.batch_trigger([10] * 100)
        for instance in old:
            instance.start()
        await half_way.wait()

        await asyncio.to_thread(migrate_further, file)
        for event in told:
            await event.wait()
        for instance in old:
            await instance.stop()

        assert column(file, "PRAGMA integrity_check") == ["ok"]
        # A machine may come to the migration so late that they have all completed.
        assert set(column(file, "SELECT status FROM durably_runs")) <= {"completed", "pending"}
        assert set(column(file, "SELECT worker_id FROM durably_runs")) == {None}
        migrate_back(file)
        async with create_durably(file, jobs=[job], max_concurrent_runs=4) as newer:
            for run in runs:
                assert (await newer.wait_for_run(run.id)).output == 10

    asyncio.run(asyncio.wait_for(test(), 60))
