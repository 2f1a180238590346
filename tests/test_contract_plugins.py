"""API.md section 9: plugins, and the one that keeps what jobs log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, finished, opened, quick, until, watched

from durably import Durably, Log, StepContext, StorageError, with_log_persistence
from durably.testing import FaultyDatabase


class Counting:
    """A plugin as a user would write one."""

    name = "counting"

    def __init__(self) -> None:
        self.installed: list[Durably] = []
        self.completed = 0

    def install(self, durably: Durably) -> None:
        self.installed.append(durably)
        durably.on("run:complete", self.count)

    def count(self, event: Any) -> None:
        self.completed += 1


# --- plugins --------------------------------------------------------------------------------------


@contract
async def test_a_plugin_is_installed_at_once_with_the_instance() -> None:
    """'`durably.use(plugin)`, a plugin has `name` and `install(durably)`.'"""
    durably, _ = await opened(":memory:", echo)
    plugin = Counting()
    durably.use(plugin)
    assert plugin.installed == [durably]
    await finished(durably, await durably.jobs.echo.trigger(1))
    assert plugin.completed == 1
    await durably.stop()


@contract
async def test_a_plugin_may_be_used_before_the_database_is_there(tmp_path: Path) -> None:
    """Like `register` and `on`: a plain call, in any order."""
    durably = quick(tmp_path / "a.sqlite3", echo)
    plugin = Counting()
    durably.use(plugin)
    durably.use(with_log_persistence())
    async with durably:
        await durably.jobs.echo.trigger_and_wait(1, timeout=30)
    assert plugin.completed == 1


@contract
async def test_a_plugin_that_is_used_twice_is_installed_once() -> None:
    """A `name` stands for one plugin: nothing is counted, or stored, twice."""
    durably, _ = await opened(":memory:", echo)
    plugin = Counting()
    durably.use(plugin)
    durably.use(plugin)
    second = Counting()
    durably.use(second)
    assert (len(plugin.installed), second.installed) == (1, [])
    await finished(durably, await durably.jobs.echo.trigger(1))
    assert plugin.completed == 1
    await durably.stop()


@contract
async def test_a_plugin_that_cannot_be_installed_may_be_used_again() -> None:
    """The error is the caller's, and the plugin is not taken for installed."""

    class Hesitant(Counting):
        def install(self, durably: Durably) -> None:
            self.attempts = getattr(self, "attempts", 0) + 1
            if self.attempts == 1:
                raise RuntimeError("not yet")
            super().install(durably)

    durably, _ = await opened(":memory:", echo)
    plugin = Hesitant()
    with pytest.raises(RuntimeError, match="not yet"):
        durably.use(plugin)
    durably.use(plugin)
    await finished(durably, await durably.jobs.echo.trigger(1))
    assert plugin.completed == 1
    await durably.stop()


# --- logs -----------------------------------------------------------------------------------------


async def talk(step: StepContext, payload: int) -> None:
    for n in range(payload):
        step.log.info(f"line {n}", {"n": n})


@contract
async def test_log_lines_are_kept_with_all_that_was_said() -> None:
    """'`Log`: `level message data step_name created_at`; levels `info warning error`'"""

    async def body(step: StepContext, payload: Any) -> None:
        step.log.info("outside")
        step.log.warning("careful", [1, {"a": None}])
        step.log.warn("also careful")
        await step.run("inside", lambda: step.log.error("ouch", {"why": "text"}))

    durably, _ = await opened(":memory:", body_job(body))
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.body.trigger(1))
    logs = await durably.get_logs(run.id)
    assert all(isinstance(log, Log) for log in logs)
    assert [(log.level, log.message, log.data, log.step_name) for log in logs] == [
        ("info", "outside", None, None),
        ("warning", "careful", [1, {"a": None}], None),
        ("warning", "also careful", None, None),
        ("error", "ouch", {"why": "text"}, "inside"),
    ]
    assert {log.created_at for log in logs} == {datetime(2026, 1, 1, tzinfo=UTC)}
    await durably.stop()


