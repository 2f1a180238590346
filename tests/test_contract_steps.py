"""API.md section 4, first half: `step.run`, what is kept, retries, time-outs, parallel steps, awkward ends."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import enum
import importlib
import inspect
import math
import sys
import threading
import time
import types as python_types
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as daytime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from durably import (
    DuplicateStepError,
    DurablyError,
    NonRetryableError,
    Retry,
    RetryAfter,
    Run,
    StepContext,
    StepOutputError,
    StepTimeoutError,
    UserTransaction,
    define_job,
    job,
)

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parent))
kit = importlib.import_module("contract_kit")
contract, opened, quick, found, finished, until, moved, watched, types, echo = (
    kit.contract, kit.opened, kit.quick, kit.found, kit.finished, kit.until, kit.moved, kit.watched, kit.types,
    kit.echo,
)  # fmt: skip


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    A = "a"


class Flags(enum.Flag):
    X = 1
    Y = 2


class Model(BaseModel):
    name: str
    when: datetime | None = None
    inner: Model | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str] = frozenset()


class Holder:
    @dataclasses.dataclass
    class Nested:
        value: tuple[int, ...]


async def executed(body: Callable[..., Any], payload: Any = 0, **options: Any) -> tuple[Any, Any, Run[Any]]:
    """Run `body(step, payload)` as a job of its own, once."""

    async def run(step: StepContext, payload: Any) -> Any:
        return await body(step, payload)

    durably, clock = await opened(":memory:", define_job(name="body", input=Any, run=run), **options)
    return durably, clock, await finished(durably, await durably.jobs.body.trigger(payload))


# --- the shape ------------------------------------------------------------------------------------


def test_the_step_context_has_the_methods_of_the_contract() -> None:
    """'class StepContext: ...'"""

    def shape(name: str) -> list[tuple[str, str]]:
        return [
            (p.name, p.kind.name[:3] + ("" if p.default is p.empty else f"={p.default}"))
            for p in inspect.signature(getattr(StepContext, name)).parameters.values()
        ][1:]

    called = [("name", "POS"), ("fn", "POS"), ("args", "VAR"), ("kwargs", "VAR")]
    assert shape("run") == called
    assert shape("transaction") == called
    assert shape("with_options") == [("retry", "KEY=None"), ("timeout", "KEY=None"), ("output", "KEY=None")]
    assert shape("progress") == [("current", "POS"), ("total", "POS=None"), ("message", "POS=None")]
    assert shape("sleep") == [("name", "POS"), ("seconds", "POS")]
    assert shape("wait_for_signal") == [("name", "POS"), ("signal", "KEY=None"), ("timeout", "KEY=None")]
    assert shape("now") == shape("random") == shape("uuid") == shape("raise_if_cancelled") == []
    assert (
        shape("trigger")[:3] == shape("trigger_and_wait")[:3] == [("name", "POS"), ("job", "POS"), ("payload", "POS")]
    )
    assert not inspect.iscoroutinefunction(StepContext.progress)


@contract
async def test_a_step_calls_sync_and_async_functions_with_their_arguments() -> None:
    """'async def run(self, name, fn, /, *args, **kwargs)'; 'calls `fn` (sync or async)'; `lambda: save(users)`
    where save is async"""

    def plain(a: int, *, name: str) -> str:
        return f"{a}{name}"

    async def later(a: int, fn: str = "") -> str:
        await asyncio.sleep(0)
        return f"{a}{fn}"

    class CallableObject:
        async def __call__(self, a: int) -> int:
            return a + 1

    async def body(step: StepContext, payload: Any) -> Any:
        import functools

        assert step.run_id
        return [
            await step.run("plain", plain, 1, name="n"),
            await step.run("later", later, 2, fn="f"),
            await step.run("lambda", lambda: later(3)),
            await step.run("object", CallableObject(), 4),
            await step.run("partial", functools.partial(later, 5)),
            await step.run("builtin", max, [1, 7]),
        ]

    durably, _, run = await executed(body)
    assert (run.error, run.output) == (None, ["1n", "2f", "3", 5, "5", 7])
    assert [s.index for s in await durably.get_steps(run.id)] == [0, 1, 2, 3, 4, 5]
    assert run.completed_step_count == 6
    await durably.stop()


@contract
async def test_a_step_result_is_committed_before_run_returns(tmp_path: Path) -> None:
    """'commits its result before returning'"""
    reader, _ = await opened(tmp_path / "a.sqlite3")
    seen: list[Any] = []

    @job
    async def two(step: StepContext, payload: int) -> None:
        await step.run("one", lambda: [1])
        seen.extend((s.name, s.status, s.output) for s in await reader.get_steps(step.run_id))
        seen.append((await found(reader, step.run_id)).completed_step_count)
        await step.run("two", lambda: [2])

    durably, _ = await opened(tmp_path / "a.sqlite3", two)
    await finished(durably, await durably.jobs.two.trigger(1))
    assert seen == [("one", "completed", [1]), 1]
    await durably.stop()
    await reader.stop()


@contract
async def test_later_executions_return_the_stored_result_without_a_call() -> None:
    """'on every later execution returns the stored result without calling `fn`'; '`fn` raising: the step is
    stored as failed, the run fails with that error text, and `retry()` executes it again'"""
    calls: list[str] = []
    broken = True

    def fetch() -> list[int]:
        calls.append("fetch")
        return [1, 2]

    def save(rows: list[int]) -> int:
        calls.append("save")
        if broken:
            raise OSError("disk on fire")
        return len(rows)

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.run("save", save, await step.run("fetch", fetch))

    durably, clock, run = await executed(body)
    events = watched(durably)
    assert run.status == "failed"
    assert "disk on fire" in str(run.error)
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [("fetch", "completed"), ("save", "failed")]
    broken = False
    await clock.advance(5)
    again = await durably.retry(run.id)
    assert (again.id, again.status, again.error, again.completed_at) == (run.id, "pending", None, None)
    done = await finished(durably, run)
    assert (done.status, done.output, calls) == ("completed", 2, ["fetch", "save", "save"])
    assert [(s.name, s.status, s.error) for s in await durably.get_steps(run.id)] == [
        ("fetch", "completed", None), ("save", "completed", None),
    ]  # fmt: skip
    assert types(events) == ["run:retry", "run:start", "step:start", "step:complete", "run:complete"]
    await durably.stop()


