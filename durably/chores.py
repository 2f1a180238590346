"""What a worker sees to beside runs: schedules whose tick has come, and runs kept long enough."""

from __future__ import annotations

import json
import re
from datetime import timedelta

from .clock import EpochMs
from .events import RunDeleted, RunTriggered
from .jobs import Registry
from .schedules import due_ticks
from .services import Services

PURGE_EVERY_MS = 60_000
"""How often an idle worker looks for runs that were kept long enough."""

PURGE_AT_ONCE = 500

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}


def retention_ms(span: str | timedelta | None) -> int | None:
    """A retention as milliseconds: `"30d"`, `"12h"`, `"90m"`, `"10s"` or a timedelta. Raises `ValueError`."""
    if span is None:
        return None
    if isinstance(span, timedelta):
        milliseconds = int(span / timedelta(milliseconds=1))
    else:
        found = re.fullmatch(r"([0-9]+)([dhms])", span) if isinstance(span, str) else None
        if found is None:
            raise ValueError(f"retain_runs must be like '30d', '12h' or '90m', or a timedelta; got {span!r}")
        milliseconds = int(found[1]) * _UNITS_MS[found[2]]
    if milliseconds <= 0:
        raise ValueError(f"retain_runs must be longer than nothing, got {span!r}")
    return milliseconds


class Chores:
    """Done by the worker between its claims."""

    def __init__(self, services: Services, registry: Registry, retain_ms: int | None) -> None:
        self._services = services
        self._registry = registry
        self._retain_ms = retain_ms
        self._purged_at = EpochMs(0)

    async def fire_schedules(self, now: EpochMs) -> bool:
        """Start the runs of the ticks that have come; whether there were any."""
        fired = False
        for schedule in await self._services.ledger.due_schedules(now):
            count, after = due_ticks(schedule, now)
            run_ids = [self._services.ids.new() for _ in range(count)]
            for stored in await self._services.ledger.fire(schedule, run_ids, after, now):
                fired = True
                about = {"run_id": stored.id, "job_name": stored.job_name, "labels": json.loads(stored.labels)}
                self._services.bus.emit(RunTriggered, **about, payload=self._registry.typed(stored).payload)
            self._services.wake_at(after)
        return fired

    async def when_idle(self, now: EpochMs) -> None:
        """Purge what was kept long enough, now and then."""
        if self._retain_ms is None or now - self._purged_at < PURGE_EVERY_MS:
            return
        self._purged_at = now
        for stored in await self._services.ledger.purge_runs(EpochMs(now - self._retain_ms), PURGE_AT_ONCE):
            about = {"run_id": stored.id, "job_name": stored.job_name, "labels": json.loads(stored.labels)}
            self._services.bus.emit(RunDeleted, **about)
