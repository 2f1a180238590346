"""API.md section 5: `schedule`, `unschedule`, `get_schedules`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from contract_kit import body_job, contract, echo, found, moved, opened, quick, until, watched
from pydantic import BaseModel

from durably import Durably, DurablyError, NotFoundError, Schedule, StepContext, StorageError, ValidationError, job
from durably.testing import FaultyDatabase, ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def moments(durably_runs: list[Any]) -> list[datetime]:
    """When the runs were made, the oldest first."""
    return [run.created_at for run in reversed(durably_runs)]


class Report(BaseModel):
    title: str


@job
async def report(step: StepContext, payload: Report) -> str:
    return payload.title


# --- ticks ----------------------------------------------------------------------------------------


@contract
async def test_every_tick_is_a_run_the_first_one_interval_away() -> None:
    """'the first tick is one interval away'; a tick is a run like any other, typed and told."""
    durably, clock = await opened(":memory:", report)
    events = watched(durably, "run:trigger")
    schedule = await durably.schedule(report, {"title": "daily"}, every=3600, key="reports")
    assert isinstance(schedule, Schedule)
    assert await durably.process_until_idle() == 0
    await moved(durably, clock, 3599)
    assert await durably.get_runs() == []
    await moved(durably, clock, 1)
    [run] = await durably.get_runs()
    assert (run.job_name, run.payload, run.status, run.output) == (
        "report",
        Report(title="daily"),
        "completed",
        "daily",
    )
    assert run.created_at == START + timedelta(hours=1)
    assert [(event.run_id, event.job_name, event.payload) for event in events] == [
        (run.id, "report", Report(title="daily"))
    ]
    for _ in range(3):
        await moved(durably, clock, 3600)
    assert moments(await durably.get_runs()) == [START + timedelta(hours=n) for n in (1, 2, 3, 4)]
    await durably.stop()


@pytest.mark.parametrize("form", ["definition", "handle", "name"])
@pytest.mark.parametrize("every", [90, 90.0, timedelta(seconds=90)], ids=repr)
@contract
async def test_a_job_is_named_in_any_way_and_an_interval_given_in_any(form: str, every: Any) -> None:
    """'`schedule(job, payload, *, every=None | cron=None, key, ...)`'; 'seconds (`float` or `timedelta`)'"""
    durably, clock = await opened(":memory:", report)
    named = {"definition": report, "handle": durably.jobs.report, "name": "report"}[form]
    await durably.schedule(named, Report(title="t"), every=every, key="k")
    await moved(durably, clock, 89.999)
    assert await durably.get_runs() == []
    await moved(durably, clock, 0.001)
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_a_started_worker_fires_by_itself() -> None:
    """No call but `schedule` is needed."""
    async with quick(":memory:", echo) as durably:
        await durably.schedule(echo, 1, every=0.05, key="often")
        await until(lambda: _completed(durably, 3))


async def _completed(durably: Durably, count: int) -> bool:
    return len(await durably.get_runs(status="completed")) >= count


@contract
async def test_ticks_are_told_from_each_other_and_from_plain_runs() -> None:
    """Two schedules of one job, and a trigger by hand: no tick is taken for another."""
    durably, clock = await opened(":memory:", echo)
    await durably.schedule(echo, 1, every=60, key="one")
    await durably.schedule(echo, 2, every=60, key="two")
    await durably.jobs.echo.trigger(3)
    await moved(durably, clock, 60)
    await moved(durably, clock, 60)
    runs = await durably.get_runs()
    assert sorted(run.payload for run in runs) == [1, 1, 2, 2, 3]
    assert len({run.id for run in runs}) == 5
    await durably.stop()


CRONS = [
    ("0 9 * * *", "UTC", ["2026-01-01T09:00", "2026-01-02T09:00"]),
    ("*/20 * * * *", "UTC", ["2026-01-01T00:20", "2026-01-01T00:40", "2026-01-01T01:00"]),
    ("30 9 * * 1-5", "UTC", ["2026-01-01T09:30", "2026-01-02T09:30", "2026-01-05T09:30"]),
    ("0 0 1 * *", "UTC", ["2026-02-01T00:00", "2026-03-01T00:00"]),
    ("0 9 * * *", "Europe/Berlin", ["2026-01-01T08:00", "2026-01-02T08:00"]),
    ("15 4 29 2 *", "UTC", ["2028-02-29T04:15"]),
]


@pytest.mark.parametrize(("cron", "zone", "ticks"), CRONS, ids=lambda value: str(value)[:20])
@contract
async def test_a_cron_line_ticks_at_its_times_in_its_zone(cron: str, zone: str, ticks: list[str]) -> None:
    """'or the next cron time', time zones."""
    durably, clock = await opened(":memory:", echo)
    schedule = await durably.schedule(echo, 1, cron=cron, key="k", timezone=zone)
    for tick in ticks:
        moment = datetime.fromisoformat(tick).replace(tzinfo=UTC)
        assert schedule.next_at == moment
        now = datetime.fromtimestamp(clock.now() / 1000, UTC)
        await moved(durably, clock, moment - now - timedelta(milliseconds=1))
        seen = len(await durably.get_runs())
        await moved(durably, clock, 0.001)
        assert len(await durably.get_runs()) == seen + 1
        [schedule] = await durably.get_schedules()
    await durably.stop()


@contract
async def test_what_is_no_job_is_not_scheduled() -> None:
    durably, _ = await opened(":memory:", echo)
    for wrong in (None, 5, report.run):
        with pytest.raises(ValidationError, match="its definition, a handle or its name"):
            await durably.schedule(wrong, 1, every=60, key="k")
    assert await durably.get_schedules() == []
    await durably.stop()


@contract
async def test_a_cron_time_that_is_now_is_not_the_first_tick() -> None:
    """The first tick is the *next* cron time."""
    durably, _ = await opened(":memory:", echo)
    schedule = await durably.schedule(echo, 1, cron="0 0 * * *", key="midnight")
    assert schedule.next_at == START + timedelta(days=1)
    await durably.process_until_idle()
    assert await durably.get_runs() == []
    await durably.stop()


@contract
async def test_a_zone_keeps_its_hour_when_the_clocks_change() -> None:
    """Nine o'clock in Berlin is nine o'clock before and after the change of March 29th 2026."""
    clock = ManualClock(datetime(2026, 3, 27, 12, tzinfo=UTC))
    durably, _ = await opened(":memory:", echo, clock=clock)
    await durably.schedule(echo, 1, cron="0 9 * * *", key="k", timezone="Europe/Berlin")
    for _ in range(4 * 24):
        await moved(durably, clock, 3600)
    local = [moment.astimezone(ZoneInfo("Europe/Berlin")) for moment in moments(await durably.get_runs())]
    assert [(moment.day, moment.hour) for moment in local] == [(28, 9), (29, 9), (30, 9), (31, 9)]
    await durably.stop()


# --- what was missed ------------------------------------------------------------------------------


@pytest.mark.parametrize(("catch_up", "amount"), [("one", 1), ("all", 7), ("skip", 0)])
@pytest.mark.parametrize("how", [{"every": 86_400}, {"cron": "0 0 * * *"}], ids=str)
@contract
async def test_after_a_week_closed_ticks_are_caught_up_as_asked(
    catch_up: str, amount: int, how: dict[str, Any], tmp_path: Path
) -> None:
    """'`catch_up="one" | "all" | "skip"`', after the tab was closed for a week; then time goes on as before."""
    before, clock = await opened(tmp_path / "a.sqlite3", echo)
    await before.schedule(echo, 1, key="k", catch_up=catch_up, **how)
    await before.stop()
    await clock.advance(timedelta(days=7, hours=5))
    durably, _ = await opened(tmp_path / "a.sqlite3", echo, clock=clock)
    await durably.process_until_idle()
    assert len(await durably.get_runs()) == amount
    assert {run.status for run in await durably.get_runs()} <= {"completed"}
    await durably.process_until_idle()
    assert len(await durably.get_runs()) == amount
    [schedule] = await durably.get_schedules()
    assert schedule.next_at == START + timedelta(days=8)
    await moved(durably, clock, timedelta(hours=19))
    assert len(await durably.get_runs()) == amount + 1
    await durably.stop()


@contract
async def test_catch_up_is_one_unless_told_otherwise() -> None:
    """'`catch_up` defaults to `"one"`'"""
    durably, clock = await opened(":memory:", echo)
    schedule = await durably.schedule(echo, 1, every=60, key="k")
    assert schedule.catch_up == "one"
    await moved(durably, clock, 3600)
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_a_tick_that_the_store_refuses_is_not_lost() -> None:
    """A fault at the very moment of a tick delays it; it neither goes nor comes twice."""
    failing = [True]
    database = FaultyDatabase(":memory:", lambda sql: failing[0] and "UPDATE durably_schedules" in sql)
    durably, clock = await opened(database, echo)
    await durably.schedule(echo, 1, every=60, key="k")
    await clock.advance(60)
    with pytest.raises(StorageError):
        await durably.process_until_idle()
    assert await durably.get_runs() == []
    failing[0] = False
    await durably.process_until_idle()
    await durably.process_until_idle()
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_two_instances_never_fire_one_tick_twice(tmp_path: Path) -> None:
    """'two tabs never fire one tick twice', whoever looks, however often, also while they catch up."""
    clock = ManualClock()
    instances = [(await opened(tmp_path / "a.sqlite3", echo, clock=clock))[0] for _ in range(4)]
    await instances[1].schedule(echo, 1, every=60, key="every", catch_up="all")
    await instances[2].schedule(echo, 2, cron="* * * * *", key="cron", catch_up="all")
    for minutes in (1, 1, 3, 1):
        await clock.advance(60 * minutes)
        await asyncio.gather(*(instance.process_until_idle() for instance in instances for _ in range(2)))
    runs = await instances[3].get_runs()
    assert sorted(run.payload for run in runs) == [1] * 6 + [2] * 6
    assert {run.status for run in runs} == {"completed"}
    for instance in instances:
        await instance.stop()


# --- keeping schedules ----------------------------------------------------------------------------


@contract
async def test_schedules_are_listed_with_all_that_they_are() -> None:
    """'`get_schedules()`'"""
    durably, _ = await opened(":memory:", report, echo)
    assert await durably.get_schedules() == []
    one = await durably.schedule(report, {"title": "t"}, cron="0 9 * * 1", key="weekly", catch_up="skip")
    two = await durably.schedule(echo, 5, every=0.5, key="often")
    listed = {schedule.key: schedule for schedule in await durably.get_schedules()}
    assert listed == {"weekly": one, "often": two}
    assert (one.job_name, one.cron, one.every, one.catch_up) == ("report", "0 9 * * 1", None, "skip")
    assert one.next_at == datetime(2026, 1, 5, 9, tzinfo=UTC)
    assert (two.job_name, two.payload, two.cron, two.every) == ("echo", 5, None, 0.5)
    await durably.stop()


@contract
async def test_a_known_key_is_replaced_as_a_whole() -> None:
    """'`schedule` with a known `key` replaces': job, payload, times and what is to be caught up; one is left."""
    durably, clock = await opened(":memory:", report, echo)
    await durably.schedule(report, {"title": "old"}, every=60, key="k", catch_up="all")
    await clock.advance(50)
    await durably.schedule(echo, 9, cron="30 * * * *", key="k")
    [schedule] = await durably.get_schedules()
    assert (schedule.job_name, schedule.payload, schedule.every, schedule.catch_up) == ("echo", 9, None, "one")
    await moved(durably, clock, 10)
    assert await durably.get_runs() == []
    await moved(durably, clock, 29 * 60)
    assert [(run.job_name, run.payload) for run in await durably.get_runs()] == [("echo", 9)]
    await durably.schedule(echo, 9, every=60, key="k")
    [schedule] = await durably.get_schedules()
    assert schedule.next_at == START + timedelta(minutes=31)
    await durably.stop()


@contract
async def test_an_unscheduled_key_ticks_no_more_and_an_unknown_one_is_not_found() -> None:
    """'`unschedule(key)`'; its runs stay."""
    durably, clock = await opened(":memory:", echo)
    await durably.schedule(echo, 1, every=60, key="k")
    await moved(durably, clock, 60)
    assert await durably.unschedule("k") is None
    await moved(durably, clock, 600)
    assert len(await durably.get_runs()) == 1
    assert await durably.get_schedules() == []
    for key in ("k", "never", ""):
        with pytest.raises(NotFoundError) as caught:
            await durably.unschedule(key)
        assert key in str(caught.value)
    await durably.stop()


@contract
async def test_schedules_survive_the_program_and_need_no_second_call(tmp_path: Path) -> None:
    """'stored': the next program finds them, and their ticks."""
    one, clock = await opened(tmp_path / "a.sqlite3", echo)
    made = await one.schedule(echo, 7, every=60, key="k")
    await one.stop()
    await clock.advance(30)
    two, _ = await opened(tmp_path / "a.sqlite3", echo, clock=clock)
    assert await two.get_schedules() == [made]
    await moved(two, clock, 30)
    assert [run.payload for run in await two.get_runs()] == [7]
    await two.stop()


@pytest.mark.parametrize("key", ["k", "with space", "ü/💥", "a'; DROP TABLE durably_schedules; --", "x" * 1000, "%"])
@contract
async def test_a_key_is_any_text(key: str) -> None:
    """Keys are the user's own; each stands for itself."""
    durably, clock = await opened(":memory:", echo)
    await durably.schedule(echo, 1, every=60, key=key)
    await durably.schedule(echo, 2, every=60, key="other")
    assert {schedule.key for schedule in await durably.get_schedules()} == {key, "other"}
    await moved(durably, clock, 60)
    assert sorted(run.payload for run in await durably.get_runs()) == [1, 2]
    await durably.unschedule(key)
    assert [schedule.key for schedule in await durably.get_schedules()] == ["other"]
    await durably.stop()


