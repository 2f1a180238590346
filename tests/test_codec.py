"""The stored form where something has changed since: never a wrong value, always the path."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Generic, TypeVar

import pytest
from pydantic import BaseModel, PrivateAttr

from durably import codec

T = TypeVar("T")
U = TypeVar("U")


class Mood(Enum):
    GOOD = 1


@dataclass(frozen=True)
class Pair:
    left: int
    right: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", self.left + 1)


class Person(BaseModel):
    name: str
    age: int = 0
    _seen: list[int] = PrivateAttr(default_factory=list)


class Box(BaseModel, Generic[T]):
    v: T


class Twin(BaseModel, Generic[T, U]):
    one: T
    two: U


def test_state_is_restored_not_computed_again() -> None:
    """`__post_init__` has run already; validators and private attributes as they were."""
    assert codec.decode(codec.encode(Pair(1))) == Pair(1)
    person = Person(name="Ada")
    person._seen.append(3)
    again = codec.decode(codec.encode(person))
    assert again == person
    assert again._seen == [3]
    assert again.model_fields_set == {"name"}


def test_a_generic_model_made_inside_a_function_is_found_by_what_it_is_made_of() -> None:
    """`Box[int]` has a name in its module only if it was made at its top level."""
    value = Box[Twin[int, Person]](v=Twin[int, Person](one=1, two=Person(name="Ada")))
    again = codec.decode(codec.encode(value))
    assert again == value
    assert (type(again), type(again.v)) == (type(value), type(value.v))
    with pytest.raises(codec.CodecError, match=r"Box\[list\[int\]\], which cannot be found"):
        codec.encode(Box[list[int]](v=[1]))


def test_json_values_are_stored_as_plain_json() -> None:
    value = {"a": [1, 2.5, None, True, "x"]}
    stored = codec.encode(value)
    assert isinstance(stored, str)
    assert json.loads(stored) == value


def test_a_class_that_is_gone_or_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_models")
    exec_free = type("Thing", (BaseModel,), {"__annotations__": {"a": int}, "__module__": "my_models"})
    module.Thing = exec_free  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_models", module)
    stored = codec.encode({"list": [exec_free(a=1)]})

    module.Thing = type(  # type: ignore[attr-defined]
        "Thing", (BaseModel,), {"__annotations__": {"b": int}, "__module__": "my_models"}
    )
    with pytest.raises(
        codec.CodecError, match=r"\$\.list\[0\] is a my_models:Thing stored with other fields .*\(a, b\)"
    ):
        codec.decode(stored)

    del module.Thing
    with pytest.raises(codec.CodecError, match="cannot be found by that name"):
        codec.decode(stored)

    module.Thing = print  # type: ignore[attr-defined]
    with pytest.raises(codec.CodecError, match="is not a class"):
        codec.decode(stored)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ('{"$": "enum", "t": "tests.test_codec:Mood", "v": "BAD"}', "cannot be found|no member"),
        ('{"$": "dataclass", "t": "builtins:dict", "v": {}}', "is no dataclass"),
        ('{"$": "model", "t": "subprocess:Popen", "v": {}}', "is no pydantic model"),
        ('{"$": "model", "t": ["subprocess:Popen", "builtins:int"], "v": {}}', "is no pydantic model"),
        ('{"$": "model", "t": ["tests.test_codec:Person", "builtins:int"], "v": {}}', "cannot be found|read back"),
        ('{"$": "model", "t": [], "v": {}}', "cannot be read back"),
        ('{"$": "eval", "v": "1"}', "does not know"),
    ],
)
def test_what_was_tampered_with_is_refused(stored: str, reason: str) -> None:
    with pytest.raises(codec.CodecError, match=reason):
        codec.decode(stored)


def test_what_has_no_stored_form_is_refused_at_once() -> None:
    class Local(BaseModel):
        x: int

    loop: list[object] = []
    loop.append(loop)
    for value, path in (({"a": [object()]}, r"\$\.a\[0\]"), ([Local(x=1)], r"\$\[0\]"), (loop, r"\$")):
        with pytest.raises(codec.CodecError, match=path):
            codec.encode(value)
