"""Scenarios of the store as one file: exported, imported, refused, described. See `scenarios`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

from scenarios import SCENARIOS, Place, raises, scenario

from durably import (
    ConflictError,
    Database,
    Durably,
    Run,
    SchemaVersionError,
    Statement,
    StepContext,
    StorageError,
    UserTransaction,
    create_durably,
    define_job,
)
from durably.databases import open_database
from durably.testing import ManualClock

try:
    sqlite3: Any = importlib.import_module("sqlite3")
except ImportError:  # Pyodide has it as a package of its own only
    sqlite3 = None

__all__ = ["SCENARIOS"]

IN_BROWSER = sys.platform == "emscripten"
OTHER_JOURNAL, OTHER_PAGE_SIZE, OTHER_ENCODING = (18, b"\2\2"), (16, b"\x20\x00"), (56, b"\0\0\0\2")


class Shop:
    """A job that keeps rows in a table of its own, and how often its steps were executed."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.is_broken = True
        self.definition = define_job(name="sell", input=str, output=str, run=self._sell)

    async def _sell(self, step: StepContext, item: str) -> str:
        await step.transaction("keep", self._keep, item)
        weight = await step.run("weigh", self._weigh, item)
        await step.run("ship", self._ship, item)
        return f"{item}: {weight!r}"

    async def _keep(self, tx: UserTransaction, item: str) -> None:
        self.executed.append(f"keep {item}")
        await tx.execute("CREATE TABLE IF NOT EXISTS sold (item TEXT, picture BLOB)")
        await tx.execute("INSERT INTO sold VALUES (?, ?)", [item, item.encode() * 3])

    def _weigh(self, item: str) -> tuple[int, bytes]:
        self.executed.append(f"weigh {item}")
        return len(item), b"\0\xff"

    def _ship(self, item: str) -> None:
        self.executed.append(f"ship {item}")
        if item == "glass" and self.is_broken:
            raise ValueError("it broke")

    async def opened(self, place: Place, label: str, *items: str, clock: ManualClock | None = None) -> Durably:
        durably = create_durably(place(label), jobs=[self.definition], clock=clock or ManualClock())
        await durably.migrate()
        for item in items:
            await durably.jobs.sell.trigger(item)
        await durably.process_until_idle()
        return durably


async def sold(place: Place, label: str) -> list[list[Any]]:
    database = open_database(place(label))
    [result] = await database.execute(Statement("SELECT item, picture FROM sold ORDER BY item"))
    await database.close()
    return [list(row) for row in result.rows]


async def dumped(database: Database, *statements: str) -> bytes:
    """What a database is as a file after these statements."""
    await database.execute(*map(Statement, statements))
    image = await database.dump()
    await database.close()
    return image


def patched(image: bytes, patch: tuple[int, bytes]) -> bytes:
    at, new = patch
    return image[:at] + new + image[at + len(new) :]


# --- export and import ----------------------------------------------------------------------------


@scenario
async def an_export_is_a_sqlite_file_that_any_tool_opens(place: Place) -> None:
    durably = await Shop().opened(place, "db", "pen", "glass")
    image = await durably.export()
    await durably.stop()
    assert image.startswith(b"SQLite format 3\0")
    assert image[18:20] == b"\1\1", "it claims a write-ahead log"
    assert len(image) % 4096 == 0
    if sqlite3 is None:
        return
    connection = sqlite3.connect(":memory:")
    connection.deserialize(image)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT item FROM sold ORDER BY item").fetchall() == [("glass",), ("pen",)]
    assert connection.execute("SELECT count(*) FROM durably_runs").fetchone() == (2,)
    connection.close()


@scenario
async def nothing_that_was_never_written_is_exported(place: Place) -> None:
    durably = create_durably(":memory:")
    with raises(StorageError):
        await durably.export()