@contract
async def test_code_outside_of_steps_that_raises_fails_the_run() -> None:
    """'`run:fail` error, failed_step_name': none, where no step failed."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("fine", lambda: 1)
        raise KeyError("outside")

    durably, _, run = await executed(body)
    assert run.status == "failed"
    assert "outside" in str(run.error)
    assert [s.status for s in await durably.get_steps(run.id)] == ["completed"]
    await durably.stop()


@contract
async def test_a_step_failure_may_be_caught_and_the_run_goes_on() -> None:
    """A step's exception reaches the job as itself, so that Python's `except` works."""

    def fail() -> None:
        raise ConnectionError("nobody home")

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.run("risky", fail)
        except ConnectionError as error:
            return await step.run("instead", "rescued from {}".format, error)

    durably, _, run = await executed(body)
    assert (run.status, run.output) == ("completed", "rescued from nobody home")
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [
        ("risky", "failed"), ("instead", "completed"),
    ]  # fmt: skip
    await durably.stop()


# --- what is kept ---------------------------------------------------------------------------------

KEPT: list[Any] = [
    None, True, 0, -1, 2**53 + 1, 2**64, -(2**200), 0.1, -0.0, 1e300, "", "text", "\x00\u2028\ud83d\ude00",
    "lone \ud800 surrogate", [], {}, [None, [1, [2, [3]]]], {"a": {"b": [1.5, None]}}, b"", b"\x00\xff",
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    datetime(2026, 7, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), date(2026, 1, 2), daytime(1, 2, 3, 4),
    timedelta(days=-3, microseconds=1), timedelta.max, Decimal("1.10"), Decimal("NaN"), Decimal("1E+400"),
    UUID(int=5), set(), {1, "a", (2, 3)}, frozenset({b"x"}), (), (1, (2, [3])), {(1, 2): "tuple key", 3: "int key"},
    {1: "a", "1": "b"}, {None: 1, True: 2}, {"$type": "tuple", "value": [1]}, {"__type__": "x"}, {"t": "bytes"},
    Colour.RED, Colour.PAIR, Level.LOW, Word.A, Flags.X | Flags.Y, Point(1, frozenset({"a"})), [Point(2)],
    Holder.Nested((1, 2)), Model(name="a", when=datetime(2026, 1, 1, tzinfo=UTC), inner=Model(name="b")),
    {"k": (Model(name="x"), {Colour.RED: [Decimal(1)]})}, float("inf"), float("-inf"), float("nan"), "x" * 1_000_000,
    {date(2026, 1, 1): UUID(int=1)}, {"a": b"\x00" * 1000},
]  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(
            same(x, y) for x, y in zip(a.values(), b.values(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return a == b and sorted(map(repr, a)) == sorted(map(repr, b))
    if isinstance(a, Decimal) and a.is_nan():
        return b.is_nan()
    if isinstance(a, datetime):
        return a == b and a.utcoffset() == b.utcoffset() and a.fold == b.fold and repr(a) == repr(b)
    return bool(a == b)


@pytest.mark.parametrize("value", KEPT, ids=lambda value: ascii(value)[:40])
@contract
async def test_replay_returns_what_the_first_call_returned_in_value_and_type(value: Any) -> None:
    """'What replay returns equals what the first call returned, in value and type.' A value that cannot be kept
    is refused, never changed."""
    got: list[Any] = []

    async def body(step: StepContext, payload: Any) -> Any:
        got.append(await step.run("make", lambda: value))
        if len(got) == 1:
            raise RuntimeError("once more")

    durably, _, run = await executed(body)
    assert "once more" in str(run.error), run.error
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert done.status == "completed"
    assert same(got[0], value), got[0]
    assert same(got[1], value), got[1]
    [step] = await durably.get_steps(run.id)
    assert same(step.output, value), step.output
    await durably.stop()


@contract
async def test_the_first_execution_too_returns_the_decoded_value() -> None:
    """'The first execution too returns the decoded value, so a program cannot depend on what will not survive.'"""
    kept: list[int] = [1]
    identities: list[bool] = []

    async def body(step: StepContext, payload: Any) -> Any:
        value = await step.run("make", lambda: kept)
        identities.append(value is kept)
        kept.append(2)
        return value

    durably, _, run = await executed(body)
    assert run.output == [1]
    assert identities == [False]
    await durably.stop()


def _main_class() -> type:
    made = dataclasses.make_dataclass("InMain", [("x", int)])
    made.__module__ = "__main__"
    return made


def _local_class() -> type:
    @dataclasses.dataclass
    class Local:
        x: int

    return Local


class Opaque:
    def __init__(self, x: int) -> None:
        self.x = x


class BrokenRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def _cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


class ListChild(list[int]):
    pass


class IntChild(int):
    pass


UNKEEPABLE: dict[str, Callable[[], Any]] = {
    "object": object, "opaque": lambda: Opaque(1), "local": lambda: _local_class()(1), "main": lambda: _main_class()(1),
    "generator": lambda: (n for n in (1,)), "function": lambda: print, "lock": threading.Lock,
    "broken repr": BrokenRepr, "complex": lambda: 1j, "exception": lambda: ValueError("x"), "type": lambda: int,
    "list child": lambda: ListChild([1]), "int child": lambda: IntChild(1),
    "namespace": lambda: python_types.SimpleNamespace(a=1),
    "counter": lambda: collections.Counter("aab"), "deque": lambda: collections.deque([1]), "range": lambda: range(3),
    "memoryview": lambda: memoryview(b"x"), "bytearray": lambda: bytearray(b"x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNKEEPABLE)
@contract
async def test_a_value_that_cannot_be_kept_is_refused_by_name_and_path(kind: str) -> None:
    """'A value that cannot be kept raises `StepOutputError` naming the step and the offending path; nothing is stored.'

    What can be kept faithfully instead is as good; only a changed value would be wrong.
    """
    caught: list[BaseException] = []
    replies: list[Any] = []

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            replies.append(await step.run("my-step", lambda: {"rows": [0, UNKEEPABLE[kind]()]}))
        except StepOutputError as error:
            caught.append(error)
            raise

    durably, _, run = await executed(body)
    if replies:
        assert kind not in (
            "object",
            "opaque",
            "generator",
            "function",
            "lock",
            "cycle",
            "broken repr",
            "exception",
            "local",
        )
        [(_, value)] = [replies[0]["rows"]]
        assert same(value, UNKEEPABLE[kind]()) or repr(value) == repr(UNKEEPABLE[kind]())
        assert type(value) is type(UNKEEPABLE[kind]())
        return
    assert run.status == "failed"
    assert isinstance(caught[0], DurablyError)
    assert "my-step" in str(caught[0])
    assert "rows" in str(caught[0])
    assert "1" in str(caught[0])
    assert "my-step" in str(run.error)
    steps = await durably.get_steps(run.id)
    assert [s.status for s in steps] in ([], ["failed"])
    assert all(s.output is None for s in steps)
    assert run.completed_step_count == 0
    await durably.stop()


class Renamed(BaseModel):
    old: int


@contract
async def test_a_changed_class_is_an_error_that_names_the_step_never_a_wrong_value(monkeypatch: Any) -> None:
    """'renamed or changed classes give `StepOutputError` naming the step, never a wrong value'"""
    errors: list[Exception] = []

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            got = await step.run("make", lambda: Renamed(old=1))
        except StepOutputError as error:
            errors.append(error)
            raise
        raise RuntimeError(f"got {got!r}")

    durably, _, run = await executed(body)
    assert "got Renamed" in str(run.error)

    class Changed(BaseModel):
        new: int

    Changed.__qualname__ = Changed.__name__ = "Renamed"
    for replacement in (Changed, None):
        if replacement is None:
            monkeypatch.delattr(sys.modules[__name__], "Renamed")
        else:
            monkeypatch.setattr(sys.modules[__name__], "Renamed", replacement)
        await durably.retry(run.id)
        failed = await finished(durably, run)
        assert failed.status == "failed"
        assert "make" in str(failed.error)
    assert len(errors) == 2
    await durably.stop()


@contract
async def test_an_output_option_or_a_return_annotation_decides_the_class() -> None:
    """'with_options(..., output: type | None = None)'; 'by the step's return annotation/`output=`'"""
    local = _local_class()

    async def body(step: StepContext, payload: Any) -> Any:
        def annotated():  # type: ignore[no-untyped-def]
            return local(1)

        annotated.__annotations__["return"] = local
        one = await step.run("annotated", annotated)
        two = await step.with_options(output=local).run("option", lambda: local(2))
        three = await step.with_options(output=list[Model]).run("rows", lambda: [Model(name="a")])
        return [type(one) is local and one.x, type(two) is local and two.x, type(three[0]) is Model]

    durably, _, run = await executed(body)
    assert (run.error, run.output) == (None, [1, 2, True])
    await durably.stop()