@contract
async def test_without_the_plugin_lines_are_events_and_nothing_is_stored() -> None:
    """'`durably.use(with_log_persistence())` stores every `log:write`': it takes that to store them."""
    durably, _ = await opened(":memory:", body_job(talk))
    events = watched(durably, "log:write")
    run = await finished(durably, await durably.jobs.body.trigger(3))
    assert len(events) == 3
    assert await durably.get_logs(run.id) == []
    await durably.stop()


@contract
async def test_lines_of_runs_side_by_side_are_each_runs_own_in_order() -> None:
    """'in batches, in order'"""

    async def body(step: StepContext, payload: Any) -> None:
        for n in range(40):
            step.log.info(f"{payload}-{n}")
            await asyncio.sleep(0)

    async with quick(":memory:", body_job(body), max_concurrent_runs=5) as durably:
        durably.use(with_log_persistence())
        runs = await durably.jobs.body.batch_trigger(list(range(5)))
        for run in runs:
            await durably.wait_for_run(run.id, timeout=30)
        for number, run in enumerate(runs):
            assert [log.message for log in await durably.get_logs(run.id)] == [f"{number}-{n}" for n in range(40)]


@contract
async def test_many_lines_cost_few_writes() -> None:
    """'logs stored by the plugin in batches'"""
    database = FaultyDatabase(":memory:")
    durably, _ = await opened(database, body_job(talk))
    durably.use(with_log_persistence())
    before = len(database.calls)
    run = await finished(durably, await durably.jobs.body.trigger(2000))
    assert len(await durably.get_logs(run.id)) == 2000
    assert len(database.calls) - before < 60
    await durably.stop()


@contract
async def test_no_line_is_lost_at_a_clean_stop(tmp_path: Path) -> None:
    """'none lost at a clean stop', however late the line."""

    async def body(step: StepContext, payload: Any) -> None:
        await step.run("s", lambda: [step.log.info(f"in {n}") for n in range(300)] and None)
        for n in range(300):
            step.log.info(f"out {n}")

    durably = quick(tmp_path / "a.sqlite3", body_job(body))
    durably.use(with_log_persistence())
    await durably.init()
    run = await durably.jobs.body.trigger(1)
    await until(lambda: _has_ended(durably, run))
    await durably.stop()
    reader, _ = await opened(tmp_path / "a.sqlite3")
    assert [log.message for log in await reader.get_logs(run.id)] == [
        *(f"in {n}" for n in range(300)), *(f"out {n}" for n in range(300)),
    ]  # fmt: skip
    await reader.stop()


@contract
async def test_listeners_may_read_the_logs_at_the_same_time() -> None:
    """A listener that waited for the others to end, while they waited for it, would hold everyone for good."""
    read: list[list[str]] = []

    async def report(event: Any) -> None:
        read.append([log.message for log in await durably.get_logs(event.run_id)])

    async with quick(":memory:", body_job(talk), max_concurrent_runs=4) as durably:
        durably.use(with_log_persistence())
        durably.on("run:complete", report)
        durably.on("run:complete", report)
        for run in await durably.jobs.body.batch_trigger([2] * 20):
            await durably.wait_for_run(run.id, timeout=30)
        await until(lambda: len(read) == 40, 10)
    assert read == [["line 0", "line 1"]] * 40


@contract
async def test_logs_are_read_without_waiting_for_listeners_that_are_at_work() -> None:
    """Lines can be read once they are stored; what else somebody does with events is not the reader's business."""
    held = asyncio.Event()

    async def linger(event: Any) -> None:
        await held.wait()

    durably, _ = await opened(":memory:", body_job(talk))
    durably.use(with_log_persistence())
    durably.on("*", linger)
    run = await finished(durably, await durably.jobs.body.trigger(2))
    async with asyncio.timeout(10):
        assert [log.message for log in await durably.get_logs(run.id)] == ["line 0", "line 1"]
    held.set()
    await durably.stop()