@scenario
async def an_imported_database_has_the_same_runs_steps_and_rows_and_goes_on(place: Place) -> None:
    first = Shop()
    one = await first.opened(place, "one", "pen", "glass")
    image = await one.export()
    runs = await one.get_runs()
    steps = [await one.get_steps(run.id) for run in runs]
    await one.stop()

    second, clock = Shop(), ManualClock()
    second.is_broken = False
    two = await second.opened(place, "two", clock=clock)
    await two.import_database(image)
    assert await two.get_runs() == runs
    assert [await two.get_steps(run.id) for run in runs] == steps
    assert sorted(run.status for run in runs) == ["completed", "failed"]

    [failed] = await two.get_runs(status="failed")
    await two.retry(failed.id)
    await two.process_until_idle()
    done = await two.get_run(failed.id)
    assert done is not None
    assert (done.status, done.output) == ("completed", "glass: (5, b'\\x00\\xff')")
    assert second.executed == ["ship glass"]
    await two.stop()
    assert await sold(place, "two") == [["glass", b"glass" * 3], ["pen", b"pen" * 3]]


@scenario
async def an_import_replaces_all_that_was_there_for_everyone(place: Place) -> None:
    shop = Shop()
    one = await shop.opened(place, "one", "pen")
    image = await one.export()
    other = await shop.opened(place, "other", "cup", "hat")
    beside = create_durably(place("other"), jobs=[shop.definition], clock=ManualClock())
    assert len(await beside.get_runs()) == 2

    await other.import_database(image)
    assert await other.get_runs() == await one.get_runs()
    # In a browser another connection sees what is new as soon as it writes, or a moment later.
    await beside.jobs.sell.trigger("tea")
    await beside.process_until_idle()
    assert sorted(run.payload for run in await beside.get_runs(status="completed")) == ["pen", "tea"]
    for each in (one, other, beside):
        await each.stop()
    assert [item for item, _ in await sold(place, "other")] == ["pen", "tea"]


