"""Time, handed in from outside so that tests own it.

Instants are `EpochMs`: whole milliseconds since 1970, UTC, the one unit that Python, JavaScript and
SQLite share. Spans that a user gives are seconds (`float` or `timedelta`). This module alone reads
the system's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NewType, Protocol, TypeVar

EpochMs = NewType("EpochMs", int)

T = TypeVar("T")

LONGEST_TIMER_SECONDS = 86_400.0
"""Browsers clamp a timer above 2**31 ms; sleeping at most a day at a time keeps clear of it."""


class Clock(Protocol):
    """What durably asks of time. `durably.testing.ManualClock` is the other implementation."""

    def now(self) -> EpochMs:
        """The present instant."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have gone by."""
        ...


class SystemClock:
    """The machine's clock and asyncio's timers."""

    def now(self) -> EpochMs:
        return EpochMs(time.time_ns() // 1_000_000)

    async def sleep(self, seconds: float) -> None:
        while seconds > LONGEST_TIMER_SECONDS:
            await asyncio.sleep(LONGEST_TIMER_SECONDS)
            seconds -= LONGEST_TIMER_SECONDS
        await asyncio.sleep(seconds)


def unbroken(work: Awaitable[T]) -> Awaitable[T]:
    """Do `work` to its end even if the caller is cancelled meanwhile; only then is the caller cancelled.

    For what must not be left half done: a statement under way, a commit and the event that tells it.
    """
    return _Unbroken(work)


class _Unbroken(Generic[T]):
    """The work is done in the caller's own task: another one would begin a turn of the loop later.

    A cancellation reaches that task where it waits, and there it is held back.
    """

    def __init__(self, work: Awaitable[T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, None, T]:
        steps = self._work.__await__()
        cancelled: asyncio.CancelledError | None = None
        try:
            while True:
                waited_for = next(steps)
                while True:
                    try:
                        yield from _look_on(waited_for)
                        break
                    except asyncio.CancelledError as error:
                        cancelled = error
        except StopIteration as end:
            value: T = end.value
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            if cancelled is None:
                raise
        finally:
            steps.close()
        if cancelled is not None:
            raise cancelled
        return value


def _look_on(waited_for: asyncio.Future[Any] | None) -> Generator[Any, None, None]:
    """Wait for what a coroutine has yielded. It is not awaited itself, for a cancellation would reach it, too."""
    if waited_for is None:
        yield
    elif not waited_for.done():
        gate = bare_future()

        def open_gate(_: object) -> None:
            if not gate.done():
                gate.set_result(None)

        waited_for._asyncio_future_blocking = False  # as a task does: it has been seen to, and others may await it
        waited_for.add_done_callback(open_gate)
        yield from gate


async def finishes_within(clock: Clock, work: Awaitable[object], seconds: float) -> bool:
    """Wait for `work`, for at most `seconds` of `clock`; false if it was not done by then and was cancelled.

    Raises what `work` raises.
    """
    timer, task = asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({timer, task}, return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
    finally:
        timer.cancel()
        task.cancel()
        await asyncio.gather(timer, task, return_exceptions=True)
    if finished:
        task.result()
    return finished


async def wait_event(clock: Clock, event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set or `seconds` of `clock` have gone by; true if it was set."""
    return event.is_set() or await finishes_within(clock, event.wait(), seconds)


def bare_future() -> asyncio.Future[Any]:
    """A future of the running loop. Those that Pyodide's loop makes cost it a turn more, to count them."""
    return asyncio.Future(loop=asyncio.get_running_loop())


class Bell:
    """Wakes one waiter, when it is rung or when it was silent for a while.

    A wait that a ring ends costs one turn of the loop and no task: the timer goes on into the next wait. So the silence
    after a ring may last up to twice as long as was asked for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rings = 0
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """Wake the waiter, if there is one."""
        self._rings += 1
        self._wake(was_rung=True)

    async def wait(self, seconds: float) -> bool:
        """Wait to be rung (true), or for `seconds` of silence (false)."""
        if self._timer is None:
            self._timer = asyncio.ensure_future(self._sound_after(seconds))
        self._waiter = bare_future()
        return await self._waiter

    def stop(self) -> None:
        """Stop the timer: nobody will wait again."""
        if self._timer is not None:
            self._timer.cancel()

    async def _sound_after(self, seconds: float) -> None:
        rings = None
        while rings != self._rings:
            rings = self._rings
            await self._clock.sleep(seconds)
        self._timer = None
        self._wake(was_rung=False)

    def _wake(self, *, was_rung: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(was_rung)


LAST_INSTANT = EpochMs(253_402_300_799_000)
"""The end of the year 9999, after which there is no `datetime`."""


def instant_after(now: EpochMs, seconds: float) -> EpochMs:
    """The instant `seconds` after `now`, at most the last: what is stored must be readable as a `datetime`."""
    return LAST_INSTANT if seconds * 1000 >= LAST_INSTANT - now else EpochMs(now + round(seconds * 1000))


def to_datetime(instant: EpochMs) -> datetime:
    """The instant as an aware UTC datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)


def from_datetime(moment: datetime) -> EpochMs:
    """An aware datetime as an instant. Raises `ValueError` for a naive one, which names no instant."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; use an aware datetime, for example in UTC")
    return EpochMs((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


def to_seconds(span: float | timedelta) -> float:
    """A span given by a user, in seconds. Raises `TypeError` for anything but a number or a `timedelta`."""
    if isinstance(span, timedelta):
        return span.total_seconds()
    if not isinstance(span, int | float):
        raise TypeError(f"a span is a number of seconds or a timedelta, got {span!r}")
    return float(span)
