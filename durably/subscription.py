"""Following one run: its present state first, then what happens, up to its end.

The events of this instance come from its bus, every one of them once, and those of the neighbours that tell us. A
run may also be executed by a process that does not, or a message may be late: so the row is read again whenever
nothing was heard for a polling interval, and what it says is told as the event that it amounts to; where there are
neighbours, only after one more interval, in which their own word of it may come.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from .clock import Bell, Clock
from .events import (
    TERMINAL_TYPES,
    Event,
    EventBus,
    LogWritten,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunProgressed,
    RunRetried,
    RunStale,
    RunStarted,
    RunTriggered,
)
from .execution import Execution
from .records import Progress, Run, RunStatus

CLOCK_WAS_SET = timedelta(minutes=10)
"""No message is under way for so long."""

FindRun = Callable[[str], Awaitable[tuple[Run[Any], str | None]]]
"""The run, and the step that it failed in. Raises `NotFoundError`."""
FindExecution = Callable[[Run[Any]], Execution | None]
"""The execution of a run by this instance, under the very claim that its row has."""
Callback = Callable[[Any], Any] | None
"""Plain or async."""


class Hearing:
    """Hears the events of one run, from the moment that it is made until its block is left."""

    def __init__(self, run_id: str, bus: EventBus, clock: Clock) -> None:
        self.run_id = run_id
        self.events: deque[Event] = deque()
        """What was heard and is not told yet."""
        self.bell = Bell(clock)
        self._stop = bus.on("*", self._hear)

    def __enter__(self) -> Hearing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self.bell.stop()

    def _hear(self, event: Event) -> None:
        if event.run_id == self.run_id:
            self.events.append(event)
            self.bell.ring()


async def follow(
    run_id: str,
    hearing: Hearing | None = None,
    first: Run[Any] | None = None,
    *,
    bus: EventBus,
    clock: Clock,
    find_run: FindRun,
    find_execution: FindExecution,
    may_hear_of_it: Callable[[], bool],
    polling_interval: float,
) -> AsyncGenerator[Event, None]:
    """The events of a run. Raises `NotFoundError` if there is no such run.

    `hearing`: one that has begun already, and is its owner's to end. `first`: the run as it was then; otherwise its row
    is read. `may_hear_of_it`: whether somebody may be about to tell what the row says already.
    """
    told = _Told()
    with nullcontext(hearing) if hearing is not None else Hearing(run_id, bus, clock) as ear:
        heard, bell = ear.events, ear.bell
        sequence = bus.sequence
        run, failed_step = (first, None) if first is not None else await find_run(run_id)
        if run.is_terminal:
            # What was heard while it was read had happened before it ended, and is told before that.
            before = [event for event in heard if event.type not in TERMINAL_TYPES]
            heard.clear()
            heard.extend([*before, *present_state(run, bus.sequence, failed_step)])
        else:
            if any(isinstance(event, RunProgressed) for event in heard):
                run = replace(run, progress=None)  # what was heard is at least as new
            elif (execution := find_execution(run)) is not None and execution.progress is not None:
                run = replace(run, progress=execution.progress)  # the store hears of it a moment later
            told.note_read(run)
            heard.extendleft(reversed(present_state(run, sequence, failed_step)))
        is_patient = True
        while True:
            while heard:
                event = heard.popleft()
                if not told.is_news(event):
                    continue
                told.note(event)
                yield event
                if event.type in TERMINAL_TYPES:
                    return
            if await bell.wait(polling_interval):
                is_patient = True
                continue
            run, failed_step = await find_run(run_id)
            # What is executed here is told by the bus, all of it; so is what was heard meanwhile.
            if heard or find_execution(run) is not None:
                continue
            news = [event for event in present_state(run, bus.sequence, failed_step) if told.is_newer(event)]
            is_patient = not (news and is_patient and may_hear_of_it())
            if is_patient:
                told.note_read(run)
                heard.extend(news)


async def hand_on(event: Event, on_progress: Callback, on_log: Callback) -> None:
    """Tell who waits for a run what it says: progress and log lines. Raises what the callbacks raise."""
    outcome = None
    if on_progress is not None and isinstance(event, RunProgressed):
        outcome = on_progress(event.progress)
    elif on_log is not None and isinstance(event, LogWritten):
        outcome = on_log(event)
    if inspect.isawaitable(outcome):
        await outcome


def _is_by(moment: datetime, limit: datetime) -> bool:
    """Whether it is not after the limit. So long before it means that the clock has been set back in between."""
    return moment <= limit < moment + CLOCK_WAS_SET


class _Told:
    """What a subscriber knows of the run's state, so that the bus and the row do not tell it twice."""

    def __init__(self) -> None:
        self._state: str | None = None
        self._generation: int | None = None
        self._progress: Progress | None = None
        self._latest: datetime | None = None
        self._read_at: datetime | None = None
        """Of the row that progress was read from, which had all that was said before."""

    def is_newer(self, from_row: Event) -> bool:
        """Whether what the row says is later than what was told: progress reaches it a moment after the bus."""
        if isinstance(from_row, RunProgressed):
            is_old = self._latest is not None and _is_by(from_row.timestamp, self._latest)
            return not is_old and from_row.progress != self._progress
        return not isinstance(from_row, RunStarted) or self._state != RunStarted.type

    def is_news(self, event: Event) -> bool:
        """Whether it was not told yet: the row may have been ahead of the bus."""
        if isinstance(event, RunTriggered):
            return self._state is None
        if isinstance(event, RunProgressed):
            if self._read_at is None or not _is_by(event.timestamp, self._read_at):
                return True
            return event.timestamp == self._read_at and event.progress != self._progress
        return not isinstance(event, RunStarted) or self._generation is None or event.generation > self._generation

    def note_read(self, run: Run[Any]) -> None:
        """This row is told next."""
        if run.progress is not None:
            self._read_at = run.updated_at

    def note(self, event: Event) -> None:
        self._latest = event.timestamp
        if isinstance(event, RunProgressed):
            self._progress = event.progress
        elif isinstance(event, RunTriggered | RunStarted | RunStale | RunRetried):
            self._state = event.type
        if isinstance(event, RunStarted):
            self._generation = event.generation


def present_state(run: Run[Any], sequence: int, failed_step: str | None = None) -> list[Event]:
    """The events that a run's row amounts to. It has the step that the run failed in, which a `Run` does not show."""

    def event(kind: type[Event], timestamp: datetime, **facts: Any) -> Event:
        about: dict[str, Any] = {"run_id": run.id, "job_name": run.job_name, "labels": run.labels}
        return kind(timestamp=timestamp, sequence=sequence, **about, **facts)

    match run.status:
        case RunStatus.COMPLETED:
            duration = _seconds(run.started_at, run.completed_at)
            return [event(RunCompleted, run.updated_at, output=run.output, duration=duration)]
        case RunStatus.FAILED:
            return [event(RunFailed, run.updated_at, error=run.error or "", failed_step_name=failed_step)]
        case RunStatus.CANCELLED:
            return [event(RunCancelled, run.updated_at)]
        case RunStatus.PENDING:
            state = event(RunTriggered, run.created_at, payload=run.payload)
        case RunStatus.RUNNING:
            state = event(
                RunStarted,
                run.started_at or run.updated_at,
                payload=run.payload,
                worker_id=run.worker_id or "",
                generation=run.generation,
            )
    if run.progress is None:
        return [state]
    return [state, event(RunProgressed, run.updated_at, progress=run.progress)]


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return (end - start).total_seconds() if start and end else 0.0
