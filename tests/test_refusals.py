"""What cannot be meant is refused where it is said, in a sentence, not later by whatever stumbles over it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durably import (
    Retry,
    RetryAfter,
    StepContext,
    StorageError,
    ValidationError,
    create_durably,
    define_job,
    job,
    with_log_persistence,
)


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


@job
async def count(step: StepContext, payload: int) -> int:
    return payload


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"database": 3}, "a database is a name, a path or a Database, not 3"),
        ({"database": None}, "a database is a name, a path or a Database, not None"),
        ({"labels": dict}, "labels must be a pydantic model"),
        ({"polling_interval": "1"}, "a span is a number of seconds or a timedelta, got '1'"),
    ],
)
def test_an_option_of_the_wrong_kind_is_a_type_error_before_anything_is_opened(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        create_durably(**{"database": ":memory:", **options})


def test_a_database_without_a_name_is_refused() -> None:
    """SQLite would make a file for it, and delete the file with all runs in it when it is closed."""
    with pytest.raises(ValueError, match="needs a name"):
        create_durably("")


def test_a_number_of_crashes_is_a_number() -> None:
    with pytest.raises(ValueError, match="max_crashes must be at least 1, got '3'"):
        create_durably(":memory:", max_crashes="3")  # type: ignore[arg-type]


def test_a_span_is_not_a_text() -> None:
    with pytest.raises(TypeError, match="got '3'"):
        define_job(name="x", input=int, run=count.run, timeout="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got '1'"):
        Retry(delay="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("on", [("ValueError",), (ValueError(),), "ValueError", (int,)])
def test_a_policy_names_classes_of_exceptions(on: Any) -> None:
    """Found out when a step fails, it would hide why the step has failed."""
    with pytest.raises(TypeError, match="on takes the classes of the exceptions"):
        Retry(on=on)


def test_a_policy_takes_one_class_as_except_does() -> None:
    assert Retry(on=OSError).next_delay(OSError(), 1, lambda: 0.0) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_the_next_attempt_is_not_in_the_past_nor_never(seconds: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds from 0 on"):
        RetryAfter(seconds)


@in_a_loop
async def test_a_listener_can_be_called() -> None:
    durably = create_durably(":memory:")
    with pytest.raises(TypeError, match="a listener is a function"):
        durably.on("*", None)  # type: ignore[arg-type]


@in_a_loop
async def test_a_plugin_that_could_not_be_installed_can_be_used_again() -> None:
    class Plugin:
        name = "shy"
        installed = 0

        def install(self, durably: object) -> None:
            self.installed += 1
            if self.installed == 1:
                raise OSError("not yet")

    durably = create_durably(":memory:")
    plugin = Plugin()
    with pytest.raises(OSError, match="not yet"):
        durably.use(plugin)
    durably.use(plugin)
    durably.use(plugin)
    assert plugin.installed == 2


@in_a_loop
async def test_a_call_before_init_says_that_init_is_missing(tmp_path: Path) -> None:
    durably = create_durably(tmp_path / "app.sqlite3", jobs=[count])
    with pytest.raises(StorageError, match=r"call init\(\) or migrate\(\) first"):
        await durably.jobs.count.trigger(1)
    with pytest.raises(StorageError, match=r"call init\(\) or migrate\(\) first"):
        await durably.get_runs()
    await durably.migrate()
    assert await durably.get_runs() == []
    await durably.stop()


@in_a_loop
async def test_of_many_payloads_the_one_that_does_not_fit_is_named() -> None:
    durably = create_durably(":memory:", jobs=[count])
    await durably.migrate()
    events: list[Any] = []
    durably.on("*", events.append)
    with pytest.raises(ValidationError, match="item 2: invalid payload for job 'count'"):
        await durably.jobs.count.batch_trigger([0, 1, "two", 3])
    with pytest.raises(ValidationError, match=r"^invalid payload for job 'count'"):
        await durably.jobs.count.trigger("two")
    assert (await durably.get_runs(), events) == ([], [])


@pytest.mark.parametrize("every", ["1", float("nan"), float("inf"), -1, 0, 1e15])
@in_a_loop
async def test_an_interval_that_is_none_is_refused(every: Any) -> None:
    durably = create_durably(":memory:", jobs=[count])
    await durably.migrate()
    with pytest.raises(ValidationError, match="every"):
        await durably.schedule("count", 1, every=every, key="k")
    assert await durably.get_schedules() == []


@job
async def patient(step: StepContext, span: float) -> None:
    step.log.info(span)  # type: ignore[arg-type]
    await step.wait_for_signal("never", timeout=span)
    await step.sleep("long", span)


@in_a_loop
async def test_a_span_beyond_the_calendar_is_for_ever_and_lists_can_still_be_read() -> None:
    """One run that sleeps past the year 9999 made every list of runs an OverflowError."""
    durably = create_durably(":memory:", jobs=[patient])
    durably.use(with_log_persistence())
    await durably.migrate()
    first = await durably.jobs.patient.trigger(1e18)
    await durably.process_until_idle()
    [run] = await durably.get_runs()
    assert (run.waiting_for, run.run_at.year) == ("signal:never", 9999)
    await durably.signal(first.id, "never")
    await durably.process_until_idle()
    [run] = await durably.get_runs()
    assert (run.waiting_for, run.run_at.year) == ("sleep:long", 9999)
    assert [line.message for line in await durably.get_logs(run.id)] == ["1e+18"]


@in_a_loop
async def test_a_retry_beyond_the_calendar_does_not_break_its_step() -> None:
    @job
    async def again(step: StepContext, payload: int) -> None:
        await step.with_options(retry=2).run("later", later)

    def later() -> None:
        raise RetryAfter(1e18)

    durably = create_durably(":memory:", jobs=[again])
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    durably.on("step:retry", lambda event: heard.set_result(event.next_attempt_at.year))
    async with durably:
        run = await durably.jobs.again.trigger(1)
        assert await heard == 9999
        await durably.cancel(run.id)
