"""Schedules: which ticks are due, and which is next.

This module only decides. A schedule ticks every so many milliseconds, or as a cron line says in a time
zone (parsed by `cronsim`, which follows Debian's cron through daylight saving time). `Ledger.fire` makes
sure that of several workers one fires a tick.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .clock import EpochMs, from_datetime, to_datetime, to_seconds
from .errors import ValidationError
from .ledger import StoredSchedule

MOST_CAUGHT_UP = 1_000
"""How many missed ticks `catch_up="all"` fires at a time; those that are left come with the next look."""

LONGEST_INTERVAL_MS = 100 * 365 * 86_400_000

LATE_MS = 60_000
"""A tick of `catch_up="skip"` fires if it is looked at within this time (or, if that is shorter, before the next)."""


def checked_every(every: float | timedelta) -> int:
    """The interval in milliseconds. Raises `ValidationError`."""
    try:
        milliseconds = round(to_seconds(every) * 1000)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValidationError(f"every cannot be an interval: {error}") from error
    if not 1 <= milliseconds <= LONGEST_INTERVAL_MS:
        raise ValidationError(f"every must be more than 0 seconds, and at most 100 years; got {every!r}")
    return milliseconds


def checked_zone(timezone: str) -> tzinfo:
    """The time zone of this name. Raises `ValidationError`."""
    try:
        return _zone(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ValidationError(
            f"the time zone {timezone!r} is not known here ({error}); is tzdata installed?"
        ) from error


def checked_cron(cron: str | None, zone: tzinfo, now: EpochMs) -> EpochMs:
    """The first tick after `now`. Raises `ValidationError` for a line that says no moment."""
    try:
        return _next_cron(str(cron), zone, now)
    except (CronSimError, ValueError) as error:
        raise ValidationError(f"the cron line {cron!r} cannot be read: {error}") from error
    except StopIteration:
        raise ValidationError(f"the cron line {cron!r} names no moment of the next 50 years") from None


def next_tick(schedule: StoredSchedule, tick: EpochMs) -> EpochMs:
    """The tick that follows `tick`."""
    if schedule.every_ms is not None:
        return EpochMs(tick + schedule.every_ms)
    assert schedule.cron is not None, "a schedule has an interval or a cron line"
    return _next_cron(schedule.cron, _zone(schedule.timezone), tick)


def due_ticks(schedule: StoredSchedule, now: EpochMs) -> tuple[int, EpochMs]:
    """How many runs a due schedule is to start now, and its next tick."""
    if schedule.every_ms is not None:
        missed = (now - schedule.next_at) // schedule.every_ms
        after = EpochMs(schedule.next_at + (missed + 1) * schedule.every_ms)
        ticks = missed + 1
        second = EpochMs(schedule.next_at + schedule.every_ms)
    else:
        ticks, after = 1, next_tick(schedule, schedule.next_at)
        second = after
        while after <= now:
            ticks, after = ticks + 1, next_tick(schedule, after)
            if schedule.catch_up == "all" and ticks >= MOST_CAUGHT_UP:
                break
    match schedule.catch_up:
        case "one":
            return 1, after
        case "skip":
            on_time = now - schedule.next_at < min(LATE_MS, second - schedule.next_at)
            return int(on_time), after
        case _:
            if ticks > MOST_CAUGHT_UP and schedule.every_ms is not None:
                return MOST_CAUGHT_UP, EpochMs(schedule.next_at + MOST_CAUGHT_UP * schedule.every_ms)
            return ticks, after


def _zone(timezone: str) -> tzinfo:
    # UTC needs no table of time zones, which Pyodide does not bring along.
    return UTC if timezone == "UTC" else ZoneInfo(timezone)


def _next_cron(cron: str, zone: tzinfo, after: EpochMs) -> EpochMs:
    moment: datetime = next(CronSim(cron, to_datetime(after).astimezone(zone)))
    return from_datetime(moment)
