"""Deadlines: by when code of a job must be done, for whoever can break into it.

A timeout is a timer of the event loop. Code that blocks the loop keeps the timer from its turn, and where plain steps
run in place, as in a browser, that may be for ever. So the deadline is noted here as well: something beside the loop
can look at the clock and raise `calls.Interrupted` in code that is overdue, upon which the timer has its turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

AGAIN_SECONDS = 1.0
"""Code that was interrupted may take this long to clean up before it is interrupted again."""


def _tell_nobody(_at: float) -> None:
    """Nothing here can break in."""


tell: Callable[[float], None] = _tell_nobody
"""Told of the earliest deadline, in seconds of `time.monotonic`, whenever that changes; infinity for none."""


class Deadline:
    """That of some code."""

    def __init__(self, seconds: float) -> None:
        self._at = self.interrupt_at = time.monotonic() + seconds

    def set_in(self, seconds: float) -> None:
        """The code has so long from now; infinity: it has all the time."""
        self._at = self.interrupt_at = time.monotonic() + seconds
        _tell_earliest()

    def has_passed(self) -> bool:
        return self._at <= time.monotonic()

    def postpone(self) -> None:
        """The code is being interrupted: it has a moment to clean up."""
        self.interrupt_at = time.monotonic() + AGAIN_SECONDS


_open: set[Deadline] = set()
_told = math.inf
_of_this_code: ContextVar[tuple[Deadline, ...]] = ContextVar("durably_deadlines", default=())


@contextmanager
def deadline(seconds: float = math.inf) -> Iterator[Deadline]:
    """Around code of a job that has so long; tasks that it starts have no longer."""
    one = Deadline(seconds)
    token = _of_this_code.set((*_of_this_code.get(), one))
    _open.add(one)
    _tell_earliest()
    try:
        yield one
    finally:
        _open.remove(one)
        _of_this_code.reset(token)
        _tell_earliest()


def is_overdue() -> bool:
    """Whether the code that is at work should have been done by now."""
    return _earliest(_of_this_code.get()) <= time.monotonic()


def postpone() -> None:
    """It is being interrupted."""
    for one in _of_this_code.get():
        if one.has_passed():
            one.postpone()
    _tell_earliest()


def _earliest(deadlines: tuple[Deadline, ...] | set[Deadline]) -> float:
    return min((one.interrupt_at for one in deadlines), default=math.inf)


def _tell_earliest() -> None:
    global _told
    if (earliest := _earliest(_open)) != _told:
        _told = earliest
        tell(earliest)
