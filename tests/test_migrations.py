"""The schema: the same wherever it comes from, made by one of many, and left alone where it is newer."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from forks import Forks

from durably import SchemaVersionError, Statement, StorageError, create_durably
from durably.clock import EpochMs
from durably.databases import open_database
from durably.migrations import migrations, split_statements
from durably.queries import CREATE_SCHEMA_VERSIONS
from durably.store import Store

TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
SOURCE = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
COLUMNS = "SELECT * FROM pragma_table_xinfo(?) ORDER BY cid"
INDEXES = 'SELECT name, "unique", origin, partial FROM pragma_index_list(?) ORDER BY name'
INDEX_COLUMNS = "SELECT * FROM pragma_index_xinfo(?) ORDER BY seqno"
FOREIGN_KEYS = "SELECT * FROM pragma_foreign_key_list(?) ORDER BY id, seq"


async def schema_in(name: str) -> dict[str, Any]:
    """Migrate a database and look at all that SQLite knows of its schema."""
    database = open_database(name)
    durably = create_durably(database)
    await durably.migrate()

    async def rows(sql: str, *params: str) -> list[tuple[Any, ...]]:
        [result] = await database.execute(Statement(sql, params))
        return [tuple(row) for row in result.rows]

    schema: dict[str, Any] = {"source": await rows(SOURCE), "tables": await rows(TABLES)}
    for (table,) in schema["tables"]:
        indexes = await rows(INDEXES, table)
        schema[table] = [await rows(COLUMNS, table), indexes, await rows(FOREIGN_KEYS, table)]
        for index, *_ in indexes:
            schema[index] = await rows(INDEX_COLUMNS, index)
    await durably.stop()
    return schema


def schema_of(file: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(SOURCE).fetchall()


def as_the_migrations_say(file: Path) -> list[tuple[Any, ...]]:
    """The schema that their text gives, without durably."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(CREATE_SCHEMA_VERSIONS + ";")
        for migration in sorted(Path(sys.modules["durably.migrations"].__path__[0]).glob("*.sql")):
            connection.executescript(migration.read_text("utf-8"))
        return connection.execute(SOURCE).fetchall()


def versions_in(file: Path) -> list[int]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT version FROM durably_schema_versions ORDER BY version")]


async def migrated(file: Path) -> None:
    durably = create_durably(file)
    await durably.migrate()
    await durably.stop()


def test_a_file_and_memory_have_the_schema_that_the_migrations_say(tmp_path: Path) -> None:
    in_file = asyncio.run(schema_in(str(tmp_path / "db.sqlite3")))
    in_memory = asyncio.run(schema_in(":memory:"))
    assert in_file == in_memory
    assert in_file["source"] == as_the_migrations_say(tmp_path / "by-hand.sqlite3")
    assert len(in_file["tables"]) > 5


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_is_empty_or_not_there_gets_the_newest_schema(tmp_path: Path, is_there: bool) -> None:
    file = tmp_path / "db.sqlite3"
    if is_there:
        file.touch()
    asyncio.run(migrated(file))
    assert schema_of(file) == as_the_migrations_say(tmp_path / "by-hand.sqlite3")
    assert versions_in(file) == [migration.version for migration in migrations()]
    before = file.read_bytes()
    asyncio.run(migrated(file))
    assert file.read_bytes() == before, "there was nothing left to do"


def test_a_database_with_tables_of_the_users_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE mine (a); INSERT INTO mine VALUES (1);")
    asyncio.run(migrated(file))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT a FROM mine").fetchall() == [(1,)]
    assert [row for row in schema_of(file) if row[1] != "mine"] == as_the_migrations_say(tmp_path / "by-hand.sqlite3")


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_many_instances_migrate_one_file_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        instances = [create_durably(tmp_path / "db.sqlite3") for _ in range(6)]
        await asyncio.gather(*(durably.migrate() for durably in instances for _ in range(2)))
        for durably in instances:
            await durably.stop()

    asyncio.run(test())
    assert versions_in(tmp_path / "db.sqlite3") == [migration.version for migration in migrations()]
    assert schema_of(tmp_path / "db.sqlite3") == as_the_migrations_say(tmp_path / "by-hand.sqlite3")


def test_several_processes_migrate_one_file_at_once(tmp_path: Path) -> None:
    expected = as_the_migrations_say(tmp_path / "by-hand.sqlite3")
    with Forks() as forks:
        for number in range(3):
            file = tmp_path / f"{number}.sqlite3"
            pids = [forks.start("migrate", str(file), str(tmp_path / "ledger"), 0) for _ in range(4)]
            assert [forks.wait(pid) for pid in pids] == [0] * 4
            assert schema_of(file) == expected
            assert versions_in(file) == [migration.version for migration in migrations()]


def test_a_new_file_that_another_opens_at_the_same_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that put one new file in WAL mode at once SQLite refuses one, and heeds no time-out in that."""
    refusals = [1, 2, 3]

    class Contended(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            if refusals and "journal_mode" in args[0]:
                refusals.pop()
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(*args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Contended, **kwargs))
    asyncio.run(migrated(tmp_path / "db.sqlite3"))
    assert refusals == []
    with closing(connect(tmp_path / "db.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        await migrated(tmp_path / "db.sqlite3")
        before = schema_of(tmp_path / "db.sqlite3")
        store = Store(open_database(str(tmp_path / "db.sqlite3")))
        statements = split_statements(
            "CREATE TABLE extra (a);\n-- a comment; with a semicolon\nCREATE TABLE extra (b);\n"
        )
        assert len(statements) == 2
        next_version = migrations()[-1].version + 1
        with pytest.raises(StorageError, match="already exists"):
            await store.apply_migration(next_version, statements, EpochMs(0))
        assert schema_of(tmp_path / "db.sqlite3") == before
        # The next version of durably finds the file as it was, and goes on from there.
        await store.apply_migration(next_version, statements[:1], EpochMs(0))
        await store.apply_migration(next_version, statements[:1], EpochMs(0))
        assert await store.schema_version() == next_version
        await store.database.close()

    asyncio.run(test())


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_newer_file_is_refused_and_stays_byte_for_byte_the_same(
    tmp_path: Path, journal: str, is_stopped: bool
) -> None:
    """What SQLite itself keeps beside an open file is gone once the instance is stopped."""
    file = tmp_path / "db.sqlite3"
    asyncio.run(migrated(file))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("ALTER TABLE durably_runs ADD COLUMN from_the_future TEXT")
        connection.execute("INSERT INTO durably_schema_versions VALUES (999, 0)")
        connection.commit()
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["db.sqlite3"]

    async def test() -> None:
        if is_stopped:
            durably = create_durably(file)
            for begin in (durably.init, durably.migrate):
                with pytest.raises(SchemaVersionError, match="schema version 999"):
                    await begin()
            await durably.stop()
        else:
            with pytest.raises(SchemaVersionError, match="left untouched"):
                async with create_durably(file):
                    pass

    asyncio.run(test())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    left = {path.name for path in tmp_path.iterdir()} - {"db.sqlite3"}
    assert left <= (set() if is_stopped else {"db.sqlite3-wal", "db.sqlite3-shm"})


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"these are my notes\n" * 100)

    async def test() -> None:
        durably = create_durably(file)
        with pytest.raises(StorageError, match="not a SQLite database"):
            await durably.init()
        await durably.stop()

    asyncio.run(test())
    assert file.read_bytes() == b"these are my notes\n" * 100
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
