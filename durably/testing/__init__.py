"""For the tests of your jobs: time that you move, faults that you choose, and what to look at afterwards.

    clock = ManualClock()
    durably = create_durably(":memory:", jobs=[newsletter], clock=clock)
    await durably.migrate()
    run = await durably.jobs.newsletter.trigger({"issue": 1})
    await durably.process_until_idle()

    await assert_waiting(durably, run.id, "sleep:until-monday")
    await clock.advance(timedelta(days=7))          # a week goes by, in no time
    await durably.process_until_idle()
    await assert_completed(durably, run.id)
    await assert_steps(durably, run.id, {"write": "completed", "until-monday": "completed", "send": "completed"})

No worker has to be started: `process_one` and `process_until_idle` execute runs by hand. To see a job
interrupted, give it a `FaultyDatabase` and let a checkpoint fail:

    database = FaultyDatabase(":memory:", lambda sql: "durably_steps" in sql and sql.startswith("INSERT"), times=1)

and count with `Executions` what was executed again. `durably.use(counting_ids())` makes ids and randomness the same in
every run of the test. Everything here works on CPython and in Pyodide, with
any test runner: an assertion that does not hold raises `AssertionError` with what is stored instead.
"""

from __future__ import annotations

from .asserts import (
    Executions,
    assert_cancelled,
    assert_completed,
    assert_executed_once,
    assert_failed,
    assert_steps,
    assert_waiting,
)
from .counting import counting_entropy, counting_ids
from .faults import FaultyDatabase
from .manual_clock import ManualClock

__all__ = [
    "Executions",
    "FaultyDatabase",
    "ManualClock",
    "assert_cancelled",
    "assert_completed",
    "assert_executed_once",
    "assert_failed",
    "assert_steps",
    "assert_waiting",
    "counting_entropy",
    "counting_ids",
]