# --- names ----------------------------------------------------------------------------------------


@contract
async def test_the_same_name_twice_in_one_execution_is_an_error() -> None:
    """'**The same name twice in one execution raises `DuplicateStepError`**'"""
    calls: list[int] = []
    raised: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("same", lambda: calls.append(1))
        for again in (
            lambda: step.run("same", lambda: calls.append(2)),
            lambda: step.with_options(retry=2).run("same", lambda: calls.append(3)),
            lambda: step.sleep("same", 1),
            lambda: step.wait_for_signal("same"),
            lambda: step.transaction("same", lambda tx: None),
            lambda: step.trigger("same", "body", 1),
            lambda: step.trigger_and_wait("same", "body", 1),
        ):
            try:
                await again()
            except DuplicateStepError as error:
                raised.append(str(error))

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert calls == [1]
    assert len(raised) == 7
    assert all("same" in text for text in raised)
    await durably.stop()


@pytest.mark.parametrize(
    "name", ["", "a" * 5000, "new\nline", "\ud800", "nul\x00", "ünï", 5, None], ids=lambda n: ascii(n)[:20]
)
@contract
async def test_any_step_name_is_either_kept_as_it_is_or_refused(name: Any) -> None:
    """Where the page is silent: a run always ends, and its steps tell the truth."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run(name, lambda: 1)

    durably, _, run = await executed(body)
    assert run.is_terminal
    steps = await durably.get_steps(run.id)
    if run.status == "completed":
        assert [s.name for s in steps] == [name]
    else:
        assert run.error
    await durably.stop()


# --- parallel steps -------------------------------------------------------------------------------


@contract
async def test_gathered_steps_run_at_once_and_each_is_a_checkpoint() -> None:
    """'`asyncio.gather` over several `step.run` is supported; each is its own checkpoint.'"""
    going = peak = 0
    calls: collections.Counter[int] = collections.Counter()
    broken = True

    async def work(n: int) -> int:
        nonlocal going, peak
        calls[n] += 1
        going += 1
        peak = max(peak, going)
        await asyncio.sleep(0.01)
        going -= 1
        if n == 3 and broken:
            raise ValueError("three")
        return n * n

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(*(step.run(f"n{n}", work, n) for n in range(8)), return_exceptions=not payload)

    durably, _, run = await executed(body, True)
    assert (run.status, peak) == ("failed", 8)
    await until(lambda: going == 0)
    assert "three" in str(run.error)
    kept = {s.name: s.status for s in await durably.get_steps(run.id)}
    assert kept["n3"] == "failed"
    assert "started" not in kept.values()
    assert "running" not in kept.values()
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert done.output == [n * n for n in range(8)]
    assert all(calls[n] == 1 for n in range(8) if kept.get(f"n{n}") == "completed")
    await durably.stop()


@contract
async def test_what_finished_before_a_sibling_failed_stays_finished() -> None:
    """'the checkpoints of those that finished stay'"""
    calls: list[str] = []
    fast = asyncio.Event()
    broken = True

    async def quickly() -> str:
        calls.append("quickly")
        fast.set()
        return "q"

    async def failing() -> str:
        calls.append("failing")
        await fast.wait()
        await asyncio.sleep(0.02)
        if broken:
            raise ValueError("no")
        return "f"

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(step.run("quickly", quickly), step.run("failing", failing))

    durably, _, run = await executed(body)
    assert {s.name: s.status for s in await durably.get_steps(run.id)} == {"quickly": "completed", "failing": "failed"}
    broken = False
    await durably.retry(run.id)
    assert (await finished(durably, run)).output == ["q", "f"]
    assert calls == ["quickly", "failing", "failing"]
    await durably.stop()


@contract
async def test_a_task_group_cancels_the_siblings_of_a_failing_step() -> None:
    """'Parallel steps through `asyncio.gather` and `TaskGroup`; a failing one does to its siblings what asyncio
    does there; the checkpoints of those that finished stay.'"""
    ends: list[str] = []
    broken = True

    async def long() -> str:
        if not broken:
            return "long"
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")
        return "never"

    async def fail() -> str:
        await asyncio.sleep(0.02)
        if broken:
            raise ValueError("group member")
        return "fine"

    async def body(step: StepContext, payload: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(step.run("done", lambda: "done")),
                group.create_task(step.run("long", long)),
                group.create_task(step.run("fail", fail)),
            ]
        return [task.result() for task in tasks]

    durably, _, run = await executed(body)
    events = watched(durably)
    assert run.status == "failed"
    assert "group member" in str(run.error)
    assert ends == ["finally"]
    kept = {s.name: s.status for s in await durably.get_steps(run.id)}
    assert kept["done"] == "completed"
    assert kept["fail"] == "failed"
    assert kept.get("long") in (None, "cancelled")
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", ["done", "long", "fine"])
    assert types(events).count("step:start") == 2
    await durably.stop()