# --- what cannot be meant -------------------------------------------------------------------------

WRONG: dict[str, dict[str, Any]] = {
    "both": {"every": 60, "cron": "* * * * *"},
    "neither": {},
    "zero": {"every": 0},
    "negative": {"every": -5},
    "negative timedelta": {"every": timedelta(seconds=-1)},
    "infinite": {"every": float("inf")},
    "nan": {"every": float("nan")},
    "beyond the calendar": {"every": 1e15},
    "beyond all numbers": {"every": 1e300},
    "too small to be": {"every": 1e-9},
    "a word": {"every": "often"},
    "bad cron": {"cron": "every day"},
    "empty cron": {"cron": ""},
    "four fields": {"cron": "* * * *"},
    "minute 61": {"cron": "61 * * * *"},
    "a digit that is no number": {"cron": "² * * * *"},
    "never": {"cron": "0 0 30 2 *"},
    "no text": {"cron": 5},
    "bad zone": {"cron": "0 9 * * *", "timezone": "Mars/Olympus_Mons"},
    "bad zone of an interval": {"every": 60, "timezone": "Mars/Olympus_Mons"},
    "a path as zone": {"cron": "0 9 * * *", "timezone": "../../etc/passwd"},
    "empty zone": {"cron": "0 9 * * *", "timezone": ""},
    "no zone": {"cron": "0 9 * * *", "timezone": None},
    "catch up": {"every": 60, "catch_up": "some"},
    "catch up none": {"every": 60, "catch_up": None},
    "key": {"every": 60, "key": ""},
    "key none": {"every": 60, "key": None},
    "key surrogate": {"every": 60, "key": "\ud800"},
}