@contract
async def test_logs_can_be_read_while_a_job_goes_on_logging() -> None:
    """The reader waits for the lines that were said before it asked, not for those that come meanwhile."""
    said = 0

    async def body(step: StepContext, payload: Any) -> None:
        nonlocal said
        while True:
            step.log.info(f"line {said}")
            said += 1
            await asyncio.sleep(0)

    async with quick(":memory:", body_job(body)) as durably:
        durably.use(with_log_persistence())
        run = await durably.jobs.body.trigger(1)
        await until(lambda: said > 100)
        before = said
        async with asyncio.timeout(10):
            lines = [log.message for log in await durably.get_logs(run.id)]
        assert lines == [f"line {n}" for n in range(len(lines))]
        assert len(lines) >= before
        await durably.cancel(run.id)


async def _has_ended(durably: Durably, run: Any) -> bool:
    [found] = await durably.get_runs()
    return found.is_terminal


@contract
async def test_two_of_with_log_persistence_store_a_line_once() -> None:
    """The same, for the plugin that comes along."""
    durably, _ = await opened(":memory:", body_job(talk))
    durably.use(with_log_persistence())
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.body.trigger(2))
    assert [log.message for log in await durably.get_logs(run.id)] == ["line 0", "line 1"]
    await durably.stop()


@pytest.mark.parametrize(("lines", "faults"), [(1, 1), (10, 3), (10, 10)])
@contract
async def test_no_line_is_lost_when_the_store_fails_for_a_while(lines: int, faults: int, tmp_path: Path) -> None:
    """A store that could not be written when the lines came, and can when the program stops: they are all there, once
    each, in order; the run knows nothing of it."""
    database = FaultyDatabase(tmp_path / "a.sqlite3", lambda sql: "INSERT INTO durably_logs" in sql, times=faults)
    durably, _ = await opened(database, body_job(talk))
    durably.use(with_log_persistence())
    errors: list[Any] = []
    durably.on_error(errors.append)
    run = await finished(durably, await durably.jobs.body.trigger(lines))
    assert run.status == "completed"
    await durably.stop()
    assert database.failures == faults
    assert all(isinstance(error, StorageError) for error in errors)
    reader, _ = await opened(tmp_path / "a.sqlite3")
    assert [log.message for log in await reader.get_logs(run.id)] == [f"line {n}" for n in range(lines)]
    await reader.stop()


@contract
async def test_logs_of_a_retried_run_go_on_where_they_ended() -> None:
    """One list a run, over all its attempts."""
    broken = True

    async def body(step: StepContext, payload: Any) -> None:
        step.log.info("begun")
        if broken:
            raise ValueError("no")

    durably, _ = await opened(":memory:", body_job(body))
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.body.trigger(1))
    broken = False
    await durably.retry(run.id)
    await finished(durably, run)
    assert [log.message for log in await durably.get_logs(run.id)] == ["begun", "begun"]
    await durably.stop()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ((1, 2), [1, 2]), ({"d": datetime(2026, 1, 1, tzinfo=UTC)}, {"d": "2026-01-01T00:00:00Z"}), ("text", "text"),
        (0, 0), (False, False), ([], []), ({1: "int key"}, {"1": "int key"}), ({"x"}, ["x"]), (b"bytes", "bytes"),
    ],
    ids=ascii,
)  # fmt: skip
@contract
async def test_data_of_a_line_is_kept_as_json(data: Any, shown: Any) -> None:
    """What is logged is for people and tools to read: JSON values."""

    async def body(step: StepContext, payload: Any) -> None:
        step.log.info("m", data)

    durably, _ = await opened(":memory:", body_job(body))
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.body.trigger(1))
    [log] = await durably.get_logs(run.id)
    assert log.data == shown
    assert type(log.data) is type(shown)
    await durably.stop()
