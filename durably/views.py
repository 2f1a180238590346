"""Rows of the store as users see them: typed, with aware datetimes. Runs are seen to by `jobs.Registry`."""

from __future__ import annotations

import json

from . import codec
from .clock import to_datetime
from .ledger import StoredLog, StoredSchedule
from .records import Log, Schedule, Step
from .rows import StoredStep


def log_view(stored: StoredLog) -> Log:
    return Log(
        level=stored.level,
        message=stored.message,
        data=None if stored.data is None else json.loads(stored.data),
        step_name=stored.step_name,
        created_at=to_datetime(stored.created_at),
    )


def step_view(stored: StoredStep) -> Step:
    try:
        output = None if stored.output is None else codec.decode(stored.output)
    except codec.CodecError:
        # Its classes are gone or changed: show what is stored. Only an execution must have the very value.
        output = stored.output
    return Step(
        name=stored.name,
        index=stored.step_index,
        status=stored.status,
        output=output,
        error=stored.error,
        attempt=stored.attempt,
        started_at=to_datetime(stored.started_at),
        completed_at=None if stored.completed_at is None else to_datetime(stored.completed_at),
    )


def schedule_view(stored: StoredSchedule) -> Schedule:
    return Schedule(
        key=stored.key,
        job_name=stored.job_name,
        payload=json.loads(stored.payload),
        every=None if stored.every_ms is None else stored.every_ms / 1000,
        cron=stored.cron,
        timezone=stored.timezone,
        catch_up=stored.catch_up,
        next_at=to_datetime(stored.next_at),
    )
