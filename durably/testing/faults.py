"""A database that fails when it is told to.

What a *call* is: one `execute` with all its statements, or in a transaction its beginning (`BEGIN
IMMEDIATE`), each statement, and its commit (`COMMIT`); beside these `dump` and `load`. Calls are counted
from 1, those that fail included. Heartbeats from beside the event loop are no calls.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from ..database import Database, Params, Result, Row, Statement, Transaction
from ..databases import open_database
from ..errors import StorageError
from ..records import StorageInfo

FailOn = int | Collection[int] | Callable[[str], bool] | None


def _storage_error() -> Exception:
    return StorageError("the database fails because a test told it to")


class FaultyDatabase:
    """Wraps a database and lets chosen calls fail.

    `database`: a name as for `create_durably`, or a `Database`. `fail_on`: the number of the call to fail,
    several numbers, or a function that is given a call's SQL (a batch's statements, one a line) and says
    whether it fails; `None` for never. It can be set anew at any time, as can `error` (makes the error
    to raise; a class will do) and `when`:

    * `"before"`: the call is not made. A transaction's `COMMIT` that fails so is rolled back.
    * `"after"`: the call is made, and its answer is lost: what a network or a crash between commit and
      answer looks like. Statements inside a transaction are rolled back with it all the same.

    `times`: after so many failures there are no more; `None` for no such limit.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] | Database = ":memory:",
        fail_on: FailOn = None,
        *,
        error: Callable[[], Exception] = _storage_error,
        when: Literal["before", "after"] = "before",
        times: int | None = None,
    ) -> None:
        if when not in ("before", "after"):
            raise ValueError(f"when must be 'before' or 'after', got {when!r}")
        self.fail_on = fail_on
        self.error = error
        self.when = when
        self.times = times
        self.calls: list[str] = []
        """The SQL of every call so far; `len(database.calls) + 1` is the number of the next."""
        self.failures = 0
        """How many calls were failed."""
        self._database = open_database(database)

    @property
    def name(self) -> str:
        return self._database.name

    async def execute(self, *statements: Statement) -> list[Result]:
        fails = self._count("\n".join(statement.sql.strip() for statement in statements))
        self._fail_if(fails and self.when == "before")
        results = await self._database.execute(*statements)
        self._fail_if(fails)
        return results

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        fails = self._count("BEGIN IMMEDIATE")
        self._fail_if(fails and self.when == "before")
        async with self._database.transaction() as tx:
            self._fail_if(fails)
            yield _FaultyTransaction(self, tx)
            fails = self._count("COMMIT")
            self._fail_if(fails and self.when == "before")
        self._fail_if(fails)

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        return self._database.at_rest()

    def beat(self, statement: Callable[[], Statement], seconds: float) -> Callable[[], None] | None:
        return self._database.beat(statement, seconds)

    async def close(self) -> None:
        await self._database.close()

    async def dump(self) -> bytes:
        fails = self._count("dump")
        self._fail_if(fails and self.when == "before")
        image = await self._database.dump()
        self._fail_if(fails)
        return image

    async def staged(self, image: bytes) -> Database:
        return await self._database.staged(image)

    async def load(self, image: bytes, *, unless: Statement) -> bool:
        fails = self._count("load")
        self._fail_if(fails and self.when == "before")
        is_loaded = await self._database.load(image, unless=unless)
        self._fail_if(fails)
        return is_loaded

    async def info(self) -> StorageInfo:
        return await self._database.info()

    def _count(self, sql: str) -> bool:
        """Count a call; whether it is one that fails."""
        self.calls.append(sql)
        if self.fail_on is None or (self.times is not None and self.failures >= self.times):
            return False
        if callable(self.fail_on):
            return self.fail_on(sql)
        return len(self.calls) in ([self.fail_on] if isinstance(self.fail_on, int) else self.fail_on)

    def _fail_if(self, fails: bool) -> None:
        if fails:
            self.failures += 1
            raise self.error()


class _FaultyTransaction:
    def __init__(self, database: FaultyDatabase, tx: Transaction) -> None:
        self._database = database
        self._tx = tx

    async def execute(self, sql: str, params: Params = ()) -> list[Row]:
        database = self._database
        fails = database._count(sql.strip())
        database._fail_if(fails and database.when == "before")
        rows = await self._tx.execute(sql, params)
        database._fail_if(fails)
        return rows
