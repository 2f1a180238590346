"""Following one run: its present state first, then what happens, up to its end.

The events of this instance come from its bus. A run may also be executed by another tab or process, whose
bus is not ours: so the row is read again whenever nothing was heard for a polling interval, and what it
says is told as the event that it amounts to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from .clock import Clock, wait_event
from .errors import NotFoundError
from .events import (
    TERMINAL_TYPES,
    Event,
    EventBus,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunProgressed,
    RunStarted,
    RunTriggered,
)
from .records import Run, RunStatus

FindRun = Callable[[str], Awaitable[Run[Any] | None]]


async def follow(
    run_id: str, *, bus: EventBus, clock: Clock, find_run: FindRun, polling_interval: float
) -> AsyncIterator[Event]:
    """The events of a run. Raises `NotFoundError` if there is no such run."""
    heard: deque[Event] = deque()
    something = asyncio.Event()

    def hear(event: Event) -> None:
        if event.run_id == run_id:
            heard.append(event)
            something.set()

    stop_hearing = bus.on("*", hear)
    try:
        seen = await _require(find_run, run_id)
        known = present_state(seen, bus.sequence)
        # What was heard while the row was read is either in the row, and told by it, or still to be told.
        told = {event.type for event in known}
        early = [event for event in heard if event.type not in told or event.type == RunProgressed.type]
        heard.clear()
        for event in [*known, *early]:
            yield event
            if event.type in TERMINAL_TYPES:
                return
        while True:
            something.clear()
            if not heard and not await wait_event(clock, something, polling_interval):
                latest = await _require(find_run, run_id)
                heard.extend(_told_by_row(seen, latest, bus.sequence))
                seen = latest
            while heard:
                event = heard.popleft()
                yield event
                if event.type in TERMINAL_TYPES:
                    return
    finally:
        stop_hearing()


def present_state(run: Run[Any], sequence: int) -> list[Event]:
    """The events that a run's row amounts to."""

    def event(kind: type[Event], timestamp: datetime, **facts: Any) -> Event:
        about: dict[str, Any] = {"run_id": run.id, "job_name": run.job_name, "labels": run.labels}
        return kind(timestamp=timestamp, sequence=sequence, **about, **facts)

    match run.status:
        case RunStatus.PENDING:
            return [event(RunTriggered, run.created_at, payload=run.payload)]
        case RunStatus.COMPLETED:
            duration = _seconds(run.started_at, run.completed_at)
            return [event(RunCompleted, run.updated_at, output=run.output, duration=duration)]
        case RunStatus.FAILED:
            return [event(RunFailed, run.updated_at, error=run.error or "")]
        case RunStatus.CANCELLED:
            return [event(RunCancelled, run.updated_at)]
        case RunStatus.RUNNING:
            started = event(
                RunStarted,
                run.started_at or run.updated_at,
                payload=run.payload,
                worker_id=run.worker_id or "",
            )
            if run.progress is None:
                return [started]
            return [started, event(RunProgressed, run.updated_at, progress=run.progress)]


def _told_by_row(before: Run[Any], now: Run[Any], sequence: int) -> list[Event]:
    if now.status != before.status:
        return present_state(now, sequence)
    if now.progress != before.progress:
        return [event for event in present_state(now, sequence) if event.type == RunProgressed.type]
    return []


async def _require(find_run: FindRun, run_id: str) -> Run[Any]:
    run = await find_run(run_id)
    if run is None:
        raise NotFoundError(f"there is no run {run_id}")
    return run


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return (end - start).total_seconds() if start and end else 0.0
