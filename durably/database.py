"""The port to a database: run SQL atomically, and know nothing of jobs.

A backend is one class with this protocol. `execute` is the primitive: all its statements in one
transaction, in one call, which in the browser means one crossing of the Python-JavaScript border.
`transaction` is for the rare case where Python must decide between two statements.

A database opens itself at first use and again after `close`. Errors: `StorageError` and its kinds;
after any error the transaction has been rolled back. SQL and parameters are those of SQLite: `?` with
a sequence, or `:name` with a mapping.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, overload

from .errors import DurablyError
from .records import StorageInfo

IN_MEMORY = ":memory:"
"""The name of a database without a file, which nobody else can have."""

Value = None | int | float | str | bytes
Params = Sequence[Value] | Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and its parameters. It must begin with its verb (`SELECT`, `INSERT`, ...)."""

    sql: str
    params: Params = ()

    @property
    def is_read(self) -> bool:
        """Whether it only reads. Batches that only read take no write lock."""
        return self.sql.startswith("SELECT")


class Row(Sequence[Any]):
    """One row: `row[0]` and `row["name"]`."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: Sequence[str], values: Sequence[Value]) -> None:
        self._names = names
        self._values = values

    @overload
    def __getitem__(self, key: str | int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Any]: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            try:
                return self._values[self._names.index(key)]
            except ValueError:
                raise KeyError(f"no column {key!r}; the row has {', '.join(self._names)}") from None
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)  # what `Sequence` has asks for each value by its number

    def keys(self) -> list[str]:
        """The column names, in order."""
        return list(self._names)

    def __repr__(self) -> str:
        cells = ", ".join(f"{name}={value!r}" for name, value in zip(self._names, self._values, strict=True))
        return f"Row({cells})"


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement gave: its rows, and how many rows it changed."""

    rows: list[Row]
    changes: int


class Transaction(Protocol):
    """An open write transaction; commits when its block ends, rolls back when the block raises."""

    async def execute(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement; its rows."""
        ...


class OpenTransaction:
    """A `Transaction` over a backend's way to run one statement in it.

    Whoever keeps it beyond its block gets a `DurablyError`, not a write outside any transaction.
    """

    def __init__(self, run: Callable[[Statement], Awaitable[Result]]) -> None:
        self._run: Callable[[Statement], Awaitable[Result]] | None = run

    async def execute(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement inside the transaction; its rows."""
        if self._run is None:
            raise DurablyError("this transaction has ended; what belongs to it must be done inside its function")
        return (await self._run(Statement(sql, params))).rows

    def end(self) -> None:
        """From here on nothing runs in it."""
        self._run = None


class Database(Protocol):
    """A place that runs SQL atomically. See the module's text for the contract."""

    @property
    def name(self) -> str:
        """What a person would call it: the file's name."""
        ...

    async def execute(self, *statements: Statement) -> list[Result]:
        """Run all statements in one transaction, or none of them; what each gave."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A write transaction, begun at once (`BEGIN IMMEDIATE`); nothing else runs here meanwhile."""
        ...

    def beat(self, statement: Callable[[], Statement], seconds: float) -> Callable[[], None] | None:
        """Run a statement every so many seconds whatever the event loop does; returns the way to stop it.

        `statement` is called each time, from another thread. `None` where nothing runs beside the loop, or where
        nobody else could see it.
        """
        ...

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        """While its block runs, nothing of this database is under way.

        For plain code on the event loop's own thread: a lock that was asked for before it would be granted while it
        runs, and held against everybody else until it ends.
        """
        ...

    async def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        ...

    async def dump(self) -> bytes:
        """All of it at one moment, as the bytes of a SQLite file; none where nothing was ever written."""
        ...

    async def staged(self, image: bytes) -> Database:
        """Another database, in memory, that begins as this image (of no bytes: empty). Close it after use.

        Nothing is checked: whether the image is sound shows when the other database reads it.
        """
        ...

    async def load(self, image: bytes, *, unless: Statement) -> bool:
        """Replace everything by a sound image of the same page size and encoding, in one transaction.

        Not if `unless`, a read without parameters, finds rows here; false then. Nobody can write between that
        look and the replacement.
        """
        ...

    async def info(self) -> StorageInfo:
        """Where the data is, and how much there is."""
        ...
