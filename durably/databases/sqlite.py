"""SQLite files on CPython, through the standard library's `sqlite3`.

One connection on a thread of its own, so that a flush to disk never blocks the event loop. The file is
in WAL mode; a write batch begins with `BEGIN IMMEDIATE`, so two processes wait for each other at its
start (up to `BUSY_TIMEOUT_SECONDS`) and never in its middle. Needs SQLite 3.37 or later.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from ..clock import unbroken
from ..database import OpenTransaction, Result, Row, Statement
from ..errors import StorageError, StorageFullError

BUSY_TIMEOUT_SECONDS = 10.0
OLDEST_SQLITE = (3, 37, 0)

T = TypeVar("T")


class SQLiteDatabase:
    """`name` is a path, or `":memory:"` for a database that ends with this object."""

    def __init__(self, name: str, *, durability: str = "full") -> None:
        self._name = name
        self._synchronous = "PRAGMA synchronous=FULL" if durability == "full" else "PRAGMA synchronous=NORMAL"
        self._connection: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, *statements: Statement) -> list[Result]:
        async with self._turn:
            return await self._on_thread(lambda: self._run_batch(statements))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OpenTransaction]:
        async with self._turn:
            tx = OpenTransaction(self._run_in_transaction)
            try:
                await self._on_thread(lambda: self._run(Statement("BEGIN IMMEDIATE")))
                yield tx
            except BaseException:
                tx.end()
                await self._on_thread(self._rollback)
                raise
            tx.end()
            await self._on_thread(self._commit)

    async def close(self) -> None:
        async with self._turn:
            if self._name == ":memory:" or self._thread is None:
                return
            await self._on_thread(self._close)
            self._thread.shutdown()
            self._thread = None

    async def _run_in_transaction(self, statement: Statement) -> Result:
        return await self._on_thread(lambda: self._run(statement))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="durably-sqlite")
        # A statement under way cannot be called back; its end is awaited, so that the next one finds the
        # connection at rest.
        return await unbroken(asyncio.get_running_loop().run_in_executor(self._thread, self._translated, work))

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_FULL:
                raise StorageFullError(f"no space is left for the database {self._name}; free some") from error
            if code == sqlite3.SQLITE_NOTADB:
                raise StorageError(
                    f"the file {self._name} is not a SQLite database; it was left as it is, choose another name"
                ) from error
            raise StorageError(f"database {self._name}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old; durably needs 3.37 or later")
        connection = sqlite3.connect(
            self._name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # A file that exists keeps its mode: this one may belong to a newer durably, or to someone else.
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(self._synchronous)
            connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _run_batch(self, statements: tuple[Statement, ...]) -> list[Result]:
        if all(statement.is_read for statement in statements):
            if len(statements) == 1:
                return [self._run(statements[0])]
            self._run(Statement("BEGIN"))
        else:
            self._run(Statement("BEGIN IMMEDIATE"))
        try:
            results = [self._run(statement) for statement in statements]
        except BaseException:
            self._rollback()
            raise
        self._commit()
        return results

    def _run(self, statement: Statement) -> Result:
        cursor = self._opened().execute(statement.sql, statement.params)
        names = [column[0] for column in cursor.description or ()]
        rows = [Row(names, values) for values in cursor.fetchall()]
        return Result(rows, max(cursor.rowcount, 0))

    def _commit(self) -> None:
        try:
            self._run(Statement("COMMIT"))
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        # SQLite has rolled back by itself after some errors (a full disk, for one).
        if self._opened().in_transaction:
            self._run(Statement("ROLLBACK"))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()
