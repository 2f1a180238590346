"""API.md section 4: what a step returned is what replay returns, in value and type, or is refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import sys
import threading
import types as python_types
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as daytime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from contract_kit import contract, executed, finished
from pydantic import BaseModel

from durably import DurablyError, StepContext, StepOutputError

pytestmark = pytest.mark.slow


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


def id_of(value: object) -> str:
    """The same in every process: the order of a set's members is not."""
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, set | frozenset) else ascii(value)[:40]


@pytest.mark.parametrize("value", KEPT, ids=id_of)
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


class Pixel(NamedTuple):
    x: int


class BrokenSchema:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ArithmeticError("no schema")


@pytest.mark.parametrize(
    ("declared", "value", "path"),
    [
        (Opaque, Opaque(1), "$"),
        (BrokenSchema, BrokenSchema(), "$"),
        ("no Python", Opaque(1), "$"),
        (dict, {"rows": [1, Opaque(1)]}, "$.rows[1]"),
        (tuple, Pixel(1), "$"),
        (dict, collections.defaultdict(int, a=1), "$"),
        (dict, {"rows": [collections.OrderedDict(a=1)]}, "$.rows[0]"),
        (dict[str, Any], {"n": IntChild(1)}, "$.n"),
        (list, [{"where": Pixel(1)}], "$[0].where"),
        (set, {IntChild(1)}, "$[0]"),
    ],
    ids=["class", "schema", "text", "path", "named tuple", "defaultdict", "ordered", "int", "nested tuple", "set"],
)
@contract
async def test_an_annotation_neither_changes_a_value_nor_hides_why_it_is_refused(
    declared: Any, value: Any, path: str
) -> None:
    """'A value that cannot be kept raises `StepOutputError` naming the step and the offending path', whatever the
    step's function says it returns."""
    caught: list[StepOutputError] = []

    def made():  # type: ignore[no-untyped-def]  # without a declared type
        return value

    made.__annotations__["return"] = declared

    async def body(step: StepContext, payload: Any) -> Any:
        try:
            await step.run("made", made)
        except StepOutputError as error:
            caught.append(error)

    durably, _, run = await executed(body)
    assert run.error is None
    assert [(error.step_name, error.path) for error in caught] == [("made", path)]
    await durably.stop()


@contract
async def test_a_declared_type_that_pydantic_takes_no_more_is_an_error_that_names_the_step() -> None:
    local = _local_class()
    declared: list[Any] = [local, Opaque]

    async def body(step: StepContext, payload: Any) -> Any:
        await step.with_options(output=declared.pop(0)).run("made", lambda: local(1))
        raise RuntimeError("later")

    durably, _, run = await executed(body)
    assert run.error == "later"
    await durably.retry(run.id)
    assert "the result of step 'made' cannot be kept" in str((await finished(durably, run)).error)
    await durably.stop()


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