@contract
async def test_sleeps_and_signals_may_wait_side_by_side() -> None:
    """Parallel waits: the run waits until all of them are over, without a slot."""

    async def body(step: StepContext, payload: Any) -> Any:
        return await asyncio.gather(
            step.sleep("an-hour", 3600),
            step.sleep("two-hours", 7200),
            step.wait_for_signal("go"),
            step.run("s", lambda: 4),
        )

    durably, clock, run = await executed(body)
    assert (await found(durably, run)).waiting_for is not None
    await moved(durably, clock, 3600)
    await durably.signal(run.id, "go", "payload")
    await moved(durably, clock, 3599)
    assert not (await found(durably, run)).is_terminal
    await moved(durably, clock, 1)
    done = await finished(durably, run)
    assert (done.status, done.output) == ("completed", [None, None, "payload", 4])
    await durably.stop()


# --- retries and time-outs ------------------------------------------------------------------------


@contract
async def test_an_integer_retry_counts_all_calls() -> None:
    """'`with_options(retry=3)` ...: `attempts` counts all calls, the first included'"""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError(f"call {len(calls)}")

    async def body(step: StepContext, payload: Any) -> Any:
        patient = step.with_options(retry=Retry(attempts=3, delay=0, jitter=False))
        assert isinstance(patient, StepContext)
        assert patient is not step
        assert patient.run_id == step.run_id
        await patient.run("fail", fail)

    durably, _, run = await executed(body)
    assert (run.status, len(calls)) == ("failed", 3)
    assert "call 3" in str(run.error)
    [step] = await durably.get_steps(run.id)
    assert (step.status, step.attempt) == ("failed", 3)

    async def plain(step: StepContext, payload: Any) -> Any:
        step.with_options(retry=5)
        await step.run("fail", fail)

    calls.clear()
    _, _, run = await executed(plain)
    assert len(calls) == 1
    await durably.stop()