@scenario
async def a_large_database_takes_the_place_of_a_small_one_and_the_reverse(place: Place) -> None:
    async def fill(step: StepContext, size: int) -> int:
        for number in range(4):
            await step.run(f"part-{number}", lambda: bytes(size // 4))
        return size

    job = define_job(name="fill", input=int, run=fill)

    async def holding(label: str, size: int) -> tuple[Durably, Run[Any]]:
        durably = create_durably(place(label), jobs=[job], clock=ManualClock())
        await durably.migrate()
        run = await durably.jobs.fill.trigger(size)
        await durably.process_until_idle()
        return durably, run

    large, in_large = await holding("large", 8_000_000)
    small, in_small = await holding("small", 8_000)
    of_large, of_small = await large.export(), await small.export()
    for durably, image, there in (
        (small, of_large, in_large),
        (large, of_small, in_small),
        (large, of_large, in_large),
        (small, of_small, in_small),
    ):
        await durably.import_database(image)
        assert [run.id for run in await durably.get_runs()] == [there.id]
        assert [len(step.output) for step in await durably.get_steps(there.id)] == [there.payload // 4] * 4
        # It is sound, or it could not be imported again; and it is so after it was opened again, too.
        await durably.import_database(await durably.export())
        await durably.stop()
        await durably.import_database(await durably.export())
    await large.stop()
    await small.stop()


@scenario
async def what_was_at_work_when_it_was_exported_is_pending_without_blame(place: Place) -> None:
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def run(step: StepContext, _: Any) -> str:
        await step.run("first", lambda: None)
        begun.set()
        await step.run("second", going_on.wait)
        return "done"

    job = define_job(name="work", input=Any, run=run)
    one = create_durably(place("one"), jobs=[job])
    async with one:
        triggered = await one.jobs.work.trigger(None)
        await begun.wait()
        image = await one.export()
        going_on.set()
        await one.wait_for_run(triggered.id, timeout=10)

    async with create_durably(place("two"), jobs=[job], max_crashes=1) as two:
        await two.import_database(image)
        done = await two.wait_for_run(triggered.id, timeout=10)
    assert (done.output, done.completed_step_count) == ("done", 2)


@scenario
async def an_older_state_does_not_bring_generations_back(place: Place) -> None:
    shop = Shop()
    durably = await shop.opened(place, "db", "glass")
    [failed] = await durably.get_runs()
    image = await durably.export()
    shop.is_broken = False
    await durably.retry(failed.id)
    await durably.process_until_idle()

    await durably.import_database(image)
    [run] = await durably.get_runs()
    assert (run.status, failed.generation, run.generation) == ("failed", 1, 2)
    await durably.stop()


@scenario
async def a_file_with_a_write_ahead_log_is_taken_without_it(place: Place) -> None:
    durably = await Shop().opened(place, "one", "pen")
    image = await durably.export()
    other = await Shop().opened(place, "two")
    await other.import_database(patched(image, OTHER_JOURNAL))
    assert await other.get_runs() == await durably.get_runs()
    assert (await other.export())[18:20] == b"\1\1"
    await durably.stop()
    await other.stop()


# --- refused --------------------------------------------------------------------------------------


@scenario
async def what_is_no_sound_database_of_durably_is_refused_and_changes_nothing(place: Place) -> None:
    durably = await Shop().opened(place, "db", "pen", "glass")
    before = await durably.export()
    runs = await durably.get_runs()
    page = 4096
    cases: list[tuple[type[StorageError], str, bytes]] = [
        (StorageError, "not a SQLite database", b""),
        (StorageError, "not a SQLite database", b"no database at all, but longer than a header is" * 100),
        (StorageError, "not a SQLite database", before[:99]),
        (StorageError, "damaged", before[:100]),
        (StorageError, "damaged", before[:page]),
        (StorageError, "damaged", before[:-page]),
        (StorageError, "damaged", before[: len(before) // 2 + 100]),
        (StorageError, "damaged", before[: 3 * page] + b"\x55" * page + before[4 * page :]),
        (StorageError, "pages of 8192 bytes", patched(before, OTHER_PAGE_SIZE)),
        (StorageError, "UTF-16", patched(before, OTHER_ENCODING)),
        (
            StorageError,
            "not one of durably's",
            await dumped(open_database(place("foreign")), "CREATE TABLE notes (text TEXT)"),
        ),
    ]
    newest = "INSERT INTO durably_schema_versions (version, applied_at) VALUES (999, 0)"
    for label, error, part, statement in (
        ("newer", SchemaVersionError, "version 999", newest),
        ("lacking", StorageError, "lacks durably_signals.", "DROP TABLE durably_signals"),
        (
            "narrow",
            StorageError,
            "lacks durably_runs.suspect_step",
            "ALTER TABLE durably_runs DROP COLUMN suspect_step",
        ),
    ):
        await (await Shop().opened(place, label, "hat")).stop()
        cases.append((error, part, await dumped(open_database(place(label)), statement)))

    for kind, part, data in cases:
        with raises(kind) as caught:
            await durably.import_database(data)
        assert part in caught.error.message, caught.error.message
        assert type(caught.error) is kind
        assert await durably.get_runs() == runs
        assert await durably.export() == before, part
    await durably.import_database(before)
    assert await durably.get_runs() == runs
    await durably.stop()


@scenario
async def a_store_with_active_runs_is_not_replaced(place: Place) -> None:
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def hold(step: StepContext, _: Any) -> None:
        begun.set()
        await step.run("hold", going_on.wait)

    job = define_job(name="hold", input=Any, run=hold)
    source = await Shop().opened(place, "source", "pen")
    image = await source.export()
    await source.stop()
    durably = create_durably(place("db"), jobs=[job])
    await durably.migrate()

    run = await durably.jobs.hold.trigger(None)
    with raises(ConflictError) as caught:
        await durably.import_database(image)
    assert caught.error.status == 409
    durably.start()
    await begun.wait()
    with raises(ConflictError):
        await durably.import_database(image)
    assert [each.id for each in await durably.get_runs()] == [run.id]
    going_on.set()
    assert (await durably.wait_for_run(run.id, timeout=10)).status == "completed"

    await durably.import_database(image)
    assert [each.job_name for each in await durably.get_runs()] == ["sell"]
    await durably.stop()


@scenario
async def a_run_that_is_triggered_meanwhile_is_never_lost(place: Place) -> None:
    shop = Shop()
    one = await shop.opened(place, "db", "pen")
    image = await one.export()
    two = create_durably(place("db"), jobs=[shop.definition], clock=ManualClock())
    outcomes: set[bool] = set()
    for turn in range(12):

        async def trigger(turns: int) -> Run[Any]:
            for _ in range(turns):
                await asyncio.sleep(0.001)
            return await two.jobs.sell.trigger("cup")

        refused, run = await asyncio.gather(one.import_database(image), trigger(turn), return_exceptions=True)
        assert isinstance(run, Run), run
        assert refused is None or isinstance(refused, ConflictError), refused
        outcomes.add(refused is None)
        assert await two.get_run(run.id) is not None, f"lost although the import said {refused!r}"
        await two.process_until_idle()
    assert outcomes
    await one.stop()
    await two.stop()


# --- what it says of itself -----------------------------------------------------------------------


@scenario
async def storage_info_says_where_the_data_is_and_how_much(place: Place) -> None:
    async def fill(step: StepContext, size: int) -> None:
        await step.run("fill", lambda: bytes(size))

    job = define_job(name="fill", input=int, run=fill)
    durably = create_durably(place("db"), jobs=[job], clock=ManualClock())
    await durably.migrate()
    before = await durably.storage_info()
    await durably.jobs.fill.trigger(1_000_000)
    await durably.process_until_idle()
    after = await durably.storage_info()
    await durably.stop()

    assert before.bytes_used > 0
    assert after.bytes_used - before.bytes_used > 900_000  # there was some room in the pages
    assert after.state == ("persistent" if after.persisted else "best-effort" if IN_BROWSER else "ready")
    assert after.sqlite_version.startswith("3.")
    if IN_BROWSER:
        assert (after.kind, after.vfs) in [("opfs", "OPFSWriteAheadVFS"), ("opfs", "CoopVFS")]
        assert after.quota is not None
        assert after.quota > after.bytes_used
        assert after.persisted in (True, False)
    else:
        assert (after.kind, after.quota, after.persisted) == ("file", None, None)
        assert after.vfs in ("unix", "win32")

    in_memory = create_durably(":memory:")
    await in_memory.migrate()
    info = await in_memory.storage_info()
    assert (info.kind, info.quota, info.persisted) == ("memory", None, None)
    assert info.bytes_used == len(await in_memory.export())


@scenario
async def a_database_in_memory_is_of_one_instance_and_lasts_as_long_as_that(place: Place) -> None:
    one, other = create_durably(":memory:"), create_durably(":memory:")
    told: list[str] = []
    job = define_job(name="greets", input=str, run=_greets)
    for durably in (one, other):
        durably.register(job)
        await durably.init()
    other.on("*", lambda event: told.append(event.type))
    run = await one.jobs.greets.trigger_and_wait("you", timeout=10)
    assert run.output == "hello you"
    await asyncio.sleep(1.5)  # longer than it takes to see that a file is gone
    assert (await one.jobs.greets.trigger_and_wait("again", timeout=10)).output == "hello again"
    assert await other.get_runs() == []
    assert told == []
    for durably in (one, other):
        await durably.stop()
    assert len(await one.get_runs()) == 2


async def _greets(step: StepContext, name: str) -> str:
    return str(await step.run("greet", lambda: f"hello {name}"))
