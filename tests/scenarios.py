"""Behaviour that must be the same on both databases: each scenario runs on CPython and in a browser.

A scenario takes `place`, which makes a fresh database name from a label, and asserts. It uses nothing but
durably and the standard library, so that the very same file runs inside Pyodide on OPFS.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, auto
from functools import cached_property
from typing import Any
from uuid import UUID

from pydantic import BaseModel, computed_field

from durably import (
    ConflictError,
    Database,
    DuplicateStepError,
    Durably,
    DurablyError,
    JobDefinition,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    SchemaVersionError,
    Statement,
    StepContext,
    StepOutputError,
    StorageError,
    Trigger,
    ValidationError,
    create_durably,
    define_job,
    job,
)
from durably.databases import open_database
from durably.testing import ManualClock

Place = Callable[[str], str]
SCENARIOS: dict[str, Callable[[Place], Awaitable[None]]] = {}


def scenario(test: Callable[[Place], Awaitable[None]]) -> Callable[[Place], Awaitable[None]]:
    SCENARIOS[test.__name__] = test
    return test


def only_heartbeats(durably: Durably) -> None:
    """Let it judge by heartbeats alone: in a browser two instances of one scenario live in one worker, which lives."""
    durably._liveness.sees_death = False


class raises:  # noqa: N801 - reads as pytest's, which does not exist in the browser
    """`with raises(Error) as caught:`; the error is `caught.error` afterwards."""

    error: Any

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __enter__(self) -> raises:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        assert kind is not None, f"{self.kind.__name__} was not raised"
        self.error = error
        return issubclass(kind, self.kind)


class Order(BaseModel):
    item: str
    count: int = 1


class Receipt(BaseModel):
    text: str
    total: int


class Colour(Enum):
    RED = "red"


class Access(Flag):
    READ = auto()
    WRITE = auto()


class Circle(BaseModel):
    radius: float

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def area(self) -> float:
        return math.pi * self.radius**2

    def measured(self) -> Circle:
        """With its area computed and remembered, which is no part of its state."""
        assert self.area
        return self


@dataclass
class Point:
    x: int
    when: datetime
    tags: set[str] = field(default_factory=set)


def echo_job(calls: list[Any], name: str = "echo") -> JobDefinition[Any, Any]:
    """A job of one step that notes its payload in `calls` and returns it."""

    async def run(step: StepContext, payload: Any) -> Any:
        await step.run("note", calls.append, payload)
        return payload

    return define_job(name=name, input=Any, run=run)


# --- running --------------------------------------------------------------------------------------


@scenario
async def a_job_gets_its_typed_payload_and_gives_its_typed_output(place: Place) -> None:
    def price(item: str, *, count: int) -> int:
        return len(item) * count

    @job
    async def sell_things(step: StepContext, payload: Order) -> Receipt:
        assert isinstance(payload, Order)
        total = await step.run("price", price, payload.item, count=payload.count)
        return Receipt(text=payload.item, total=total)

    async with create_durably(place("db"), jobs=[sell_things]) as durably:
        run = await durably.jobs.sell_things.trigger({"item": "pen", "count": 4})
        assert (run.status, run.disposition) == (RunStatus.PENDING, "created")
        done = await durably.wait_for_run(run.id, timeout=10)

    assert done.job_name == "sell-things"
    assert done.status == "completed"
    assert done.payload == Order(item="pen", count=4)
    assert done.output == Receipt(text="pen", total=12)
    assert done.generation == 1
    assert done.completed_step_count == 1


@scenario
async def a_retried_run_goes_on_from_its_last_checkpoint(place: Place) -> None:
    calls: list[str] = []
    healthy = False

    def note(name: str) -> str:
        calls.append(name)
        return name

    def flaky() -> str:
        calls.append("flaky")
        if not healthy:
            raise OSError("the network is away")
        return "ok"

    @job
    async def three(step: StepContext, payload: int) -> list[str]:
        first = await step.run("first", note, "first")
        second = await step.run("second", flaky)
        return [first, second, await step.run("third", note, "third")]

    durably = create_durably(place("db"), jobs=[three])
    await durably.migrate()
    run = await durably.jobs.three.trigger(1)
    assert await durably.process_one()
    failed = await durably.get_run(run.id)
    assert failed is not None
    assert (failed.status, failed.error) == ("failed", "the network is away")
    steps = await durably.get_steps(run.id)
    assert [(step.name, step.status) for step in steps] == [("first", "completed"), ("second", "failed")]

    healthy = True
    retried = await durably.retry(run.id)
    assert (retried.status, retried.error) == ("pending", None)
    assert await durably.process_until_idle() == 1
    done = await durably.get_run(run.id)
    assert done is not None
    assert done.output == ["first", "ok", "third"]
    assert calls == ["first", "flaky", "flaky", "third"]
    assert [step.attempt for step in await durably.get_steps(run.id)] == [1, 1, 1], "retry counts anew"
    await durably.stop()


@scenario
async def a_step_name_stands_for_one_call(place: Place) -> None:
    @job
    async def twice(step: StepContext, payload: int) -> int:
        await step.run("same", lambda: 1)
        return await step.run("same", lambda: 2)

    async with create_durably(place("db"), jobs=[twice]) as durably:
        with raises(RunFailedError) as caught:
            await durably.jobs.twice.trigger_and_wait(1, timeout=10)
        assert "step 'same' was already used" in str(caught.error)
        assert caught.error.run.status == "failed"

    @job
    async def catches(step: StepContext, payload: int) -> str:
        await step.run("same", lambda: 1)
        try:
            await step.run("same", lambda: 2)
        except DuplicateStepError as error:
            return error.step_name
        return "not raised"

    async with create_durably(place("other"), jobs=[catches]) as durably:
        assert (await durably.jobs.catches.trigger_and_wait(1, timeout=10)).output == "same"


@scenario
async def what_replay_returns_equals_what_the_first_call_returned(place: Place) -> None:
    values: list[Any] = [
        None,
        [1, 2.0, -0.0, math.inf, "ü\0", True, {"a": [None]}],
        2**70,
        b"",
        b"\x00\xff" * 10_000,
        {"nested": b"\x01", "$": 1},
        {1: "one", (2, 3): {4, 5}},
        (1, frozenset({2}), [3]),
        datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=UTC),
        date(2026, 3, 1),
        timedelta(days=-1, microseconds=7),
        Decimal("1.10"),
        UUID(int=7),
        Colour.RED,
        Access.READ | Access.WRITE,
        Circle(radius=2.0).measured(),
        "lone \ud800 surrogate",
        1 << 12_000,
        time(1, 2, 3, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, tzinfo=UTC, fold=1),
        Point(1, datetime(2026, 1, 1, tzinfo=UTC), {"a"}),
        Order(item="x", count=3),
        [Order(item="y")],
    ]
    executions: list[list[Any]] = []

    @job
    async def keep(step: StepContext, payload: int) -> int:
        executions.append([await step.run(f"v{i}", lambda i=i: values[i]) for i in range(len(values))])
        if len(executions) == 1:
            raise OSError("once more")
        return len(values)

    durably = create_durably(place("db"), jobs=[keep])
    await durably.migrate()
    run = await durably.jobs.keep.trigger(1)
    await durably.process_one()
    await durably.retry(run.id)
    await durably.process_one()
    await durably.stop()
    first, replayed = executions
    for value, seen, again in zip(values, first, replayed, strict=True):
        assert repr(seen) == repr(value), f"first execution: {seen!r} is not {value!r}"
        assert seen == again, f"replay: {again!r} is not {value!r}"
        assert type(seen) is type(again) is type(value)


@scenario
async def a_result_that_cannot_be_kept_is_refused_with_its_path(place: Place) -> None:
    @job
    async def bad(step: StepContext, payload: int) -> int:
        await step.run("make", lambda: {"rows": [1, object()]})
        return 1

    async with create_durably(place("db"), jobs=[bad]) as durably:
        with raises(RunFailedError) as caught:
            await durably.jobs.bad.trigger_and_wait(1, timeout=10)
        assert "step 'make'" in str(caught.error)
        assert "$.rows[1]" in str(caught.error)
        [stored] = await durably.get_steps(caught.error.run.id)
        assert (stored.status, stored.output) == ("failed", None)

    class Local:
        pass

    @job
    async def seen(step: StepContext, payload: int) -> str:
        try:
            await step.run("make", lambda: Local())
        except StepOutputError as error:
            return error.path
        return "not raised"

    async with create_durably(place("other"), jobs=[seen]) as durably:
        assert (await durably.jobs.seen.trigger_and_wait(1, timeout=10)).output == "$"


@scenario
async def steps_in_parallel_are_checkpoints_of_their_own(place: Place) -> None:
    async def part(n: int) -> int:
        await asyncio.sleep(0.001 * (5 - n))
        return n

    @job
    async def fan_out(step: StepContext, payload: int) -> list[int]:
        return list(await asyncio.gather(*(step.run(f"part-{n}", part, n) for n in range(payload))))

    async with create_durably(place("db"), jobs=[fan_out]) as durably:
        done = await durably.jobs.fan_out.trigger_and_wait(5, timeout=10)
        assert done.output == [0, 1, 2, 3, 4]
        assert [step.index for step in await durably.get_steps(done.id)] == [0, 1, 2, 3, 4]


@scenario
async def when_one_of_several_steps_fails_the_others_end_with_the_run(place: Place) -> None:
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("one failed")

    async def patient(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def branch(step: StepContext) -> None:
        try:
            await step.run("patient", patient, "first")
        finally:
            await step.run("afterwards", patient, "never begun")

    @job
    async def several(step: StepContext, payload: int) -> None:
        await asyncio.gather(step.run("fails", fails), branch(step))

    @job
    async def grouped(step: StepContext, payload: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("fails", fails))
            group.create_task(step.run("patient", patient, "second"))

    async with create_durably(place("db"), jobs=[several, grouped]) as durably:
        failed: list[str | None] = []
        durably.on("run:fail", lambda event: failed.append(event.failed_step_name))
        for handle in durably.jobs:
            with raises(RunFailedError) as caught:
                await handle.trigger_and_wait(1, timeout=10)
            assert str(caught.error) == "one failed"
    assert ended == ["first", "second"]
    assert failed == ["fails", "fails"]


@scenario
async def whatever_a_job_raises_ends_its_run(place: Place) -> None:
    class Odd(BaseException):
        pass

    raised: list[BaseException] = []

    @job
    async def strange(step: StepContext, payload: int) -> None:
        raise raised[-1]

    @job
    async def exhausted(step: StepContext, payload: int) -> None:
        await step.run("next", lambda: next(iter([])))

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    async with create_durably(place("db"), jobs=[strange, exhausted]) as durably:
        for error, text in (
            (Odd("odd"), "odd"),
            (SystemExit(3), "3"),
            (asyncio.CancelledError("by itself"), "by itself"),
            (UnprintableError(), "UnprintableError"),
            (KeyError("key"), "KeyError: 'key'"),
            (ValueError("\ud800\0"), "\\ud800\\x00"),
            (ExceptionGroup("two", [OSError("first"), OSError("second")]), "first (and 1 more)"),
        ):
            raised.append(error)
            with raises(RunFailedError) as caught:
                await durably.jobs.strange.trigger_and_wait(1, timeout=10)
            assert caught.error.run.error == text
            assert caught.error.run.generation == 1
        with raises(RunFailedError):
            await durably.jobs.exhausted.trigger_and_wait(1, timeout=10)


@scenario
async def a_store_that_fails_is_not_the_jobs_failure(place: Place) -> None:
    """The checkpoint could not be written: the run goes on from the one before, when it can."""
    calls: list[str] = []

    class Failing:
        """The real database, which fails once at the first checkpoint of step `second`."""

        def __init__(self, real: Database) -> None:
            self._real, self.name, self.is_broken = real, real.name, True
            self.transaction, self.close, self.beat, self.at_rest = (
                real.transaction,
                real.close,
                real.beat,
                real.at_rest,
            )

        async def execute(self, *statements: Statement) -> list[Any]:
            is_checkpoint = any(dict(one.params).get("name") == "second" for one in statements if one.params)
            if self.is_broken and is_checkpoint:
                self.is_broken = False
                raise StorageError("the disk is away")
            return await self._real.execute(*statements)

    @job
    async def two_steps(step: StepContext, payload: int) -> str:
        await step.run("first", lambda: calls.append("first"))
        await step.run("second", lambda: calls.append("second"))
        return "done"

    durably = create_durably(Failing(open_database(place("db"))), jobs=[two_steps], polling_interval=0.02)
    errors: list[str] = []
    durably.on("worker:error", lambda event: errors.append(event.error))
    await durably.init()
    done = await durably.jobs.two_steps.trigger_and_wait(1, timeout=10)
    await durably.stop()
    assert done.output == "done"
    assert calls == ["first", "second", "second"]
    assert errors == ["the disk is away"]


@scenario
async def an_output_that_does_not_fit_fails_the_run(place: Place) -> None:
    async def run(step: StepContext, payload: int) -> Any:
        return {"text": "x", "total": "many"}

    async with create_durably(
        place("db"), jobs=[define_job(name="wrong", input=int, output=Receipt, run=run)]
    ) as durably:
        with raises(RunFailedError) as caught:
            await durably.jobs.wrong.trigger_and_wait(1, timeout=10)
    assert str(caught.error).startswith("Invalid output: total: ")


# --- triggering and finding -----------------------------------------------------------------------


@scenario
async def a_payload_that_does_not_fit_is_refused_and_nothing_is_stored(place: Place) -> None:
    definition = define_job(name="order", input=Order, run=echo_job([]).run)
    async with create_durably(place("db"), jobs={"order": definition}) as durably:
        with raises(ValidationError) as caught:
            await durably.jobs.order.trigger({"item": "pen", "count": "many"})
        assert caught.error.status == 400
        assert "count" in caught.error.message
        with raises(ValidationError):
            await durably.jobs.order.batch_trigger([{"item": "good"}, {"count": 2}])
        assert await durably.get_runs() == []


@scenario
async def a_name_belongs_to_one_definition(place: Place) -> None:
    one, other = echo_job([]), echo_job([])
    durably = create_durably(place("db"), jobs=[one])
    durably.register(one)
    with raises(ValueError):
        durably.register(other)
    assert durably.get_job("echo") is not None
    assert durably.get_job("no-such") is None
    assert [handle.name for handle in durably.jobs] == ["echo"]


@scenario
async def an_idempotency_key_means_one_run(place: Place) -> None:
    triggered: list[str] = []
    async with create_durably(place("db"), jobs=[echo_job([])]) as durably:
        durably.on("run:trigger", lambda event: triggered.append(event.run_id))
        first = await durably.jobs.echo.trigger(1, idempotency_key="k")
        again = await durably.jobs.echo.trigger(2, idempotency_key="k")
        assert (again.id, again.disposition, again.payload) == (first.id, "idempotent", 1)
        both = await durably.jobs.echo.batch_trigger([Trigger(3, idempotency_key="k"), 4])
        assert [run.disposition for run in both] == ["idempotent", "created"]
        assert triggered == [first.id, both[1].id]


@scenario
async def higher_priority_goes_first_then_the_oldest_and_nothing_before_its_time(place: Place) -> None:
    calls: list[Any] = []
    clock = ManualClock()
    durably = create_durably(place("db"), jobs=[echo_job(calls)], clock=clock)
    await durably.migrate()
    trigger = durably.jobs.echo.trigger
    await trigger("late", delay=60)
    await trigger("a")
    await trigger("b")
    await trigger("urgent", priority=5)
    assert await durably.process_until_idle() == 3
    assert calls == ["urgent", "a", "b"]
    await clock.advance(59.999)
    assert not await durably.process_one()
    await clock.advance(0.001)
    assert await durably.process_one()
    assert calls[-1] == "late"
    with raises(ValidationError):
        await trigger("x", run_at=datetime(2026, 1, 1))  # noqa: DTZ001 - the point: it names no instant
    await durably.stop()


@scenario
async def an_option_that_cannot_be_kept_is_refused(place: Place) -> None:
    durably = create_durably(place("db"), jobs=[echo_job([])])
    await durably.migrate()
    trigger = durably.jobs.echo.trigger
    for payload, options in (
        (object(), {}),
        ({"s": "\ud800"}, {}),
        (1, {"delay": 1e12}),
        (1, {"delay": -1}),
        (1, {"delay": math.nan}),
        (1, {"delay": 1, "run_at": datetime.now(UTC)}),
        (1, {"run_at": "tomorrow"}),
        (1, {"priority": 2**70}),
        (1, {"priority": "high"}),
        (1, {"idempotency_key": "\ud800"}),
        (1, {"concurrency_key": ""}),
        (1, {"labels": {"a b": "x"}}),
        (1, {"labels": {"a": 1}}),
    ):
        with raises(ValidationError):
            await trigger(payload, **options)  # type: ignore[arg-type]
    assert await durably.get_runs() == []
    run = await trigger({"n": math.nan})
    assert math.isnan(run.payload["n"])
    await durably.stop()


@scenario
async def one_run_per_concurrency_key_at_a_time(place: Place) -> None:
    running = 0
    most = 0

    @job
    async def careful(step: StepContext, payload: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await step.run("wait", asyncio.sleep, 0.01)
        running -= 1
        return payload

    async with create_durably(place("db"), jobs=[careful], max_concurrent_runs=4, polling_interval=0.02) as durably:
        runs = await durably.jobs.careful.batch_trigger([Trigger(n, concurrency_key="k") for n in range(4)])
        done = [await durably.wait_for_run(run.id, timeout=10) for run in runs]
    assert most == 1
    starts = [run.started_at for run in done]
    assert starts == sorted(starts, key=lambda moment: moment or datetime.min.replace(tzinfo=UTC))


@scenario
async def runs_are_found_by_status_job_and_labels_newest_first(place: Place) -> None:
    durably = create_durably(place("db"), jobs=[echo_job([], "one"), echo_job([], "two")])
    await durably.migrate()
    a = await durably.jobs.one.trigger(1, labels={"src": "csv", "org": "x"})
    b = await durably.jobs.two.trigger(2, labels={"src": "csv"})
    await durably.process_one()

    def ids(runs: list[Any]) -> list[str]:
        return [run.id for run in runs]

    assert ids(await durably.get_runs()) == [b.id, a.id]
    assert ids(await durably.get_runs(limit=1, offset=1)) == [a.id]
    assert ids(await durably.get_runs(status="completed")) == [a.id]
    assert ids(await durably.get_runs(status=["completed", RunStatus.PENDING], job_name="two")) == [b.id]
    assert ids(await durably.get_runs(labels={"src": "csv", "org": "x"})) == [a.id]
    assert ids(await durably.jobs.two.get_runs()) == [b.id]
    assert await durably.jobs.two.get_run(a.id) is None
    with raises(ValidationError):
        await durably.get_runs(status="done")
    with raises(NotFoundError):
        await durably.get_steps("01NOSUCH")
    assert await durably.get_run("01NOSUCH") is None
    await durably.stop()


# --- events ---------------------------------------------------------------------------------------


@scenario
async def events_come_in_order_and_a_listener_cannot_break_a_run(place: Place) -> None:
    heard: list[str] = []
    broken: list[str] = []

    async def slow_listener(event: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("async listener")

    def bad_listener(event: Any) -> None:
        raise ValueError("listener")

    @job
    async def talk(step: StepContext, payload: int) -> int:
        await step.run("one", lambda: step.log.info("inside", {"n": 1}))
        step.progress(1, 2, "half")
        step.log.warning("outside")
        return 1

    async with create_durably(place("db"), jobs=[talk]) as durably:
        durably.on("*", lambda event: heard.append(event.type))
        durably.on("step:start", bad_listener)
        durably.on("step:complete", slow_listener)
        durably.on_error(lambda error, event: broken.append(f"{error} {event.type}"))
        done = await durably.jobs.talk.trigger_and_wait(1, timeout=10)
    assert heard == [
        "run:trigger",
        "run:start",
        "step:start",
        "log:write",
        "step:complete",
        "run:progress",
        "log:write",
        "run:complete",
    ]
    assert broken == ["listener step:start", "async listener step:complete"]
    assert done.progress is not None
    assert (done.progress.current, done.progress.total, done.progress.message) == (1, 2, "half")


@scenario
async def a_subscription_begins_with_the_present_state_and_ends_with_the_run(place: Place) -> None:
    durably = create_durably(place("db"), jobs=[echo_job([])])
    await durably.migrate()
    run = await durably.jobs.echo.trigger("x")
    types: list[str] = []

    async def follow() -> None:
        async for event in durably.subscribe(run.id):
            types.append(event.type)

    following = asyncio.ensure_future(follow())
    while not types:
        await asyncio.sleep(0.001)
    await durably.process_one()
    await asyncio.wait_for(following, 10)
    assert types == ["run:trigger", "run:start", "step:start", "step:complete", "run:complete"]
    types.clear()
    await follow()
    assert types == ["run:complete"]
    with raises(NotFoundError):
        async for _ in durably.subscribe("01NOSUCH"):
            pass
    await durably.stop()


@scenario
async def a_subscription_tells_nothing_twice(place: Place) -> None:
    """The row is read between events, and says again what the events have said."""
    release = asyncio.Event()

    @job
    async def slow(step: StepContext, payload: int) -> str:
        step.progress(1, 2)
        await step.run("wait", release.wait)
        step.progress(2, 2)
        return "done"

    async with create_durably(place("db"), jobs=[slow], polling_interval=0.01) as durably:
        run = await durably.jobs.slow.trigger(1)
        types: list[str] = []
        async for event in durably.subscribe(run.id):
            types.append(event.type)
            if event.type == "step:start":
                asyncio.get_running_loop().call_later(0.3, release.set)
    assert [kind for kind in types if not kind.startswith("step:")] in (
        ["run:trigger", "run:start", "run:progress", "run:progress", "run:complete"],
        ["run:start", "run:progress", "run:progress", "run:complete"],
    )


@scenario
async def a_run_that_is_retried_when_it_fails_is_waited_for_to_its_end(place: Place) -> None:
    attempts: list[int] = []

    @job
    async def second_time_lucky(step: StepContext, payload: int) -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("not yet")
        return len(attempts)

    async with create_durably(place("db"), jobs=[second_time_lucky]) as durably:

        async def again(event: Any) -> None:
            await durably.retry(event.run_id)

        durably.on("run:fail", again)
        try:
            done = await durably.jobs.second_time_lucky.trigger_and_wait(1, timeout=10)
        except RunFailedError as error:
            # It was read in the moment between the failure and the retry, which is true too.
            done = await durably.wait_for_run(error.run.id, timeout=10)
        assert done.output == 2


@scenario
async def waiting_longer_than_the_timeout_leaves_the_run_alone(place: Place) -> None:
    release = asyncio.Event()

    @job
    async def wait(step: StepContext, payload: int) -> str:
        await step.run("wait", release.wait)
        return "done"

    async with create_durably(place("db"), jobs=[wait]) as durably:
        run = await durably.jobs.wait.trigger(1)
        with raises(TimeoutError):
            await durably.wait_for_run(run.id, timeout=0.05)
        release.set()
        assert (await durably.wait_for_run(run.id, timeout=10)).output == "done"


# --- cancelling, stopping, taking over ------------------------------------------------------------


@scenario
async def a_running_run_is_cancelled_at_its_next_await(place: Place) -> None:
    cleaned: list[str] = []
    started = asyncio.Event()

    async def long() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("finally")

    @job
    async def stoppable(step: StepContext, payload: int) -> int:
        await step.run("long", long)
        return 1

    async with create_durably(place("db"), jobs=[stoppable]) as durably:
        heard: list[str] = []
        durably.on("*", lambda event: heard.append(event.type))
        run = await durably.jobs.stoppable.trigger(1)
        waiting = await durably.jobs.stoppable.trigger(2)
        await asyncio.wait_for(started.wait(), 10)
        assert (await durably.cancel(waiting.id)).status == "cancelled"
        await durably.cancel(run.id)
        with raises(RunCancelledError):
            await durably.wait_for_run(run.id, timeout=10)
        while not cleaned:
            await asyncio.sleep(0.001)
        with raises(ConflictError) as caught:
            await durably.cancel(run.id)
        assert "is cancelled" in caught.error.message
        with raises(NotFoundError):
            await durably.cancel("01NOSUCH")
    assert heard.count("run:cancel") == 2
    assert "run:fail" not in heard


@scenario
async def stopping_hands_the_run_back_and_nothing_is_lost(place: Place) -> None:
    calls: list[str] = []
    started = asyncio.Event()
    patience = [60.0]

    async def long() -> str:
        calls.append("long")
        started.set()
        await asyncio.sleep(patience[0])
        return "slept"

    @job
    async def interrupted(step: StepContext, payload: int) -> str:
        await step.run("first", lambda: calls.append("first"))
        return await step.run("long", long)

    durably = create_durably(place("db"), jobs=[interrupted])
    await durably.init()
    run = await durably.jobs.interrupted.trigger(1)
    await asyncio.wait_for(started.wait(), 10)
    await durably.stop(timeout=0.01)
    handed_back = await durably.get_run(run.id)
    assert handed_back is not None
    assert (handed_back.status, handed_back.completed_step_count) == ("pending", 1)
    patience[0] = 0
    await durably.init()
    assert (await durably.wait_for_run(run.id, timeout=10)).output == "slept"
    await durably.stop()
    assert calls == ["first", "long", "long"]


@scenario
async def a_run_that_is_retried_while_its_cancelled_execution_cleans_up_runs_once_more(place: Place) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()
    executions: list[int] = []

    async def slow_to_end() -> str:
        executions.append(len(executions))
        if len(executions) > 1:
            await asyncio.sleep(0.3)
            return "second"
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await cleaned.wait()
        return "first"

    @job
    async def stubborn(step: StepContext, payload: int) -> str:
        return await step.run("slow", slow_to_end)

    async with create_durably(
        place("db"),
        jobs=[stubborn],
        polling_interval=0.01,
        heartbeat_interval=0.02,
        stale_threshold=0.1,
        max_concurrent_runs=2,
    ) as durably:
        run = await durably.jobs.stubborn.trigger(1)
        await asyncio.wait_for(started.wait(), 10)
        await durably.cancel(run.id)
        await durably.retry(run.id)
        while len(executions) < 2:
            await asyncio.sleep(0.001)
        cleaned.set()
        done = await durably.wait_for_run(run.id, timeout=10)
    assert (done.output, done.generation) == ("second", 2)
    assert executions == [0, 1]


@scenario
async def claiming_by_hand_beside_a_started_worker_runs_everything_once(place: Place) -> None:
    calls: list[Any] = []
    durably = create_durably(place("db"), jobs=[echo_job(calls)], polling_interval=0.001, max_concurrent_runs=5)
    await durably.init()
    runs = await durably.jobs.echo.batch_trigger(range(60))
    await asyncio.gather(*(durably.process_until_idle() for _ in range(3)))
    for run in runs:
        await durably.wait_for_run(run.id, timeout=10)
    await durably.stop()
    assert sorted(calls) == list(range(60))


@scenario
async def a_stopped_worker_leaves_nothing_running(place: Place) -> None:
    calls: list[Any] = []
    name = place("db")
    for _ in range(8):
        durably = create_durably(name, jobs=[echo_job(calls)], max_concurrent_runs=3)
        await durably.init()
        await durably.jobs.echo.batch_trigger(range(5))
        await asyncio.sleep(0.002)
        await durably.stop()
        assert await durably.get_runs(status="running") == []
        await durably.stop()


@scenario
async def a_stale_run_is_taken_over_and_its_old_worker_can_write_nothing(place: Place) -> None:
    """A worker that was frozen past its lease must not write over the one that took its place."""
    name, frozen_clock, clock = place("db"), ManualClock(), ManualClock()
    frozen, thawed = asyncio.Event(), asyncio.Event()
    after: list[str] = []

    def make(worker: str) -> JobDefinition[Any, Any]:
        async def run(step: StepContext, payload: int) -> str:
            await step.run("first", lambda: worker)
            if worker == "old":
                frozen.set()
                await thawed.wait()
            step.progress(1, 1, worker)
            second = await step.run("second", lambda: worker)
            after.append(worker)
            return second

        return define_job(name="shared", input=int, output=str, run=run)

    old = create_durably(name, jobs=[make("old")], clock=frozen_clock, stale_threshold=30, heartbeat_interval=20)
    new = create_durably(name, jobs=[make("new")], clock=clock, stale_threshold=30, heartbeat_interval=20)
    only_heartbeats(new)
    await old.migrate()
    stale: list[str] = []
    new.on("run:stale", lambda event: stale.append(event.run_id))
    run = await old.jobs.shared.trigger(1)
    working = asyncio.ensure_future(old.process_one())
    await asyncio.wait_for(frozen.wait(), 10)
    assert not await new.process_one(), "a live lease is respected"

    # Time goes by for the others only: the frozen worker sends no heartbeat.
    await clock.advance(31)
    assert await new.process_one()
    assert stale == [run.id]
    done = await new.get_run(run.id)
    assert done is not None
    assert (done.status, done.output, done.generation) == ("completed", "new", 2)

    thawed.set()
    await asyncio.wait_for(working, 10)
    assert await new.get_run(run.id) == done
    assert [step.output for step in await new.get_steps(run.id)] == ["old", "new"]
    assert after == ["new"], "the old execution stopped at its next step"
    await old.stop()
    await new.stop()


@scenario
async def heartbeats_keep_a_long_run_with_its_worker(place: Place) -> None:
    name, clock = place("db"), ManualClock()
    started, release = asyncio.Event(), asyncio.Event()
    executions: list[int] = []

    async def long() -> None:
        executions.append(1)
        started.set()
        await release.wait()

    @job
    async def lengthy(step: StepContext, payload: int) -> int:
        await step.run("long", long)
        return 1

    busy = create_durably(name, jobs=[lengthy], clock=clock, heartbeat_interval=5, stale_threshold=30)
    other = create_durably(name, jobs=[lengthy], clock=clock, heartbeat_interval=5, stale_threshold=30)
    await busy.migrate()
    run = await busy.jobs.lengthy.trigger(1)
    working = asyncio.ensure_future(busy.process_one())
    await asyncio.wait_for(started.wait(), 10)
    for _ in range(30):
        before = await other.get_run(run.id)
        await clock.advance(5)
        while (now := await other.get_run(run.id)) is None or before is None or now.heartbeat_at == before.heartbeat_at:
            await asyncio.sleep(0.001)
        assert not await other.process_one()
    release.set()
    await asyncio.wait_for(working, 10)
    assert executions == [1]
    await busy.stop()
    await other.stop()


@scenario
async def a_worker_claims_only_jobs_that_it_knows(place: Place) -> None:
    name = place("db")
    calls: list[Any] = []
    one = create_durably(name, jobs=[echo_job(calls, "one")])
    two = create_durably(name, jobs=[echo_job(calls, "two")])
    await one.migrate()
    run = await one.jobs.one.trigger("mine")
    assert not await two.process_one()
    seen = await two.get_run(run.id)
    assert seen is not None
    assert (seen.status, seen.payload) == ("pending", "mine")
    assert await one.process_one()
    await one.stop()
    await two.stop()


# --- transactions and the database ----------------------------------------------------------------


@scenario
async def a_transaction_and_its_checkpoint_are_committed_together(place: Place) -> None:
    attempts: list[int] = []

    async def add(tx: Any, amount: int) -> int:
        attempts.append(amount)
        await tx.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER)")
        await tx.execute("INSERT INTO account VALUES (1, 0) ON CONFLICT DO NOTHING")
        await tx.execute("UPDATE account SET balance = balance + :amount", {"amount": amount})
        if len(attempts) == 1:
            raise OSError("after the write, before the commit")
        rows = await tx.execute("SELECT id, balance FROM account WHERE id = ?", (1,))
        assert (rows[0]["balance"], rows[0][0], rows[0].keys()) == (rows[0][1], 1, ["id", "balance"])
        return int(rows[0]["balance"])

    @job
    async def deposit(step: StepContext, payload: int) -> int:
        balance = await step.transaction("add", add, payload)
        if len(attempts) == 2:
            attempts.append(0)
            raise OSError("after the commit")
        return balance

    durably = create_durably(place("db"), jobs=[deposit])
    await durably.migrate()
    run = await durably.jobs.deposit.trigger(5)
    for _ in range(3):
        await durably.process_one()
        found = await durably.get_run(run.id)
        assert found is not None
        if found.status == "failed":
            await durably.retry(run.id)
    assert found.output == 5
    assert attempts == [5, 5, 0]
    await durably.stop()


@scenario
async def a_step_inside_a_transaction_is_refused_instead_of_waiting_for_itself(place: Place) -> None:
    @job
    async def nested(step: StepContext, payload: int) -> str:
        async def inside(tx: Any) -> str:
            try:
                await step.run("inner", lambda: 1)
            except DurablyError as error:
                return error.message
            return "not raised"

        return await step.transaction("outer", inside)

    async with create_durably(place("db"), jobs=[nested]) as durably:
        done = await durably.jobs.nested.trigger_and_wait(1, timeout=10)
    assert "only tx is for use" in done.output


@scenario
async def a_step_in_a_task_of_the_transaction_is_refused_too(place: Place) -> None:
    @job
    async def nested(step: StepContext, payload: int) -> str:
        async def inside(tx: Any) -> str:
            found = await asyncio.gather(step.run("inner", lambda: 1), return_exceptions=True)
            return str(found[0])

        return await step.transaction("outer", inside)

    async with create_durably(place("db"), jobs=[nested]) as durably:
        done = await durably.jobs.nested.trigger_and_wait(1, timeout=10)
    assert "only tx is for use" in done.output


@scenario
async def a_transaction_that_is_cancelled_leaves_the_database_usable(place: Place) -> None:
    """Whenever the cancellation comes: at the beginning, between two statements, at the end."""
    database = open_database(place("db"))
    await database.execute(Statement("CREATE TABLE t (v)"))
    kept: list[Any] = []

    async def write(n: int) -> None:
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (?)", (n,))
            await asyncio.sleep(0)
            await tx.execute("INSERT INTO t VALUES (?)", (n,))
            kept.append(tx)

    for n in range(40):
        task = asyncio.ensure_future(write(n))
        for _ in range(n % 12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (-1)")
    [rows] = await database.execute(Statement("SELECT v, count(*) FROM t GROUP BY v"))
    counts = {row[0]: row[1] for row in rows.rows}
    assert counts.pop(-1) == 40
    assert set(counts.values()) <= {2}, "a transaction is whole or not at all"
    for tx in kept:
        with raises(DurablyError):
            await tx.execute("INSERT INTO t VALUES (99)")
    await database.close()


@scenario
async def a_table_may_change_between_two_reads(place: Place) -> None:
    database = open_database(place("db"))
    read = Statement("SELECT * FROM t -- all there is")
    await database.execute(Statement("CREATE TABLE t (a)"), Statement("INSERT INTO t VALUES ('\ufeffx')"))
    [before] = await database.execute(read)
    await database.execute(Statement("ALTER TABLE t ADD COLUMN b"))
    [wider] = await database.execute(read)
    await database.execute(Statement("ALTER TABLE t RENAME COLUMN b TO c"))
    [renamed] = await database.execute(read)
    assert [found.rows[0].keys() for found in (before, wider, renamed)] == [["a"], ["a", "b"], ["a", "c"]]
    assert renamed.rows[0]["a"] == "\ufeffx"
    await database.close()


@scenario
async def values_survive_the_database_unchanged(place: Place) -> None:
    values: list[Any] = [
        None,
        0,
        -1,
        2**31,
        -(2**53),
        2**63 - 1,
        -(2**63),
        1.5,
        2.0,
        -0.0,
        1e300,
        math.inf,
        "",
        "a\0b",
        "ü😀" * 9000,
        b"",
        b"\0" * 20_000,
    ]
    database = open_database(place("db"))
    await database.execute(Statement("CREATE TABLE t (i INTEGER PRIMARY KEY, v)"))
    writes = [Statement("INSERT INTO t (v) VALUES (:v)", {"v": value}) for value in values]
    results = await database.execute(*writes, Statement("SELECT v FROM t ORDER BY i"))
    assert [result.changes for result in results[:-1]] == [1] * len(values)
    found = [row["v"] for row in results[-1].rows]
    assert [repr(value) for value in found] == [repr(value) for value in values]
    await database.close()
    [again] = await database.execute(Statement("SELECT v FROM t ORDER BY i"))
    assert [row[0] for row in again.rows] == values
    await database.close()


@scenario
async def a_batch_is_all_or_nothing_and_says_what_is_wrong(place: Place) -> None:
    database = open_database(place("db"))
    await database.execute(Statement("CREATE TABLE t (v INTEGER NOT NULL)"))
    good = Statement("INSERT INTO t VALUES (?)", (1,))
    for bad, reason in (
        (Statement("INSERT INTO t VALUES (?)", (None,)), "NOT NULL"),
        (Statement("INSERT INTO nowhere VALUES (1)"), "nowhere"),
        (Statement("INSERT INTO t VALUES (?, ?)", (1,)), ""),
        (Statement("INSERT INTO t VALUES (:missing)", {"v": 1}), ""),
        (Statement("INSERT INTO t VALUES (1); DELETE FROM t"), "one"),
    ):
        with raises(StorageError) as caught:
            await database.execute(good, bad)
        assert reason in caught.error.message, caught.error.message

    async def fails() -> None:
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (7)")
            raise KeyError("mine")

    with raises(KeyError):
        await fails()
    [count] = await database.execute(Statement("SELECT count(*) FROM t"))
    assert count.rows[0][0] == 0
    await database.execute(good)
    await database.close()


@scenario
async def migrating_twice_at_once_is_harmless_and_a_newer_file_is_refused(place: Place) -> None:
    name = place("db")
    one, two = create_durably(name), create_durably(name)
    await asyncio.gather(one.migrate(), two.migrate(), one.migrate())
    await one.migrate()
    await one.stop()
    await two.stop()
    database = open_database(name)
    await database.execute(Statement("INSERT INTO durably_schema_versions VALUES (999, 0)"))
    await database.close()
    newer = create_durably(name)
    with raises(SchemaVersionError) as caught:
        await newer.init()
    assert "999" in caught.error.message
    assert "left untouched" in caught.error.message
    await newer.stop()