@contract
async def test_retry_in_real_time_takes_an_integer() -> None:
    """'`with_options(retry=3)`'"""
    calls: list[int] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) < 2:
            raise OSError("once")
        return "ok"

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.with_options(retry=3).run("fail", fail)

    durably, clock = await opened(":memory:", define_job(name="body", input=Any, run=body))
    run = await durably.jobs.body.trigger(1)
    working = asyncio.ensure_future(durably.process_until_idle())
    await until(lambda: len(calls) == 1)
    for _ in range(40):
        await clock.advance(1)
        if working.done():
            break
        await asyncio.sleep(0.002)
    assert (await finished(durably, run)).output == "ok"
    await durably.stop()


@contract
async def test_retry_events_and_steps_tell_of_each_attempt() -> None:
    """'`step:retry` events carry `attempt` (the one that failed, from 1), `error` and `next_attempt_at`.'"""
    calls: list[int] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(f"call {len(calls)}")
        return "ok"

    async def body(step: StepContext, payload: Any) -> Any:
        return await step.with_options(retry=Retry(attempts=3, delay=0, jitter=False)).run("s", fail)

    async def run_body(step: StepContext, payload: Any) -> Any:
        return await body(step, payload)

    durably, _ = await opened(":memory:", define_job(name="body", input=Any, run=run_body))
    events = watched(durably)
    run = await finished(durably, await durably.jobs.body.trigger(0))
    assert run.output == "ok"
    told = [event for event in events if event.type.startswith("step:")]
    assert types(told, without=("step:start",)) == ["step:retry", "step:retry", "step:complete"]
    retries = [event for event in told if event.type == "step:retry"]
    assert [event.attempt for event in retries] == [1, 2]
    assert all(f"call {n}" in event.error for n, event in enumerate(retries, 1))
    assert all(isinstance(e.next_attempt_at, datetime) and e.next_attempt_at.tzinfo for e in retries)
    assert all((e.step_name, e.step_index) == ("s", 0) for e in told)
    [step] = await durably.get_steps(run.id)
    assert (step.status, step.attempt, step.error) == ("completed", 3, None)
    await durably.stop()


@contract
async def test_retry_anew_starts_the_attempts_anew() -> None:
    """'`retry(run_id)` starts them anew'"""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError("always")

    async def body(step: StepContext, payload: Any) -> Any:
        await step.with_options(retry=Retry(attempts=2, delay=0)).run("fail", fail)

    durably, _, run = await executed(body)
    assert len(calls) == 2
    await durably.retry(run.id)
    assert (await finished(durably, run)).status == "failed"
    assert len(calls) == 4
    await durably.stop()


@contract
async def test_non_retryable_ends_the_attempts_and_other_errors_are_not_tried_again() -> None:
    """'Raising `NonRetryableError` ends the attempts'; '`on=(HTTPError,)`'"""
    calls: list[str] = []
    same_errors: list[bool] = []

    class HTTPError(Exception):
        pass

    class MissingError(HTTPError):
        pass

    def fail(error: Exception) -> None:
        calls.append(str(error))
        raise error

    async def body(step: StepContext, payload: Any) -> Any:
        policy = Retry(attempts=4, delay=0, jitter=False, on=(HTTPError,))
        for name, error in (("a", NonRetryableError("a")), ("b", KeyError("b")), ("c", MissingError("c"))):
            try:
                await step.with_options(retry=policy).run(name, fail, error)
            except Exception as raised:  # noqa: BLE001
                same_errors.append(str(raised) == str(error))

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert same_errors == [True, True, True]
    assert calls == ["a", "'b'", "c", "c", "c", "c"]
    await durably.stop()


@contract
async def test_retry_after_sets_the_next_delay() -> None:
    """'`RetryAfter(seconds)` sets the next delay'"""
    calls: list[int] = []
    clocks: list[Any] = []

    def fail() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RetryAfter(30)
        return "ok"

    @job
    async def later(step: StepContext, payload: int) -> str:
        return await step.with_options(retry=Retry(attempts=2, delay=1, jitter=False)).run("fail", fail)

    durably, clock = await opened(":memory:", later)
    clocks.append(clock)
    events = watched(durably, "step:retry")
    run = await durably.jobs.later.trigger(1)
    working = asyncio.ensure_future(durably.process_until_idle())
    await until(lambda: events)
    assert (events[0].next_attempt_at - events[0].timestamp).total_seconds() == 30
    await clock.advance(29.9)
    assert len(calls) == 1
    await clock.advance(0.1)
    await until(lambda: len(calls) == 2)
    await working
    assert (await finished(durably, run)).output == "ok"
    await durably.stop()


