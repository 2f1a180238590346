"""What an execution works with, and how durably's own failures are told from a job's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from .clock import Clock, EpochMs
from .database import Transaction
from .errors import DurablyError, StorageError, StoreFailedError
from .events import EventBus
from .ids import Ids
from .ledger import Ledger
from .store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """What an execution works with."""

    store: Store
    ledger: Ledger
    bus: EventBus
    clock: Clock
    ids: Ids
    wake: Callable[[], None]
    """Tells the worker to look for work."""
    wake_at: Callable[[EpochMs], None]
    """Tells it to look for work at this moment."""

    @property
    def outside(self) -> Services:
        """These, for a program's own call. Raises `DurablyError` inside a transaction of the same store, whose end it
        would wait for."""
        inside = open_transaction()
        if inside is not None and inside.store is self.store:
            raise DurablyError(
                f"a transaction of run {inside.run_id} is open here, in which only tx is for use: end it first"
            )
        return self


@dataclass(slots=True)
class OpenedTransaction:
    """A transaction of a step."""

    run_id: str
    store: Store
    is_open: bool = True


_transaction: ContextVar[OpenedTransaction | None] = ContextVar("durably_transaction", default=None)


def open_transaction() -> OpenedTransaction | None:
    """The transaction in which the present task is, or the one that started it, while it is open."""
    inside = _transaction.get()
    return inside if inside is not None and inside.is_open else None


@asynccontextmanager
async def in_transaction(run_id: str, store: Store) -> AsyncIterator[Transaction]:
    """A transaction that knows whose it is."""
    opened = OpenedTransaction(run_id, store)
    before = _transaction.set(opened)
    try:
        async with store.database.transaction() as tx:
            yield tx
    finally:
        opened.is_open = False
        _transaction.reset(before)


async def ours(work: Awaitable[T]) -> T:
    """Do durably's own work on the store: if it fails, that is not the job's failure (`StoreFailedError`)."""
    try:
        return await work
    except StorageError as error:
        raise StoreFailedError(error) from error
