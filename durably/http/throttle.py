"""Fewer reports of progress, for a client that is far away: of each run the first, the last, and some between."""

from __future__ import annotations

from ..clock import EpochMs
from ..events import TERMINAL_TYPES, Event, RunDeleted, RunProgressed


class Throttle:
    """Lets at most one report of progress of each run through in `interval_ms`; the newest is held back, not lost."""

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._told_at: dict[str | None, EpochMs] = {}
        self._held: dict[str | None, Event] = {}

    def take(self, event: Event, now: EpochMs) -> list[Event]:
        """What is to be told now that this has happened."""
        if self._interval_ms <= 0:
            return [event]
        if isinstance(event, RunProgressed):
            told_at = self._told_at.get(event.run_id)
            if told_at is not None and told_at <= now < told_at + self._interval_ms:
                self._held[event.run_id] = event
                return []
            self._told_at[event.run_id] = now
            self._held.pop(event.run_id, None)
            return [event]
        if not event.type.startswith("run:"):
            return [event]
        # What becomes of a run is told after how far it came.
        held = self._held.pop(event.run_id, None)
        if event.type in TERMINAL_TYPES or isinstance(event, RunDeleted):
            self._told_at.pop(event.run_id, None)
        return [event] if held is None else [held, event]

    def due(self, now: EpochMs) -> list[Event]:
        """What has been held back for long enough."""
        over = [run_id for run_id in self._held if not 0 <= now - self._told_at[run_id] < self._interval_ms]
        for run_id in over:
            self._told_at[run_id] = now
        return [self._held.pop(run_id) for run_id in over]

    @property
    def next_at(self) -> EpochMs | None:
        """When something will be due; `None` where nothing is held back."""
        if not self._held:
            return None
        return EpochMs(min(self._told_at[run_id] for run_id in self._held) + self._interval_ms)
