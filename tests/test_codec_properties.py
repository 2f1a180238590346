"""Whatever the codec says it keeps comes back equal, in value and type, all the way down."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel, computed_field

from durably import codec

pytestmark = pytest.mark.slow

T = TypeVar("T")


class Colour(Enum):
    RED = "r"
    DEEP = ("d", 1)
    ALSO_RED = "r"  # noqa: PIE796 - an alias is the point


class Level(IntEnum):
    LOW = -1
    HIGH = 10**30


class Word(StrEnum):
    YES = "yes"
    DOLLAR = "$"


class Right(Flag):
    READ = 1
    WRITE = 2
    RUN = 4
    ALL = 7


class Bits(IntFlag):
    ONE = 1
    FOUR = 4


class Odd(Enum):
    """Whose members call themselves something else."""

    A = 1
    B = 2

    @property
    def name(self) -> str:  # type: ignore[override]
        return "no name"

    @property
    def value(self) -> str:  # type: ignore[override]
        return "no value"


@dataclass(frozen=True)
class Key:
    text: str
    number: int | None = None


@dataclass(slots=True)
class Slotted:
    items: Any
    note: Any = None


@dataclass
class Loose:
    """With a field that `__init__` does not take, an attribute that is no field, and something remembered."""

    value: Any
    twice: Any = field(init=False)

    def __post_init__(self) -> None:
        self.twice = [self.value, self.value]
        self.aside = (self.value,)

    @cached_property
    def remembered(self) -> object:
        return object()


@dataclass
class Box(Generic[T]):
    content: T


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    content: Any
    size: int = 0
    _seen: Any = PrivateAttr(default=None)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def doubled(self) -> int:
        return self.size * 2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    number: int = 1


class Root(RootModel[Any]):
    pass


def same(left: Any, right: Any) -> bool:
    """Equal in value and type, recursively; two NaNs are the same."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)  # which tells -0.0 from 0.0, and takes NaN for NaN
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, datetime | time):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and type(left.tzinfo) is type(right.tzinfo)
            and str(left.tzinfo) == str(right.tzinfo)
            and left.utcoffset() == right.utcoffset()
            and left.tzname() == right.tzname()
        )
    if isinstance(left, Enum):
        return left is right
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        # The order of a dict is part of what a program sees.
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, set | frozenset):
        rest = list(right)
        for item in left:
            found = next((index for index, other in enumerate(rest) if same(item, other)), None)
            if found is None:
                return False
            rest.pop(found)
        return not rest
    if isinstance(left, BaseModel):
        return same(state_of_model(left), state_of_model(right))
    if dataclasses.is_dataclass(left):
        return same(state_of_dataclass(left), state_of_dataclass(right))
    return bool(left == right)


def state_of_model(model: BaseModel) -> list[Any]:
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return [fields, model.model_extra, model.model_fields_set, model.__pydantic_private__]


def state_of_dataclass(value: Any) -> dict[str, Any]:
    names = [one.name for one in dataclasses.fields(value)]
    names += sorted(set(getattr(value, "__dict__", {})) - {*names, "remembered", "__orig_class__"})
    return {name: getattr(value, name) for name in names}


# Surrogates too, alone and in pairs: what a file name or a JavaScript string may hold.
texts = st.text(st.characters(), max_size=8) | st.lists(
    st.sampled_from(["\ud83d", "\ude00", "\ud800", "\x00", "$", "ü", "😀", '"', "\\"]), max_size=4
).map("".join)
zones = st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns"), ZoneInfo("UTC")])
offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
fixed = st.builds(timezone, offsets) | st.builds(timezone, offsets, st.sampled_from(["CET", "", "\ud800"]))
folds = st.integers(0, 1)

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3).map(lambda n: n << 10_001 | 1),
    st.integers(-2, 2).map(lambda n: (1 << 10_000) + n),
    st.floats(),
    texts,
)
scalars = st.one_of(
    plain,
    st.binary(max_size=20),
    st.dates(),
    st.times(timezones=st.none() | fixed | zones),
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.times(), folds),
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.datetimes(),
        st.none() | fixed | zones,
        folds,
    ),
    st.timedeltas(),
    st.decimals(),
    st.sampled_from([Decimal("-0"), Decimal("sNaN12"), Decimal("-NaN"), Decimal("1E+999"), Decimal("1.10")]),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Word, *Right, *Bits, *Odd]),
    st.integers(0, 7).map(Right),
    st.integers(-3, 40).map(Bits),
)


def is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):
        return False  # a signalling NaN among them
    return True


def frozen_around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Key, texts, st.integers()),
    )


hashable = st.recursive(scalars.filter(is_hashable), frozen_around, max_leaves=6)


def with_private(model: Model, private: Any, look: bool) -> Model:
    model._seen = private
    if look:
        assert model.doubled == 2 * model.size
    return model


