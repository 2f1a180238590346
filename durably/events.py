"""Events: what happened, told after the commit that made it true.

Each type is a frozen dataclass. `EventBus` numbers them, hands them to listeners in order, and keeps a
listener's failure away from the run it listens to. Listeners are plain or async callables.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from .records import Progress

logger = logging.getLogger("durably")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Event:
    """What every event has. `sequence` grows by one per event of this instance."""

    type: ClassVar[str] = ""
    timestamp: datetime
    sequence: int
    run_id: str | None = None
    job_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunTriggered(Event):
    type = "run:trigger"
    payload: Any


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    type = "run:start"
    payload: Any
    worker_id: str
    generation: int = 0
    """The claim that it begins."""


@dataclass(frozen=True, kw_only=True)
class RunCompleted(Event):
    type = "run:complete"
    output: Any
    duration: float
    """Seconds from the first start to completion."""


@dataclass(frozen=True, kw_only=True)
class RunFailed(Event):
    type = "run:fail"
    error: str
    failed_step_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunCancelled(Event):
    type = "run:cancel"


@dataclass(frozen=True, kw_only=True)
class RunRetried(Event):
    type = "run:retry"


@dataclass(frozen=True, kw_only=True)
class RunProgressed(Event):
    type = "run:progress"
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class RunStale(Event):
    """The run's owner is gone; the run is pending again."""

    type = "run:stale"


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    step_name: str
    step_index: int


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    type = "step:start"


@dataclass(frozen=True, kw_only=True)
class StepCompleted(StepEvent):
    type = "step:complete"
    output: Any
    duration: float
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class StepFailed(StepEvent):
    type = "step:fail"
    error: str


@dataclass(frozen=True, kw_only=True)
class StepCancelled(StepEvent):
    type = "step:cancel"


@dataclass(frozen=True, kw_only=True)
class StepRetried(StepEvent):
    """An attempt failed and another will follow."""

    type = "step:retry"
    error: str
    attempt: int
    """The one that failed, from 1."""
    next_attempt_at: datetime


@dataclass(frozen=True, kw_only=True)
class RunCoalesced(Event):
    """A trigger was answered with a pending run; what it asked for was dropped."""

    type = "run:coalesced"
    skipped_payload: Any
    skipped_labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RunDeleted(Event):
    type = "run:delete"


@dataclass(frozen=True, kw_only=True)
class LogWritten(Event):
    type = "log:write"
    level: str
    message: str
    data: Any = None
    step_name: str | None = None
    worker_id: str = ""
    generation: int = 0
    """The claim under which it was written, and who had it."""


@dataclass(frozen=True, kw_only=True)
class WorkerFailed(Event):
    """Something outside any run went wrong; the worker goes on."""

    type = "worker:error"
    error: str
    context: str


EVENT_CLASSES: tuple[type[Event], ...] = (
    RunTriggered,
    RunStarted,
    RunCompleted,
    RunFailed,
    RunCancelled,
    RunRetried,
    RunProgressed,
    RunStale,
    StepStarted,
    StepCompleted,
    StepFailed,
    StepCancelled,
    StepRetried,
    RunCoalesced,
    RunDeleted,
    LogWritten,
    WorkerFailed,
)
EVENT_TYPES = frozenset(kind.type for kind in EVENT_CLASSES)
TERMINAL_TYPES = frozenset({RunCompleted.type, RunFailed.type, RunCancelled.type})

Listener = Callable[[Any], Awaitable[None] | None]
Listeners = dict[str, dict[object, Listener]]
ErrorHandler = Callable[..., Awaitable[None] | None]
"""Takes what a listener raised, and the event if it takes two arguments."""

CLEANUP_SECONDS = 1.0
"""A listener that was cancelled may take this long to clean up before nobody waits for it any more."""

_delivery: ContextVar[asyncio.Task[Any] | None] = ContextVar("durably_delivery", default=None)
"""The async listener whose code the present task executes; tasks that it starts inherit it."""


