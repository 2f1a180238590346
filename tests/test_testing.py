"""The test kit does what its documentation says, on the database that ships."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import (
    Database,
    Durably,
    Run,
    Statement,
    StepContext,
    StorageError,
    StorageFullError,
    create_durably,
    job,
)
from durably.clock import from_datetime
from durably.ids import Ids
from durably.testing import (
    Executions,
    FaultyDatabase,
    ManualClock,
    assert_cancelled,
    assert_completed,
    assert_executed_once,
    assert_failed,
    assert_steps,
    assert_waiting,
    counting_entropy,
    counting_ids,
)

MAKE = Statement("CREATE TABLE things (name TEXT)")
ADD = Statement("INSERT INTO things VALUES ('one')")
ALL = Statement("SELECT name FROM things")


@job
async def three(step: StepContext, payload: str) -> str:
    await step.run("first", lambda: 1)
    await step.sleep("pause", timedelta(days=7))
    if payload == "bad":
        await step.run("last", lambda: int("x"))
    return payload


async def begun(database: Database | str = ":memory:", clock: ManualClock | None = None) -> Durably:
    durably = create_durably(database, jobs=[three], clock=clock or ManualClock())
    await durably.migrate()
    return durably


def run(test: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


# --- a clock --------------------------------------------------------------------------------------


def test_a_week_goes_by_in_no_time() -> None:
    async def test() -> None:
        clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
        woken: list[str] = []

        async def sleep(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(f"{name} {clock.now() - from_datetime(datetime(2026, 5, 1, tzinfo=UTC))}")

        sleepers = [asyncio.ensure_future(sleep(*one)) for one in (("late", 7200), ("soon", 1), ("now", 0))]
        await clock.advance(timedelta(hours=1))
        assert woken == ["now 0", "soon 1000"]
        with pytest.raises(ValueError, match="does not go back"):
            await clock.advance(-1)
        await clock.advance(timedelta(days=7))
        assert woken[2:] == ["late 7200000"]
        await asyncio.gather(*sleepers)

    run(test)


# --- ids ------------------------------------------------------------------------------------------


def test_counted_ids_are_the_same_in_every_test() -> None:
    one, two = Ids(ManualClock(), counting_entropy()), Ids(ManualClock())
    two.new()
    two.draw_from(counting_entropy())
    assert [one.new(), one.new(), one.uuid(), one.random()] == [two.new(), two.new(), two.uuid(), two.random()]
    assert counting_entropy(2**8 - 1)(8) == 255
    narrow = counting_entropy(2**8)
    assert [narrow(8), narrow(8)] == [0, 1], "cut to the bits that were asked for"


def test_an_instance_with_counted_ids_does_the_same_twice() -> None:
    """Ids of runs, what steps draw and the jitter of retries: a test may write all of them down."""

    @job
    async def draw(step: StepContext, payload: int) -> list[str]:
        return [str(await step.uuid()), str(await step.random())]

    async def once() -> tuple[str, Any]:
        durably = create_durably(":memory:", jobs=[draw], clock=ManualClock())
        durably.use(counting_ids())
        await durably.migrate()
        drawn = await durably.jobs.draw.trigger(1)
        await durably.process_until_idle()
        return drawn.id, (await assert_completed(durably, drawn.id)).output

    async def test() -> None:
        first = await once()
        assert first == await once()

    run(test)


# --- a faulty database ----------------------------------------------------------------------------


@pytest.mark.parametrize(("when", "names"), [("before", []), ("after", ["one"])])
def test_the_chosen_call_fails_before_or_after_it_is_done(when: Any, names: list[str]) -> None:
    async def test() -> None:
        database = FaultyDatabase(fail_on=2, when=when, error=lambda: StorageFullError("full"))
        await database.execute(MAKE)
        with pytest.raises(StorageFullError, match="full"):
            await database.execute(ADD)
        [found] = await database.execute(ALL)
        assert [row["name"] for row in found.rows] == names
        assert database.calls == [MAKE.sql, ADD.sql, ALL.sql]
        assert database.failures == 1

    run(test)


@pytest.mark.parametrize(
    ("fail_on", "when", "count"),
    [
        ("BEGIN", "before", 0),
        ("BEGIN", "after", 0),
        ("INSERT", "before", 0),
        ("INSERT", "after", 0),
        ("COMMIT", "before", 0),
        ("COMMIT", "after", 1),
        ("SELECT", "before", 1),
    ],
)
def test_a_transaction_fails_at_any_of_its_calls(fail_on: str, when: Any, count: int) -> None:
    async def test() -> None:
        database = FaultyDatabase(fail_on=None, when=when)
        await database.execute(MAKE)
        database.fail_on = lambda sql: sql.startswith(fail_on)

        async def add() -> None:
            async with database.transaction() as tx:
                await tx.execute(ADD.sql)

        if fail_on == "SELECT":
            await add()
        else:
            with pytest.raises(StorageError, match="told it to"):
                await add()
        database.fail_on = None
        [found] = await database.execute(ALL)
        assert len(found.rows) == count

    run(test)


def test_failures_end_after_so_many_times() -> None:
    async def test() -> None:
        database = FaultyDatabase(fail_on=lambda sql: "things" in sql, times=2, error=OSError)
        for _ in range(2):
            with pytest.raises(OSError):  # noqa: PT011 - it is the bare class
                await database.execute(MAKE)
        await database.execute(MAKE)
        database.times, database.fail_on = None, {4, 6}
        outcomes = []
        for _ in range(4):
            try:
                await database.execute(ALL)
                outcomes.append("done")
            except OSError:
                outcomes.append("failed")
        assert outcomes == ["failed", "done", "failed", "done"]
        assert (database.failures, len(database.calls)) == (4, 7)

    run(test)


def test_when_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="'before' or 'after'"):
        FaultyDatabase(when="never")  # type: ignore[arg-type]


def test_it_wraps_a_file_and_a_run_goes_on_after_the_fault(tmp_path: Any) -> None:
    async def test() -> None:
        database = FaultyDatabase(tmp_path / "db.sqlite3")
        assert database.name == str(tmp_path / "db.sqlite3")
        clock = ManualClock()
        durably = await begun(database, clock)
        executions = Executions(durably)
        started = await durably.jobs.three.trigger("good")
        database.fail_on = lambda sql: sql.startswith("INSERT INTO durably_steps")
        database.times = 1
        with pytest.raises(StorageError):
            await durably.process_until_idle()
        await durably.process_until_idle()
        await clock.advance(timedelta(days=7))
        await durably.process_until_idle()
        await assert_completed(durably, started.id, output="good")
        assert executions.of(started.id) == {"first": 2, "pause": 1}
        with pytest.raises(AssertionError, match=r"executed 'first' 2 times, not once"):
            assert_executed_once(executions, started.id)
        assert_executed_once(executions, started.id, "pause")
        await durably.stop()

    run(test)


# --- assertions -----------------------------------------------------------------------------------


def test_assertions_hold_where_they_should_and_tell_what_is_stored_where_not() -> None:
    async def test() -> None:
        clock = ManualClock()
        durably = await begun(clock=clock)
        executions = Executions(durably)
        good, bad, stopped = [await durably.jobs.three.trigger(word) for word in ("good", "bad", "stopped")]
        await durably.process_until_idle()

        assert (await assert_waiting(durably, good.id, "sleep:pause")).id == good.id
        await assert_steps(durably, good.id, {"first": "completed", "pause": "waiting"})
        await refused(assert_waiting(durably, good.id, "signal:go"), "waits for 'sleep:pause', not for 'signal:go'")
        await refused(
            assert_completed(durably, good.id), "of job 'three' is pending, not completed, it waits for sleep"
        )
        await refused(assert_steps(durably, good.id, {"first": "completed"}), "'pause': 'waiting'")
        await refused(
            assert_steps(durably, good.id, {"pause": "waiting", "first": "completed"}), "has the steps {'first'"
        )

        await durably.cancel(stopped.id)
        await assert_cancelled(durably, stopped.id)
        await clock.advance(timedelta(days=7))
        await durably.process_until_idle()

        done: Run[Any] = await assert_completed(durably, good.id)
        assert done.output == "good"
        await assert_completed(durably, good.id, output="good")
        await refused(assert_completed(durably, good.id, output="bad"), "completed with 'good', not with 'bad'")
        await refused(assert_cancelled(durably, good.id), "is completed, not cancelled")

        await assert_failed(durably, bad.id, error="invalid literal")
        await refused(assert_failed(durably, bad.id, error="no such"), "in which 'no such' is not found")
        await refused(assert_completed(durably, bad.id), "is failed, not completed: invalid literal")
        await refused(assert_completed(durably, "nobody"), "there is no run nobody")

        assert_executed_once(executions, good.id)
        with pytest.raises(AssertionError, match="'last' 0 times"):
            assert_executed_once(executions, good.id, "first", "last")
        with pytest.raises(AssertionError, match="no step of run nobody"):
            assert_executed_once(executions, "nobody")

        again = create_durably(":memory:", jobs=[three])
        await again.migrate()
        executions.watch(again)
        other = await again.jobs.three.trigger("good")
        await again.process_until_idle()
        assert executions.of(other.id) == {"first": 1, "pause": 1}
        await again.stop()
        await durably.stop()

    async def refused(assertion: Awaitable[Any], why: str) -> None:
        with pytest.raises(AssertionError) as caught:
            await assertion
        assert why in str(caught.value)

    run(test)
