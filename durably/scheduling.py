"""What a program does with schedules: make, end and list them. The worker fires them (`chores`)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from . import codec
from .clock import EpochMs
from .errors import NotFoundError, ValidationError
from .handles import JobHandle
from .jobs import JobDefinition, Registry
from .ledger import StoredSchedule
from .records import Schedule
from .schedules import checked_cron, checked_every, checked_zone
from .services import Services
from .views import schedule_view

Job = JobDefinition[Any, Any] | JobHandle[Any, Any] | str


class Schedules:
    """The schedules of one instance's database."""

    _services: Services
    _registry: Registry

    async def schedule(
        self,
        job: Job,
        payload: Any,
        *,
        every: float | timedelta | None = None,
        cron: str | None = None,
        key: str,
        catch_up: str = "one",
        timezone: str = "UTC",
    ) -> Schedule:
        """Trigger a job by the clock: `every` so many seconds, or as a `cron` line says in `timezone`.

        The first tick is one interval away, or the next cron time. A known `key` is replaced. `catch_up` says
        what becomes of ticks that passed while nobody was there: `"one"` run for all, `"all"` of them, or none
        (`"skip"`). Raises `ValidationError` for options or a payload that make no sense, `NotFoundError` for a job
        that is not registered.
        """
        definition = self._registry.find(job)
        if (every is None) == (cron is None):
            raise ValidationError("give every or cron, one of them")
        if catch_up not in ("one", "all", "skip"):
            raise ValidationError(f"catch_up must be 'one', 'all' or 'skip', got {catch_up!r}")
        if not key or not codec.is_text(key) or "\0" in key:
            raise ValidationError(f"a schedule needs a key, a non-empty text; got {key!r}")
        now = self._services.clock.now()
        zone = checked_zone(timezone)
        every_ms = None if every is None else checked_every(every)
        first = EpochMs(now + every_ms) if every_ms is not None else checked_cron(cron, zone, now)
        schedule = StoredSchedule(
            key=key,
            job_name=definition.name,
            payload=definition.dump_payload(payload),
            every_ms=every_ms,
            cron=cron,
            timezone=timezone,
            catch_up=catch_up,
            next_at=first,
            created_at=now,
        )
        await self._services.outside.ledger.put_schedule(schedule)
        self._services.wake_at(first)
        return schedule_view(schedule)

    async def unschedule(self, key: str) -> None:
        """End a schedule. Raises `NotFoundError` if there is none with this key."""
        if not await self._services.outside.ledger.delete_schedule(key):
            raise NotFoundError(f"there is no schedule '{key}'")

    async def get_schedules(self) -> list[Schedule]:
        """All schedules, by key."""
        return [schedule_view(stored) for stored in await self._services.outside.ledger.schedules()]
