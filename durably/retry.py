"""When a failed step is tried again: a policy, and the pure decision made from it.

This module only decides. It reads no clock and sleeps not; the session counts attempts in the store and
waits. Spans are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from .clock import to_seconds
from .errors import NonRetryableError, RetryAfter


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how soon a step is tried again.

    `attempts` counts all calls, the first included (default 3). The n-th wait is `delay * backoff ** (n - 1)`
    seconds (1, 2, 4, ...), at most `max_delay` (60); `jitter` draws it from the upper half of that span, so that
    many runs do not come back at once. `on`: the exceptions that are worth another try (default: all). Raises
    `ValueError` for numbers out of range, `TypeError` for what is no number or no exception.
    """

    attempts: int = 3
    delay: float | timedelta = 1.0
    backoff: float = 2.0
    max_delay: float | timedelta = 60.0
    jitter: bool = True
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts counts all calls and must be at least 1, got {self.attempts!r}")
        if to_seconds(self.delay) < 0 or to_seconds(self.max_delay) < 0 or self.backoff < 1:
            raise ValueError("delay and max_delay must not be negative, and backoff not be less than 1")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise TypeError(f"on takes the classes of the exceptions to try again after, got {self.on!r}")

    @classmethod
    def of(cls, policy: Retry | int | None) -> Retry:
        """A policy as a user gives it: itself, a number of attempts, or `None` for one attempt."""
        if policy is None:
            return ONCE
        return policy if isinstance(policy, cls) else cls(attempts=policy)  # type: ignore[arg-type]  # it checks

    def next_delay(self, error: Exception, attempt: int, random: Callable[[], float]) -> float | None:
        """Seconds until the attempt after `attempt` (from 1), or `None` when there is to be none.

        `random` returns a number from 0 to 1 and is only called for jitter.
        """
        if attempt >= self.attempts or isinstance(error, NonRetryableError):
            return None
        if isinstance(error, RetryAfter):
            return error.seconds
        if not isinstance(error, self.on):
            return None
        # Bounded before it is raised to a power: a thousandth attempt must not overflow.
        longest = to_seconds(self.max_delay)
        span = to_seconds(self.delay)
        for _ in range(attempt - 1):
            span = span * self.backoff
            if span >= longest:
                break
        span = min(span, longest)
        return span * (0.5 + random() / 2) if self.jitter else span


ONCE = Retry(attempts=1)
