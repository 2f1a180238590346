"""SQLite files on CPython, through the standard library's `sqlite3`.

One connection on a thread of its own, so that a flush to disk never blocks the event loop. The file is
in WAL mode; a write batch begins with `BEGIN IMMEDIATE`, so two processes wait for each other at its
start (up to `BUSY_TIMEOUT_SECONDS`) and never in its middle. Needs SQLite 3.37 or later.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import TypeVar

from ..database import IN_MEMORY, OpenTransaction, Result, Row, Statement
from ..errors import StorageError, StorageFullError, ValidationError
from ..events import logger
from ..records import StorageInfo
from .thread import WorkThread

BUSY_TIMEOUT_SECONDS = 10.0
BUSY_PAUSE_SECONDS = 0.01
OLDEST_SQLITE = (3, 37, 0)

T = TypeVar("T")


class _UnlessFoundError(Exception):
    """Ends a replacement that has only begun."""


class SQLiteDatabase:
    """`name` is a path, or `IN_MEMORY` for a database that ends with this object."""

    def __init__(self, name: str, *, durability: str = "full") -> None:
        self._name = name
        self._synchronous = "PRAGMA synchronous=FULL" if durability == "full" else "PRAGMA synchronous=NORMAL"
        self._connection: sqlite3.Connection | None = None
        self._thread: WorkThread | None = None
        self._turn = asyncio.Lock()
        self._is_full = False

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
            self._is_full = False

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        """A thread does what is under way, and goes on with it."""
        return nullcontext()

    def beat(self, statement: Callable[[], Statement], seconds: float) -> Callable[[], None] | None:
        if self._name == IN_MEMORY:
            return None
        stopping = threading.Event()
        thread = threading.Thread(
            target=self._beat, args=(statement, seconds, stopping), name="durably-heartbeat", daemon=True
        )
        thread.start()

        def stop() -> None:
            stopping.set()
            thread.join()

        return stop

    def _beat(self, statement: Callable[[], Statement], seconds: float, stopping: threading.Event) -> None:
        # A connection of its own: the other one may be in the middle of a transaction.
        connection: sqlite3.Connection | None = None
        while not stopping.wait(seconds):
            try:
                if connection is None:
                    connection = sqlite3.connect(self._name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
                due = statement()
                connection.execute(due.sql, due.params)
            except sqlite3.Error as error:
                # The lease may run out, and then the run goes to somebody else; nothing is lost.
                logger.warning("a heartbeat to %s failed: %s", self._name, error)
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        async with self._turn:
            if self._name == IN_MEMORY or self._thread is None:
                return
            await self._on_thread(self._close)
            self._thread.end()
            self._thread = None

    async def dump(self) -> bytes:
        async with self._turn:
            return await self._on_thread(self._dump)

    async def staged(self, image: bytes) -> SQLiteDatabase:
        staged = SQLiteDatabase(IN_MEMORY)
        staged._connection = await self._on_thread(lambda: _holding(image))
        return staged

    async def load(self, image: bytes, *, unless: Statement) -> bool:
        async with self._turn:
            return await self._on_thread(lambda: self._load(image, unless))

    async def info(self) -> StorageInfo:
        async with self._turn:
            return await self._on_thread(self._info)

    async def _run_in_transaction(self, statement: Statement) -> Result:
        return await self._on_thread(lambda: self._run(statement))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = WorkThread("durably-sqlite")
        return await self._thread.do(lambda: self._translated(work))

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_FULL:
                self._is_full = True
                raise StorageFullError(f"no space is left for the database {self._name}; free some") from error
            if code == sqlite3.SQLITE_NOTADB:
                raise StorageError(
                    f"the file {self._name} is not a SQLite database; it was left as it is, choose another name"
                ) from error
            if str(error).startswith("no such table: durably_"):
                raise StorageError(
                    f"there is nothing of durably's in {self._name} yet; call init() or migrate() first"
                ) from error
            raise StorageError(f"database {self._name}: {error}") from error
        except UnicodeEncodeError as error:
            raise ValidationError(f"a text with half a surrogate pair cannot be stored: {error.object!r}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old; durably needs 3.37 or later")
        connection = sqlite3.connect(
            self._name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _begin_wal(connection)
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
            self._opened().execute("BEGIN")
        else:
            self._opened().execute("BEGIN IMMEDIATE")
        try:
            results = [self._run(statement) for statement in statements]
        except BaseException:
            self._rollback()
            raise
        self._commit()
        self._is_full = self._is_full and all(statement.is_read for statement in statements)
        return results

    def _run(self, statement: Statement) -> Result:
        cursor = self._opened().execute(statement.sql, statement.params)
        names = [column[0] for column in cursor.description or ()]
        rows = [Row(names, values) for values in cursor.fetchall()]
        return Result(rows, max(cursor.rowcount, 0))

    def _commit(self) -> None:
        try:
            self._opened().execute("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        # SQLite has rolled back by itself after some errors (a full disk, for one).
        if self._opened().in_transaction:
            self._run(Statement("ROLLBACK"))

    def _dump(self) -> bytes:
        connection = self._opened()
        # SQLite cannot serialize what has no page yet.
        return connection.serialize() if _size(connection) else b""

    def _load(self, image: bytes, unless: Statement) -> bool:
        live = self._opened()
        if live.execute(unless.sql).fetchone():
            return False
        with closing(_holding(image)) as staged:
            if self._name == IN_MEMORY:
                # No other connection can have written since.
                staged.backup(live)
                return True
            # Only in this mode can what is there be read while the lock for the replacement is held.
            live.execute("PRAGMA journal_mode=WAL")
            return self._load_page_by_page(staged, live, unless)

    def _load_page_by_page(self, staged: sqlite3.Connection, live: sqlite3.Connection, unless: Statement) -> bool:
        with closing(sqlite3.connect(self._name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)) as reader:

            def look_again(status: int, remaining: int, total: int) -> None:
                if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise sqlite3.OperationalError("it is kept locked by someone else")
                # The first page is written and not committed: from here on nobody else can write.
                if remaining == total - 1 and reader.execute(unless.sql).fetchone():
                    raise _UnlessFoundError

            try:
                staged.backup(live, pages=1, progress=look_again)
            except _UnlessFoundError:
                return False
        return True

    def _info(self) -> StorageInfo:
        in_memory = self._name == IN_MEMORY
        files = [Path(self._name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
        size = _size(self._opened())
        return StorageInfo(
            kind="memory" if in_memory else "file",
            vfs="memory" if in_memory else "win32" if os.name == "nt" else "unix",
            bytes_used=size if in_memory else sum(file.stat().st_size for file in files if file.exists()),
            quota=None,
            persisted=None,
            sqlite_version=sqlite3.sqlite_version,
            state="full" if self._is_full else "ready",
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _begin_wal(connection: sqlite3.Connection) -> None:
    """Put a new file in WAL mode. One that exists keeps its mode: it may belong to a newer durably, or to others."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while connection.execute("PRAGMA page_count").fetchone()[0] == 0:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Of two that do this at once SQLite refuses one without letting it wait.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_SECONDS)
        else:
            return


def _holding(image: bytes) -> sqlite3.Connection:
    """A database in memory that begins as this image."""
    connection = sqlite3.connect(IN_MEMORY, isolation_level=None, check_same_thread=False)
    if image:
        connection.deserialize(image)
    return connection


def _size(connection: sqlite3.Connection) -> int:
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    [page_size] = connection.execute("PRAGMA page_size").fetchone()
    return int(pages * page_size)