@pytest.mark.parametrize("bad", [0, -1, -2], ids=str)
@contract
async def test_a_retry_without_a_meaning_is_refused(bad: Any) -> None:
    """'retry: Retry | int | None'; `attempts` counts the first call, so it is at least one."""

    async def body(step: StepContext, payload: Any) -> Any:
        with pytest.raises((ValueError, TypeError)):
            step.with_options(retry=bad)

    _, _, run = await executed(body)
    assert run.status == "completed", run.error


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": 2, "delay": -1}, {"attempts": 2, "backoff": 0}, {"attempts": 2, "max_delay": -1}],
    ids=str,
)
def test_a_policy_without_a_meaning_is_refused(bad: dict[str, Any]) -> None:
    """'Retry(attempts=3, delay=1, backoff=2, max_delay=60, jitter=True, on=(HTTPError,))'"""
    with pytest.raises((ValueError, TypeError)):
        Retry(**bad)


@contract
async def test_an_async_step_past_its_timeout_is_cancelled_and_raises_step_timeout_error() -> None:
    """'`timeout` cancels the step and raises `StepTimeoutError`'"""
    ends: list[str] = []
    caught: list[BaseException] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("finally")

    @job
    async def hurried(step: StepContext, payload: int) -> None:
        try:
            await step.with_options(timeout=0.05).run("slow", slow)
        except StepTimeoutError as error:
            caught.append(error)
            raise

    durably = quick(":memory:", hurried)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.hurried.trigger(1)
    await until(lambda: "run:fail" in types(events))
    assert ends == ["finally"]
    assert isinstance(caught[0], DurablyError)
    assert "slow" in str(caught[0])
    [step] = await durably.get_steps(run.id)
    assert (step.name, step.status) == ("slow", "failed")
    failed = await found(durably, run)
    assert step.error == failed.error
    assert types(events) == ["run:trigger", "run:start", "step:start", "step:fail", "run:fail"]
    assert events[-1].failed_step_name == "slow"
    await durably.stop()


@contract
async def test_a_sync_step_that_runs_on_after_its_timeout_changes_nothing_any_more() -> None:
    """'a sync step that runs on after its timeout: the run always reaches a terminal state with a true record'"""
    ended = threading.Event()

    def slow() -> str:
        time.sleep(0.25)
        ended.set()
        return "too late"

    @job
    async def hurried(step: StepContext, payload: int) -> str:
        return await step.with_options(timeout=0.05).run("slow", slow)

    durably = quick(":memory:", hurried)
    events = watched(durably)
    await durably.init()
    run = await durably.jobs.hurried.trigger(1)
    await until(lambda: "run:fail" in types(events))
    assert not ended.is_set()
    await until(ended.is_set)
    await asyncio.sleep(0.03)
    failed = await found(durably, run)
    [step] = await durably.get_steps(run.id)
    assert (failed.status, step.status, step.output) == ("failed", "failed", None)
    assert types(events) == ["run:trigger", "run:start", "step:start", "step:fail", "run:fail"]
    await durably.stop()


@contract
async def test_a_timeout_is_tried_again_like_any_error() -> None:
    """'timeout' and 'retry' together: each attempt has its own time."""
    calls: list[int] = []

    async def slow() -> str:
        calls.append(1)
        if len(calls) < 3:
            await asyncio.sleep(30)
        return "ok"

    @job
    async def hurried(step: StepContext, payload: int) -> str:
        return await step.with_options(timeout=0.04, retry=Retry(attempts=3, delay=0)).run("slow", slow)

    async with quick(":memory:", hurried) as durably:
        assert (await durably.jobs.hurried.trigger_and_wait(1, timeout=5)).output == "ok"
    assert len(calls) == 3


# --- awkward ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (kind, where)
        for kind in kit.AWKWARD
        for where in ("sync step", "async step", "job")
        if (kind, where) not in kit.HARD_ENDS | kit.LEFT_OUT
    ],
)
@contract
async def test_a_run_always_reaches_a_terminal_state_with_a_true_record(kind: str, where: str) -> None:
    """'an error whose text cannot be printed or stored as it is (lone surrogate, NUL, a `__str__` that raises),
    a stray `CancelledError` that nobody asked for ...: the run always reaches a terminal state with a true
    record, never stays `running`'"""
    await kit.ends_truly(kind, where)


@pytest.mark.parametrize("kind", ["stray cancelled", "surrogate", "broken str", "base"])
@contract
async def test_a_worker_survives_awkward_ends(kind: str) -> None:
    """The same under `start()`: the loop goes on with the next run."""

    @job
    async def awkward(step: StepContext, payload: int) -> None:
        def fail() -> None:
            raise kit.awkward_error(kind)

        await step.run("fail", fail)

    async with quick(":memory:", awkward, echo) as durably:
        run = await durably.jobs.awkward.trigger(1)
        await until(lambda: _terminal(durably, run))
        assert (await found(durably, run)).status == "failed"
        assert (await durably.jobs.echo.trigger_and_wait(3, timeout=3)).output == 3


async def _terminal(durably: Any, run: Any) -> bool:
    return bool((await found(durably, run)).is_terminal)


