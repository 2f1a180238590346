"""The SQL: hot statements use an index however many finished runs there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from durably import queries
from durably.migrations import migrations

HOT = {
    name: getattr(queries, name)
    for name in (
        "RUN_BY_ID",
        "RUN_BY_ID_OR_KEY",
        "ANY_CLAIMABLE",
        "OTHER_OWNERS",
        "CLAIM",
        "RECLAIM",
        "HEARTBEAT",
        "STEPS_OF_RUN",
        "PUT_STEP",
        "ADVANCE_RUN",
        "PUT_PROGRESS",
        "FINISH_RUN",
        "RELEASE_RUN",
        "CANCEL_RUN",
        "RETRY_RUN",
    )
}


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
    statements = {name: sql for name, sql in vars(queries).items() if name.isupper()}
    assert set(HOT) < set(statements)
    for sql in statements.values():
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
