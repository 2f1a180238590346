"""The result of a step whose type is declared, by `with_options(output=)` or by the function's annotation.

The codec finds classes by their import path. One that has none (defined inside a function, or in a script
that is not a module on replay) can still be kept if the step says what it returns: then pydantic writes and
reads it. The first execution reads it back as well, so both see the same.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from .errors import StepOutputError
from .session import Session

_MARK = '{"$":"typed","v":'


@dataclass(frozen=True, slots=True)
class TypedValue:
    """How one step's result is stored; `declared` is its type, or `None`."""

    declared: Any

    @classmethod
    def of(cls, output: Any, fn: Callable[..., Any]) -> TypedValue:
        """What is declared: `output` if given, else looked up in `fn` when it is needed."""
        return cls(output if output is not None else _Annotation(fn))

    def kept(self, session: Session, name: str, value: Any) -> tuple[Any, str | bytes]:
        """The value as it will be read back, and its stored form. Raises `StepOutputError`."""
        try:
            return session.kept(name, value)
        except StepOutputError as refused:
            try:
                adapter = self._adapter()
                if adapter is not None:
                    return self._dump(name, adapter, value)
            except Exception as error:  # pydantic's, or of the user's class; the refusal has the path
                raise refused from error
            raise

    def decode(self, session: Session, name: str, stored: str | bytes | None) -> Any:
        """The value. Raises `StepOutputError` if it cannot be as it was."""
        if not isinstance(stored, str) or not stored.startswith(_MARK):
            return session.decoded(name, stored)
        try:
            adapter = self._adapter()
            if adapter is not None:
                return adapter.validate_json(stored[len(_MARK) : -1])
        except Exception as error:  # as in `kept`
            raise StepOutputError(name, "$", f"no longer fits its declared type: {error}") from error
        raise StepOutputError(name, "$", "was stored by its declared type, and no type is declared any more")

    def _dump(self, name: str, adapter: TypeAdapter[Any], value: Any) -> tuple[Any, str]:
        try:
            text = adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error").decode("utf-8")
            again = adapter.validate_json(text)
        except (ValueError, TypeError) as error:
            raise StepOutputError(name, "$", f"does not fit its declared type: {error}") from error
        if again != value or not _same_types(again, value):
            raise StepOutputError(name, "$", "does not come back equal through its declared type")
        return again, f"{_MARK}{text}}}"

    def _adapter(self) -> TypeAdapter[Any] | None:
        declared = self.declared.look_up() if isinstance(self.declared, _Annotation) else self.declared
        return None if declared is None else TypeAdapter(declared)


@dataclass(frozen=True, slots=True)
class _Annotation:
    fn: Callable[..., Any]

    def look_up(self) -> Any:
        try:
            return typing.get_type_hints(self.fn).get("return")
        except (TypeError, NameError):
            return None  # not a function with annotations that can be resolved: nothing is declared


def _same_types(one: Any, other: Any) -> bool:
    """Whether two that are equal are so in type, too, and what they hold: a `defaultdict` is equal to a dict."""
    if type(one) is not type(other):
        return False
    if one is other:
        return True
    if isinstance(one, dict):
        return all(map(_same_types, one.items(), other.items()))
    if isinstance(one, list | tuple):
        return all(map(_same_types, one, other))
    if isinstance(one, set | frozenset):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    mine, theirs = getattr(one, "__dict__", {}), getattr(other, "__dict__", {})
    return all(_same_types(mine[name], theirs[name]) for name in mine.keys() & theirs.keys())