def looked_at(loose: Loose) -> Loose:
    assert loose.remembered
    return loose


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.builds(Slotted, inner, inner),
        st.builds(Loose, inner),
        st.builds(Loose, inner).map(looked_at),
        st.builds(Box, inner),
        st.builds(Box[Any], inner),
        st.builds(with_private, st.builds(Model, content=inner, size=st.integers(0, 9)), inner, st.booleans()),
        st.builds(lambda extra: Open(**extra), st.dictionaries(st.sampled_from(["a", "b", "$"]), inner, max_size=2)),
        st.builds(Root, inner),
    )


values = st.recursive(scalars | hashable, around, max_leaves=12)


@given(values)
def test_what_is_read_back_is_what_was_written(value: Any) -> None:
    stored = codec.encode(value)
    again = codec.decode(stored)
    assert same(value, again)
    # And what was read back is no different to keep.
    assert same(again, codec.decode(codec.encode(again)))


@given(values)
def test_the_stored_form_is_what_a_database_and_json_take(value: Any) -> None:
    stored = codec.encode(value)
    if isinstance(stored, str):
        json.loads(stored.encode("utf-8"))
        assert "\0" not in stored
    connection = sqlite3.connect(":memory:")
    [(kept,)] = connection.execute("SELECT ?", (stored,)).fetchall()
    connection.close()
    assert kept == stored
    assert type(kept) is type(stored)


json_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_keys = st.text().filter(lambda key: key != "$")


@given(st.recursive(json_scalars, lambda inner: st.lists(inner) | st.dictionaries(json_keys, inner), max_leaves=8))
def test_json_values_are_stored_as_themselves(value: Any) -> None:
    """So that SQL, and anything else that reads the file, sees them as they are."""
    assert same(json.loads(codec.encode(value)), value)


@given(values, st.data())
def test_damaged_text_is_refused_or_read_but_never_anything_else(value: Any, data: st.DataObject) -> None:
    """Whatever became of the file, the only error is the one that names the step."""
    stored = codec.encode(value)
    if not isinstance(stored, str) or not stored:
        return
    at = data.draw(st.integers(0, len(stored) - 1))
    to = data.draw(st.integers(at, len(stored)))
    damaged = stored[:at] + data.draw(st.sampled_from(["", "0", "[", '"', "null", "{}", "x"])) + stored[to:]
    with suppress(codec.CodecError):
        codec.decode(damaged)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {1: v}, Box, Root])
def test_however_deep_a_value_is_it_is_kept_or_refused(wrap: Any) -> None:
    """Reading may need more of the stack than writing did; neither may end in another error."""
    value: Any = 1
    refusals = []
    for depth in range(1100):
        value = wrap(value)
        if depth % 7 == 0:
            try:
                codec.decode(codec.encode(value))
            except codec.CodecError as error:
                refusals.append(error.reason)
    assert 0 < len(refusals) < 150
    assert all("nested too deeply" in reason for reason in refusals)


class Rebel:
    """Hashes and equality are its own."""


@dataclass
class Unset:
    never: int = field(init=False)


@dataclass
class Listing(list[int]):
    """A dataclass whose content is not in its fields."""

    title: str = ""


class Berlin(ZoneInfo):
    pass


class Day(datetime):
    pass


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([Unset()], r"\$\[0\]\.never is a field that was never set"),
        ({"a": Listing()}, r"\$\.a "),
        (Rebel(), "no stored form"),
        (Rebel, "no stored form"),
        (Day(2026, 1, 1), "no stored form"),
        (datetime(2026, 1, 1, tzinfo=Berlin("Europe/Berlin")), "time zone of the class Berlin"),
        (bytearray(b"x"), "no stored form"),
        ([1, {2: range(3)}], r"\$\[1\]\[2\]"),
    ],
)
def test_what_could_not_come_back_as_it_was_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(codec.CodecError, match=reason):
        codec.decode(codec.encode(value))


def test_two_that_have_become_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enum's members that were different and are aliases now would make a set shorter without a word."""
    stored = [codec.encode({Colour.RED, Colour.DEEP}), codec.encode({Colour.RED: 1, Colour.DEEP: 2})]
    changed = Enum("Colour", {"RED": 1, "DEEP": 1})
    changed.__module__, changed.__qualname__ = Colour.__module__, Colour.__qualname__
    monkeypatch.setitem(globals(), "Colour", changed)
    for one in stored:
        with pytest.raises(codec.CodecError, match="equal now"):
            codec.decode(one)


def test_every_moment_of_a_fold_and_gap_comes_back() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for moment in (datetime(2026, 3, 29, 2, 30), datetime(2026, 10, 25, 2, 30)):  # noqa: DTZ001
        for fold in (0, 1):
            aware = moment.replace(tzinfo=zone, fold=fold)
            assert same(codec.decode(codec.encode(aware)), aware)


def test_a_value_of_ten_megabytes_comes_back() -> None:
    for value in (b"\x00\xff" * 5_000_000, "ü\0" * 3_000_000, list(range(1_000_000)), UUID(int=1), date.max):
        assert codec.decode(codec.encode(value)) == value
