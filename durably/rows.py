"""The rows of the store as Python sees them: JSON as text, instants as `EpochMs`, nothing typed by a user."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import NamedTuple

from .clock import EpochMs
from .database import Row
from .errors import ValidationError
from .records import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A row of `durably_runs`."""

    id: str
    job_name: str
    status: RunStatus
    payload: str
    output: str | None
    error: str | None
    failed_step_name: str | None
    progress: str | None
    labels: str
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    current_step_index: int
    completed_step_count: int
    waiting_for: str | None
    generation: int
    worker_id: str | None
    heartbeat_at: EpochMs | None
    claimed_at: EpochMs | None
    active_ms: int
    """How long the run has been at work, waiting not counted, up to its present claim."""
    crash_count: int
    """Deaths of its workers since its last checkpoint."""
    suspect_step: str | None
    parent_id: str | None
    is_detached: int
    run_at: EpochMs
    created_at: EpochMs
    updated_at: EpochMs
    started_at: EpochMs | None
    completed_at: EpochMs | None


class StoredStep(NamedTuple):
    """A row of `durably_steps`, as `STEPS_OF_RUN` selects it: a run that goes on may have thousands of them."""

    run_id: str
    name: str
    step_index: int
    status: str
    output: str | bytes | None
    error: str | None
    attempt: int
    wake_at: EpochMs | None
    signal: str | None
    child_id: str | None
    started_at: EpochMs
    completed_at: EpochMs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a trigger stores. `payload` is JSON text."""

    id: str
    job_name: str
    payload: str
    labels: dict[str, str]
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    coalesce: bool = False
    priority: int = 0
    run_at: EpochMs
    parent_id: str | None = None
    is_detached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right of one execution to write for its run."""

    run_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is written of a step: its result, its failure, or what it waits for."""

    name: str
    step_index: int
    status: str
    output: str | bytes | None = None
    error: str | None = None
    attempt: int = 1
    wake_at: EpochMs | None = None
    signal: str | None = None
    child_id: str | None = None
    progress: str | None = None
    """The run's progress as JSON text where it is newer than the stored one, else `None`."""
    started_at: EpochMs
    now: EpochMs

    def completed(self, output: str | bytes, *, progress: str | None = None, now: EpochMs) -> Checkpoint:
        """The same step, now that it has its result. (`replace` takes 1.6 times as long.)"""
        return Checkpoint(
            name=self.name,
            step_index=self.step_index,
            status="completed",
            output=output,
            attempt=self.attempt,
            signal=self.signal,
            child_id=self.child_id,
            progress=progress,
            started_at=self.started_at,
            now=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Owners that are to lose their runs: these, and those without a heartbeat after `cutoff`."""

    workers: Collection[str]
    cutoff: EpochMs
    is_crash: bool
    """Whether a death is counted against the runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a worker sees before it takes the write lock."""

    claimable: bool
    owners: dict[str, EpochMs]
    """The workers that own the other running runs, with the oldest heartbeat of each."""
    parkers: set[str]
    """Other workers in which runs are parked that are due."""
    schedules_due: bool
    schema_version: int


MOST_ROWS = 2**63 - 1
"""SQLite knows no larger number."""

# A newer durably, in another tab, may have added columns.
_RUN_COLUMNS = frozenset(field.name for field in fields(StoredRun))


def stored_run(row: Row) -> StoredRun:
    columns = {name: value for name, value in zip(row.keys(), row, strict=True) if name in _RUN_COLUMNS}
    columns["status"] = RunStatus(columns["status"])
    return StoredRun(**columns)


def run_key(run_id: object) -> str:
    """A run's id as the store knows it. What is no text is the id of no run, and SQLite may not even take it."""
    return run_id if isinstance(run_id, str) else ""


def row_count(what: str, number: object, *, least: int = 0) -> int:
    """A number of rows given by a user, at most SQLite's largest. Raises `ValidationError` for what is none."""
    if not isinstance(number, int) or number < least:
        raise ValidationError(f"{what} must be a whole number from {least} on, got {number!r}")
    return min(number, MOST_ROWS)


def json_list(values: Collection[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