@pytest.mark.parametrize(
    "value",
    [object(), BrokenRepr(), {"a": {1j}}, _local_class()(1), "\ud800", float("nan"), {1: 2}, b"\xff", (1, 2), 2**100,
     Model(name="m"), Point(1), {"x"}, _cycle()],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@contract
async def test_any_return_value_of_a_job_ends_its_run(value: Any) -> None:
    """A run's output without an `output` type is a JSON value or the run fails and says so; it never stays
    `running`."""

    async def body(step: StepContext, payload: Any) -> Any:
        return value

    durably, _, run = await executed(body)
    assert run.is_terminal, run
    if run.status == "failed":
        assert (run.error or "").startswith("Invalid output")
    await durably.stop()


# --- step.log, step.progress ----------------------------------------------------------------------


@contract
async def test_progress_and_logs_are_plain_calls_that_send_events() -> None:
    """'def progress(self, current, total=None, message=None) -> None'; 'log:
    .info/.warning(.warn)/.error(message, data=None)'"""

    async def body(step: StepContext, payload: Any) -> Any:
        assert step.progress(1) is None  # type: ignore[func-returns-value]
        step.progress(2, 4)
        step.progress(current=3, total=4, message="three")
        for write in (step.log.info, step.log.warning, step.log.warn, step.log.error):
            assert write("m", {"k": (1, 2)}) is None
        step.log.info("no data")

        def inside() -> None:
            step.log.info("in a thread")
            step.progress(4)

        await step.run("s", inside)

    @job
    async def telling(step: StepContext, payload: int) -> None:
        await body(step, payload)

    durably, _ = await opened(":memory:", telling)
    progress, logs = watched(durably, "run:progress"), watched(durably, "log:write")
    run = await finished(durably, await durably.jobs.telling.trigger(1))
    assert run.status == "completed", run.error
    assert [(e.progress.current, e.progress.total, e.progress.message) for e in progress] == [
        (1, None, None), (2, 4, None), (3, 4, "three"), (4, None, None),
    ]  # fmt: skip
    assert [(e.level, e.message, e.step_name) for e in logs] == [
        ("info", "m", None), ("warning", "m", None), ("warning", "m", None), ("error", "m", None),
        ("info", "no data", None), ("info", "in a thread", "s"),
    ]  # fmt: skip
    assert (run.progress.current, run.progress.total, run.progress.message) == (4, None, None)
    await durably.stop()


@contract
async def test_the_last_progress_is_always_stored() -> None:
    """'progress writes are coalesced (about ten a second a run, the last one always), events always'"""

    async def body(step: StepContext, payload: Any) -> Any:
        for n in range(500):
            step.progress(n, 500)

    @job
    async def busy(step: StepContext, payload: int) -> None:
        await body(step, payload)

    durably, _ = await opened(":memory:", busy)
    events = watched(durably, "run:progress")
    run = await finished(durably, await durably.jobs.busy.trigger(1))
    assert (run.progress.current, run.progress.total) == (499, 500)
    assert [event.progress.current for event in events] == list(range(500))
    await durably.stop()


@pytest.mark.parametrize(
    "awkward",
    ["\ud800", "nul \x00", kit.BrokenStrError(), object(), None, 5],
    ids=lambda v: type(v).__name__ + ascii(v)[:8] if isinstance(v, str) else type(v).__name__,
)
@contract
async def test_an_awkward_log_line_or_progress_text_never_breaks_a_run(awkward: Any) -> None:
    """'Everything that only signals (`progress`, `log`, `on`) is a plain call'; a signal does not leave a run
    `running`."""
    from durably import with_log_persistence

    @job
    async def telling(step: StepContext, payload: int) -> str:
        for tell in (
            lambda: step.log.info(awkward),
            lambda: step.log.info("m", awkward),
            lambda: step.log.info("m", {"k": [awkward]}),
            lambda: step.progress(1, message=awkward),
        ):
            with contextlib.suppress(TypeError, ValueError, DurablyError):
                tell()
        await step.run("s", lambda: 1)
        return "ok"

    durably, _ = await opened(":memory:", telling)
    durably.use(with_log_persistence())
    run = await finished(durably, await durably.jobs.telling.trigger(1))
    assert (run.status, run.output) == ("completed", "ok"), run.error
    await durably.get_logs(run.id)
    await durably.stop()


# --- transactions ---------------------------------------------------------------------------------


@contract
async def test_a_transaction_commits_its_writes_with_the_checkpoint() -> None:
    """'`fn(tx)` runs `await tx.execute(sql, params) -> rows` on the same database; its writes and the
    checkpoint commit together, or not at all: exactly once. Rows have index and name access.'"""
    calls: list[int] = []

    async def write(tx: UserTransaction, amount: int, *, word: str) -> int:
        calls.append(1)
        await tx.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER, word TEXT)")
        await tx.execute("INSERT INTO mine VALUES (?, ?)", (amount, word))
        rows = await tx.execute("SELECT n, word AS w FROM mine ORDER BY n")
        assert (rows[0][0], rows[0]["n"], rows[0]["w"], rows[0][1]) == (amount, amount, word, word)
        assert len(rows) == 1
        return len(rows)

    async def read(tx: UserTransaction) -> list[Any]:
        return [tuple(row) for row in await tx.execute("SELECT n, word FROM mine", [])]

    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        assert await step.transaction("write", write, 5, word="five") == 1
        if broken:
            raise RuntimeError("after")
        return len(await step.transaction("read", read))

    durably, _, run = await executed(body)
    assert "after" in str(run.error), run.error
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert (done.output, len(calls)) == (1, 1)
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [
        ("write", "completed"),
        ("read", "completed"),
    ]
    await durably.stop()