class EventBus:
    """Hands events to listeners. `now` gives the timestamp of each."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.sequence = 0
        """The number of the latest event."""
        # By a token: a function that listens twice is two listeners.
        self._listeners: Listeners = {}
        self._listeners_here: Listeners = {}
        self._error_handlers: dict[object, ErrorHandler] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._draining: set[asyncio.Task[Any] | None] = set()
        """Those of them that wait for the others."""

    def on(self, event_type: str, listener: Listener, *, here_only: bool = False) -> Callable[[], None]:
        """Call `listener` for each event of the type (`"*"`: of any); returns the way to stop it.

        `here_only` leaves out what other instances told. Raises `ValueError` for a type that does not exist,
        `TypeError` for a listener that cannot be called.
        """
        if event_type != "*" and event_type not in EVENT_TYPES:
            raise ValueError(f"no event has the type {event_type!r}; known: *, {', '.join(sorted(EVENT_TYPES))}")
        if not callable(listener):
            raise TypeError(f"a listener is a function that takes the event, not {listener!r}")
        return _added((self._listeners_here if here_only else self._listeners).setdefault(event_type, {}), listener)

    def on_error(self, handler: ErrorHandler) -> Callable[[], None]:
        """Call `handler(error)` or `handler(error, event)` with what a listener raised; without one it is logged."""
        return _added(self._error_handlers, handler)

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Make an event of this kind and hand it to everyone who listens. One that nobody hears has only a number."""
        if not (_heard(kind, self._listeners_here) or _heard(kind, self._listeners)):
            self.sequence += 1
            return
        event = self._made(kind, self._now(), facts)
        self._hand(event, self._listeners_here)
        self._hand(event, self._listeners)

    def pass_on(self, kind: type[Event], timestamp: datetime, facts: Mapping[str, Any]) -> None:
        """Hand out an event of another instance. It gets a number of this one's.

        Raises `TypeError` for facts that the kind does not have.
        """
        self._hand(self._made(kind, timestamp, facts), self._listeners)

    def _made(self, kind: type[Event], timestamp: datetime, facts: Mapping[str, Any]) -> Event:
        event = kind(timestamp=timestamp, sequence=self.sequence + 1, **facts)
        self.sequence += 1
        return event

    def _hand(self, event: Event, to: Listeners) -> None:
        listeners = to.get(event.type, {}) | to.get("*", {})
        for token, listener in listeners.items():
            if token not in to.get(event.type, {}) and token not in to.get("*", {}):
                continue  # one before it has taken it out
            try:
                outcome = listener(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a listener must never break a run
                self._report(error, event)
            else:
                if inspect.isawaitable(outcome):
                    self._await(self._deliver(outcome, event))

    async def drain(self) -> None:
        """Wait for async listeners that are still at work. Who gives up waiting does not cancel them."""
        asking = _delivery.get()
        self._draining.add(asking)
        try:
            while others := self._others():
                await asyncio.wait(others)
        finally:
            self._draining.discard(asking)

    async def cancel_listeners(self) -> None:
        """Cancel the async listeners that are still at work; they have a moment to clean up."""
        if left := self._others():
            logger.warning("%d listeners were still at work at the end of the time to stop: cancelled", len(left))
            for delivery in left:
                delivery.cancel()
            await asyncio.wait(left, timeout=CLEANUP_SECONDS)

    def _others(self) -> set[asyncio.Task[None]]:
        """The listeners at work. One that asks for this must not wait for its own end, nor two for each other's."""
        return self._deliveries - self._draining - {_delivery.get()}

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        delivery = asyncio.ensure_future(work)
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def _deliver(self, outcome: Awaitable[None], event: Event) -> None:
        _delivery.set(asyncio.current_task())
        try:
            await outcome
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # noqa: BLE001 - as for a plain listener
            self._report(error, event)

    def _report(self, error: BaseException, event: Event) -> None:
        if not self._error_handlers:
            logger.error("a listener of %s failed", event.type, exc_info=error)
        for handler in [*self._error_handlers.values()]:
            try:
                outcome = handler(*(error, event)[: _arguments(handler)])
            except Exception:
                logger.exception("an error handler failed for %s", event.type)
            else:
                if inspect.isawaitable(outcome):
                    self._await(self._handled(outcome, event))

    async def _handled(self, outcome: Awaitable[None], event: Event) -> None:
        _delivery.set(asyncio.current_task())
        try:
            await outcome
        except Exception:
            logger.exception("an error handler failed for %s", event.type)


def _heard(kind: type[Event], listeners: Listeners) -> bool:
    return bool(listeners.get(kind.type) or listeners.get("*"))


def _added(functions: dict[object, T], function: T) -> Callable[[], None]:
    """Add a function; the way to take it out again, and no other."""
    token = object()
    functions[token] = function

    def remove() -> None:
        functions.pop(token, None)

    return remove


def _arguments(handler: ErrorHandler) -> int:
    """How many arguments an error handler takes: 1 or 2."""
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        return 1
    except ValueError:  # it is not written in Python and does not say
        return 2
    return 2
