"""The README and the docstrings are complete: whatever is public is named there, so that neither can rot unseen."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import durably
import durably.http
import durably.testing
from durably import Durably, DurablyError, JobHandle, Retry, StepContext, Trigger
from durably.events import EVENT_CLASSES
from durably.step import StepLog

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
FENCED = re.findall(r"```\w+\n(.*?)```", README, re.DOTALL)
INLINE = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
CODE = "\n".join([*FENCED, *INLINE])

HOMES: list[ModuleType] = [durably, durably.testing, durably.http]
RECORDS = [durably.Run, durably.Step, durably.Log, durably.Progress, durably.Schedule, durably.StorageInfo]
WITH_PARAMETERS: list[Callable[..., Any]] = [
    durably.create_durably,
    durably.define_job,
    durably.job,
    JobHandle.trigger,
    JobHandle.trigger_and_wait,
    JobHandle.get_runs,
    StepContext.with_options,
    StepContext.wait_for_signal,
    Durably.start,
    Durably.stop,
    Durably.process_until_idle,
    Durably.get_runs,
    Durably.wait_for_run,
    Durably.purge_runs,
    Durably.schedule,
    durably.testing.FaultyDatabase,
]


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class of ours, or one of ours that it inherits from, offers: its public methods and properties."""
    for owner in kind.__mro__:
        if owner.__module__.split(".")[0] != "durably":
            continue
        for name, member in vars(owner).items():
            member = getattr(member, "__func__", member)
            if not name.startswith("_") and isinstance(member, FunctionType | property):
                yield name, member


def public_names() -> list[Any]:
    return [pytest.param(home, name, id=f"{home.__name__}.{name}") for home in HOMES for name in home.__all__]


def public_methods() -> list[Any]:
    kinds = {getattr(home, name) for home in HOMES for name in home.__all__} | {StepLog}
    found = [(kind, *rest) for kind in kinds if isinstance(kind, type) for rest in methods(kind)]
    # A database that a test lets fail has the methods of any other, which are described there.
    described = {name for name, _ in methods(durably.Database)}
    found = [row for row in found if row[0] is not durably.testing.FaultyDatabase or row[1] not in described]
    return [
        pytest.param(kind, name, member, id=f"{kind.__module__}.{kind.__name__}.{name}")
        for kind, name, member in sorted(found, key=lambda row: (row[0].__module__, row[0].__name__, row[1]))
    ]


# --- The README -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("home", "name"), public_names())
def test_the_readme_names_what_can_be_imported(home: ModuleType, name: str) -> None:
    assert re.search(rf"\b{name}\b", CODE)


@pytest.mark.parametrize("kind", [Durably, JobHandle, StepContext, StepLog], ids=lambda kind: kind.__name__)
def test_the_readme_names_every_method(kind: type) -> None:
    internal = {"clock", "ids", "ledger", "present_events", "trigger_all"}  # for plugins of ours, handles and streams
    missing = {
        name
        for name, member in methods(kind)
        if name not in internal
        and not re.search(rf"\b{name}\b" if isinstance(member, property) else rf"\b{name}\(", CODE)
    }
    assert not missing


@pytest.mark.parametrize("function", WITH_PARAMETERS, ids=lambda function: function.__qualname__)
def test_the_readme_names_every_option(function: Callable[..., Any]) -> None:
    options = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty and parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    missing = {name for name in options if not re.search(rf"\b{name}=", CODE) and name not in INLINE}
    assert options
    assert not missing


@pytest.mark.parametrize("kind", [Retry, Trigger, *RECORDS], ids=lambda kind: kind.__name__)
def test_the_readme_names_every_field(kind: Any) -> None:
    missing = {field.name for field in dataclasses.fields(kind) if not re.search(rf"\b{field.name}\b", CODE)}
    assert not missing


@pytest.mark.parametrize("kind", EVENT_CLASSES, ids=lambda kind: kind.type)
def test_the_readme_names_every_event_and_what_it_carries(kind: Any) -> None:
    fields = {field.name for field in dataclasses.fields(kind)}
    missing = {name for name in fields | {kind.type} if not re.search(rf"(?<![\w:]){name}\b", CODE)}
    assert not missing


# --- The docstrings -------------------------------------------------------------------------------


@pytest.mark.parametrize(("home", "name"), public_names())
def test_what_can_be_imported_says_what_it_is(home: ModuleType, name: str) -> None:
    member = getattr(home, name)
    # A dataclass without a text of its own is given its signature as one.
    assert own_text(member)
    assert not own_text(member).startswith(f"{name}(")


@pytest.mark.parametrize(("kind", "name", "member"), public_methods())
def test_a_method_says_what_it_does_and_which_errors_it_raises(kind: type, name: str, member: Any) -> None:
    assert own_text(member), f"{kind.__name__}.{name} has no docstring"
    if isinstance(member, property):
        return
    raised = set() if "Never raises" in own_text(member) else errors_made_by(kind, member)
    missing = {error for error in raised if error not in own_text(member)}
    assert not missing, f"{kind.__name__}.{name} does not say that it raises {', '.join(sorted(missing))}"


@pytest.mark.parametrize(
    "function", [value for name in durably.__all__ if isinstance(value := getattr(durably, name), FunctionType)]
)
def test_a_function_says_which_errors_it_raises(function: FunctionType) -> None:
    missing = {error for error in errors_made_by(None, function) if error not in own_text(function)}
    assert not missing


def test_a_docstring_that_hides_an_error_would_be_found() -> None:
    """The search for errors sees through the helpers that make them."""
    assert errors_made_by(Durably, Durably.fork) == {"NotFoundError", "ConflictError"}
    assert "ValidationError" in errors_made_by(Durably, Durably.schedule)
    assert "NotFoundError" in errors_made_by(JobHandle, JobHandle.trigger_and_wait)


def own_text(member: Any) -> str:
    """A docstring that is not inherited."""
    return inspect.cleandoc(member.__doc__ or "")


def errors_made_by(kind: type | None, function: FunctionType, seen: frozenset[Any] = frozenset()) -> set[str]:
    """The names of durably's errors that a function makes, itself or through a private method or a helper of ours."""
    if function in seen:
        return set()
    found: set[str] = set()
    for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(call, ast.Call):
            continue
        target: Any = None
        match call.func:
            case ast.Name(id=name):
                target = function.__globals__.get(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name.startswith("_"):
                target = getattr(kind, name, None)
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr="_durably"), attr=name):
                target = getattr(Durably, name)
        if isinstance(target, type) and issubclass(target, DurablyError):
            found.add(target.__name__)
        elif isinstance(target, FunctionType) and target.__module__.startswith("durably"):
            owner = Durably if hasattr(Durably, target.__name__) else kind
            found |= errors_made_by(owner, target, seen | {function})
    return found
