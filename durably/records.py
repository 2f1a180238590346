"""What durably says of a run: plain frozen records, with nothing behind them.

`Run` and `Step` are snapshots. They do not change when the run does; ask again for a newer one.
Datetimes are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from .texts import run_words

OutputT = TypeVar("OutputT")


class RunStatus(StrEnum):
    """Where a run stands. `pending` and `running` are active, the other three terminal."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended: `completed`, `failed` or `cancelled`."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run says it is: `current` of `total` (when known), with a word to it."""

    current: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[OutputT]):
    """One run of a job. `payload` and `output` are typed where the job is registered, else plain JSON."""

    id: str
    job_name: str
    status: RunStatus
    payload: Any
    output: OutputT | None
    error: str | None
    progress: Progress | None
    labels: Mapping[str, str]
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    current_step_index: int
    """Index of the latest step that has a checkpoint, -1 before the first."""
    completed_step_count: int
    waiting_for: str | None
    """`sleep:NAME`, `signal:NAME` or `run:ID` while the run only waits; it is `pending` then."""
    generation: int
    """How often the run was claimed; every write of an execution carries it (a fencing token)."""
    worker_id: str | None
    heartbeat_at: datetime | None
    run_at: datetime
    """It is not claimed before; while it sleeps, the moment at which it wakes up."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    disposition: str | None = field(default=None, compare=False)
    """What `trigger` did: `created`, or `idempotent` or `coalesced` where the run was there already; else `None`."""

    def __repr__(self) -> str:
        return f"<Run {run_words(self)}>"

    def _repr_html_(self) -> str:
        # Only a notebook asks for it, and a page that is none boots without.
        from .cards import run_card

        return run_card(self)

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.status.is_terminal

    @property
    def is_active(self) -> bool:
        """Whether it is `pending` or `running`."""
        return not self.status.is_terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run: its last attempt."""

    name: str
    index: int
    status: str
    """`waiting`, `completed`, `failed` or `cancelled`."""
    output: Any
    error: str | None
    attempt: int
    started_at: datetime
    completed_at: datetime | None
    """When it ended, however it did; `None` while the step waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One line that a run logged. `level` is `info`, `warning` or `error`."""

    level: str
    message: str
    data: Any
    step_name: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job that is triggered by the clock: `every` so many seconds, or as a `cron` line says in `timezone`.

    `next_at` is the next tick; `catch_up` says what becomes of ticks that were missed: `one`, `all` or `skip`.
    """

    key: str
    job_name: str
    payload: Any
    every: float | None
    cron: str | None
    timezone: str
    catch_up: str
    next_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageInfo:
    """Where the data is, how much there is, and how safe it is there. Sizes are bytes."""

    kind: str
    """`opfs` (a browser's private file system), `file` or `memory`."""
    vfs: str
    """The layer between SQLite and the storage, by its name."""
    bytes_used: int
    """What this database takes, its write-ahead log included."""
    quota: int | None
    """What the browser gives the whole site; `None` where there is no such limit."""
    persisted: bool | None
    """Whether the browser has promised not to clear the site's data; `None` where nobody would."""
    sqlite_version: str
    state: str = "ready"
    """How the storage is. In a browser `persistent`, or `best-effort` where the site's data may be cleared when space
    is short; else `ready`. Then there are `full` (a write has just found no space), `waiting for another tab`, and
    `corrupt: set aside as NAME`: the database was damaged, and a new one was begun."""