@contract
async def test_a_failing_transaction_leaves_no_write_behind() -> None:
    """'its writes and the checkpoint commit together, or not at all'"""
    failing = True

    async def setup(tx: UserTransaction) -> None:
        await tx.execute("CREATE TABLE mine (n INTEGER)")

    async def write(tx: UserTransaction) -> None:
        await tx.execute("INSERT INTO mine VALUES (1)")
        if failing:
            raise ValueError("half way")

    async def unkeepable(tx: UserTransaction) -> Any:
        await tx.execute("INSERT INTO mine VALUES (2)")
        return object()

    async def bad_sql(tx: UserTransaction) -> Any:
        await tx.execute("INSERT INTO mine VALUES (3)")
        await tx.execute("INSERT INTO nothing VALUES (3)")

    async def read(tx: UserTransaction) -> list[int]:
        return [row["n"] for row in await tx.execute("SELECT n FROM mine")]

    async def body(step: StepContext, payload: Any) -> Any:
        await step.transaction("setup", setup)
        kinds = []
        for name, fn in (("write", write), ("unkeepable", unkeepable), ("bad-sql", bad_sql)):
            try:
                await step.transaction(name, fn)
            except Exception as error:  # noqa: BLE001
                kinds.append(type(error).__name__)
        return [kinds, await step.transaction("read", read)]

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    kinds, rows = run.output
    assert rows == []
    assert kinds[:2] == ["ValueError", "StepOutputError"]
    assert {s.name: s.status for s in await durably.get_steps(run.id)}["write"] == "failed"
    await durably.stop()


@contract
async def test_a_step_call_inside_a_transaction_raises_at_once() -> None:
    """'Inside `fn` only `tx` is for use: any `step` call there raises `DurablyError` at once instead of waiting
    for itself.'"""
    raised: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        async def misuse(tx: UserTransaction) -> None:
            for call in (
                lambda: step.run("a", lambda: 1),
                lambda: step.transaction("b", misuse),
                lambda: step.sleep("c", 1),
                lambda: step.wait_for_signal("d"),
                lambda: step.trigger("e", "body", 1),
                lambda: step.trigger_and_wait("f", "body", 1),
                step.now,
                step.random,
                step.uuid,
            ):
                try:
                    await asyncio.wait_for(call(), 1)
                except DurablyError as error:
                    raised.append(str(error))

        await step.transaction("outer", misuse)

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert len(raised) == 9
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@pytest.mark.parametrize(
    "statement", ["ROLLBACK", "BEGIN", "SAVEPOINT a", "ATTACH ':memory:' AS x", "SELECT 1; SELECT 2"]
)
@contract
async def test_a_transaction_cannot_be_ended_from_inside(statement: str) -> None:
    """'its writes and the checkpoint commit together, or not at all'"""

    async def body(step: StepContext, payload: Any) -> Any:
        async def sneak(tx: UserTransaction) -> None:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute(statement)
            raise ValueError("and fail")

        async def tables(tx: UserTransaction) -> int:
            return len(await tx.execute("SELECT name FROM sqlite_master WHERE name = 'mine'"))

        try:
            await step.transaction("sneak", sneak)
        except Exception:  # noqa: BLE001
            return await step.transaction("look", tables)

    durably, _, run = await executed(body)
    assert (run.status, run.output) == ("completed", 0), run.error
    await durably.stop()


@contract
async def test_a_transaction_that_is_over_takes_no_statement() -> None:
    """'Inside `fn` only `tx` is for use', and only there."""
    kept: list[UserTransaction] = []

    async def body(step: StepContext, payload: Any) -> Any:
        async def keep(tx: UserTransaction) -> None:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            kept.append(tx)

        await step.transaction("keep", keep)
        try:
            await asyncio.wait_for(kept[0].execute("INSERT INTO mine VALUES (1)"), 1)
        except TimeoutError:
            return "waits for ever"
        except Exception:  # noqa: BLE001
            return "refused"
        return "accepted"

    durably, _ = await opened(":memory:", define_job(name="body", input=Any, run=body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert run.output == "refused"
    await durably.stop()


# --- now, random, uuid ----------------------------------------------------------------------------


@contract
async def test_now_random_and_uuid_are_the_same_on_replay() -> None:
    """'`await step.now()`, `step.random()`, `step.uuid()` give the same value on replay (each call is numbered
    in its order).'"""
    got: list[Any] = []

    async def body(step: StepContext, payload: Any) -> Any:
        got.append(
            [
                await step.now(),
                await step.random(),
                await step.uuid(),
                await step.random(),
                await step.uuid(),
                await step.now(),
            ]
        )
        if len(got) == 1:
            raise RuntimeError("again")

    durably, clock, run = await executed(body)
    await clock.advance(100)
    await durably.retry(run.id)
    assert (await finished(durably, run)).status == "completed"
    first, second = got
    assert first == second
    assert first[0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert first[0].tzinfo is not None
    assert 0 <= first[1] < 1
    assert first[1] != first[3]
    assert isinstance(first[2], UUID)
    assert first[2] != first[4]
    await durably.stop()