@pytest.mark.parametrize("kind", WRONG)
@contract
async def test_a_schedule_that_cannot_be_meant_is_refused_and_nothing_is_stored(kind: str) -> None:
    """Refused where it is made, in words, as a `ValueError` that is a `ValidationError` (400); what was there stays."""
    durably, clock = await opened(":memory:", echo)
    before = await durably.schedule(echo, 1, every=60, key="k")
    with pytest.raises(ValidationError) as caught:
        await durably.schedule(echo, 2, **{"key": "k", **WRONG[kind]})
    assert isinstance(caught.value, ValueError)
    assert caught.value.status == 400
    assert str(caught.value)
    assert await durably.get_schedules() == [before]
    await moved(durably, clock, 60)
    assert [run.payload for run in await durably.get_runs()] == [1]
    await durably.stop()


@contract
async def test_a_payload_is_checked_when_it_is_scheduled_and_so_is_the_job() -> None:
    """'Invalid payload: `ValidationError`'; a tick must not be the first to find out."""
    durably, _ = await opened(":memory:", report)
    for wrong in ({}, {"title": 5}, None, "text"):
        with pytest.raises(ValidationError):
            await durably.schedule(report, wrong, every=60, key="k")
    for unknown in ("no-such-job", body_job(report.run, "unregistered")):
        with pytest.raises(DurablyError):
            await durably.schedule(unknown, {"title": "t"}, every=60, key="k")
    assert await durably.get_schedules() == []
    await durably.stop()


@contract
async def test_a_failing_tick_does_not_end_its_schedule() -> None:
    """The next tick is a run of its own."""

    async def fails(step: StepContext, payload: Any) -> None:
        raise ValueError("every time")

    durably, clock = await opened(":memory:", body_job(fails))
    await durably.schedule("body", 1, every=60, key="k")
    for _ in range(3):
        await moved(durably, clock, 60)
    runs = await durably.get_runs()
    assert [run.status for run in runs] == ["failed"] * 3
    assert (await found(durably, runs[0])).error == "every time"
    await durably.stop()
