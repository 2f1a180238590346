"""The SQL: hot statements use an index however many finished runs there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from durably import ledger_queries, queries
from durably.migrations import migrations

COLD = {
    "CREATE_SCHEMA_VERSIONS",
    "HAS_SCHEMA_VERSIONS",
    "SCHEMA_VERSION",
    "RECORD_VERSION",
    "LIST_RUNS",  # has a test of its own
    "WAKE_ALL_PARENTS",  # over the pending rows, after a death
    "COUNT_ACTIVE",
    "LIST_SCHEDULES",
}
ALL = {name: sql for name, sql in {**vars(queries), **vars(ledger_queries)}.items() if name.isupper()}
HOT = {name: sql for name, sql in ALL.items() if name not in COLD}


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(queries.CREATE_SCHEMA_VERSIONS)
    for migration in migrations():
        for statement in migration.statements:
            connection.execute(statement)
    yield connection
    connection.close()


def bound(sql: str) -> dict[str, None]:
    return dict.fromkeys(re.findall(r":([a-z_]+)", sql))


def test_every_statement_is_understood_by_sqlite(connection: sqlite3.Connection) -> None:
    for sql in ALL.values():
        connection.execute(f"EXPLAIN {sql}", bound(sql))


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_never_scans_the_runs(connection: sqlite3.Connection, name: str) -> None:
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {HOT[name]}", bound(HOT[name]))]
    scans = [line for line in plan if re.match(r"SCAN (durably_|candidate|busy|ahead)", line)]
    # A scan of a partial index is a scan of the few rows in it: those that are pending, or running.
    whole = [line for line in scans if not re.search(r"INDEX durably_runs_(pending|running)\b", line)]
    assert not whole, plan


def test_the_newest_runs_are_listed_without_sorting(connection: sqlite3.Connection) -> None:
    sql = queries.LIST_RUNS
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bound(sql))]
    assert not [line for line in plan if "TEMP B-TREE" in line], plan
