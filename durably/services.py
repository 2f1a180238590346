"""What an execution works with, and how durably's own failures are told from a job's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from .clock import Clock
from .errors import StorageError, StoreFailedError
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


async def ours(work: Awaitable[T]) -> T:
    """Do durably's own work on the store: if it fails, that is not the job's failure (`StoreFailedError`)."""
    try:
        return await work
    except StorageError as error:
        raise StoreFailedError(error) from error
