"""Jobs: what a run executes, and how its payload and output are checked.

A definition only holds what it was given, so it can be made before any instance exists. A `Registry`
knows the definitions of one instance by name, and turns stored runs into the typed `Run`s that users see.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

import pydantic
from pydantic import ConfigDict, TypeAdapter

from .clock import EpochMs, to_datetime, to_seconds
from .codec import is_text
from .errors import NotFoundError, ValidationError
from .records import Progress, Run
from .rows import StoredRun
from .step import StepContext

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
JobFunction = Callable[[StepContext, InputT], Awaitable[OutputT]]


class JobDefinition(Generic[InputT, OutputT]):
    """A job: a name, the types of its payload and output, and the async function that does it.

    Made by `define_job` or `job`; belongs to no instance until it is registered with one.
    """

    def __init__(
        self, name: str, input: Any, output: Any, run: JobFunction[InputT, OutputT], timeout: float | None = None
    ) -> None:
        self.name = name
        self.timeout = timeout
        """Seconds that a run may be at work, waiting not counted; `None`: as long as it takes."""
        self.input = input
        self.output = output
        self.run = run
        self._input: TypeAdapter[InputT] = _adapter(name, "input", input)
        self._output: TypeAdapter[Any] = _adapter(name, "output", Any if output is None else output)

    def __repr__(self) -> str:
        return f"JobDefinition({self.name!r})"

    def payload_schema(self) -> dict[str, Any]:
        """The JSON Schema of the payload; `{}`, which is that of anything, for a type that has none."""
        try:
            return self._input.json_schema()
        except pydantic.errors.PydanticInvalidForJsonSchema:
            return {}

    def dump_payload(self, payload: Any) -> str:
        """The payload as JSON text. Raises `ValidationError` if it does not fit the job's input."""
        try:
            return _to_json(self._input, self._input.validate_python(payload))
        except (ValueError, TypeError) as error:  # pydantic's own errors are ValueErrors
            raise ValidationError(f"invalid payload for job '{self.name}': {sentence(error)}") from error

    def load_payload(self, text: str) -> InputT:
        """The typed payload. Raises `ValidationError` if the job's input has changed since it was stored."""
        try:
            payload: InputT = _from_json(self._input, text)
        except pydantic.ValidationError as error:
            raise ValidationError(f"invalid payload for job '{self.name}': {sentence(error)}") from error
        return payload

    def dump_output(self, output: Any) -> str:
        """The output as JSON text. Raises `ValidationError` if it does not fit the job's output."""
        try:
            return _to_json(self._output, self._output.validate_python(output))
        except (ValueError, TypeError) as error:
            raise ValidationError(f"Invalid output: {sentence(error)}") from error

    def load_output(self, text: str) -> OutputT:
        """The typed output. Raises pydantic's error if the job's output has changed since it was stored."""
        output: OutputT = _from_json(self._output, text)
        return output


def define_job(
    *,
    name: str,
    input: Any,
    output: Any = None,
    run: JobFunction[InputT, OutputT],
    timeout: float | timedelta | None = None,
) -> JobDefinition[InputT, OutputT]:
    """Define a job.

    `input` and `output` are anything that pydantic's `TypeAdapter` takes; without `output` the returned
    value is any JSON value. `timeout`: seconds that a whole run may be at work, waiting not counted; past it
    the run fails with `RunTimeoutError`'s text (default: none). Raises `ValueError` for an empty name, a timeout that
    is not positive, or types that pydantic does not take, `TypeError` if `run` is not an async function.
    """
    seconds = None if timeout is None else to_seconds(timeout)
    if seconds is not None and not seconds > 0:
        raise ValueError(f"job {name!r}: the timeout must be more than 0 seconds, got {timeout!r}")
    # SQLite's JSON functions end a text at a NUL.
    if not is_text(name) or not name.strip() or "\0" in name:
        raise ValueError(f"a job needs a name, a non-empty text; got {name!r}")
    if not inspect.iscoroutinefunction(run):
        raise TypeError(f"job '{name}': run must be an async function (async def) that takes (step, payload)")
    return JobDefinition(name, input, output, run, seconds)


@overload
def job(function: JobFunction[InputT, OutputT], /) -> JobDefinition[InputT, OutputT]: ...
@overload
def job(
    *, name: str | None = None, timeout: float | timedelta | None = None
) -> Callable[[JobFunction[InputT, OutputT]], JobDefinition[InputT, OutputT]]: ...
def job(function: Any = None, /, *, name: str | None = None, timeout: float | timedelta | None = None) -> Any:
    """Define a job by decorating its function.

    Input and output are read from the annotations of the second parameter and of the return value;
    `name` defaults to the function's, with dashes. Raises what `define_job` raises, and `TypeError` where
    the function does not take `(step, payload)`.
    """

    def define(run: Any) -> JobDefinition[Any, Any]:
        job_name = run.__name__.replace("_", "-") if name is None else name
        parameters = list(inspect.signature(run).parameters)
        if len(parameters) != 2:
            raise TypeError(f"job '{job_name}' must take (step, payload), not ({', '.join(parameters)})")
        try:
            hints = typing.get_type_hints(run, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"job '{job_name}': its annotations cannot be looked up ({error}); define the type at the top level "
                "of the module, or use define_job(input=...)"
            ) from error
        output = hints.get("return")
        return define_job(
            name=job_name,
            input=hints.get(parameters[1], Any),
            output=None if output is type(None) else output,
            run=run,
            timeout=timeout,
        )

    return define if function is None else define(function)


class Registry:
    """The jobs of one instance, by name."""

    def __init__(self) -> None:
        self._definitions: dict[str, JobDefinition[Any, Any]] = {}

    def add(self, definition: JobDefinition[Any, Any]) -> None:
        """Register a definition. Raises `ValueError` if its name belongs to another one."""
        if not isinstance(definition, JobDefinition):
            raise TypeError(f"expected a JobDefinition (from define_job or @job), got {definition!r}")
        if self._definitions.setdefault(definition.name, definition) is not definition:
            raise ValueError(f"another job named '{definition.name}' is already registered; give this one another name")

    def get(self, name: str) -> JobDefinition[Any, Any] | None:
        return self._definitions.get(name)

    def find(self, job: Any) -> JobDefinition[Any, Any]:
        """The job that a definition, a handle or a name means. Raises `NotFoundError`, or `ValidationError`."""
        name = job if isinstance(job, str) else getattr(job, "name", None)
        if not isinstance(name, str):
            raise ValidationError(f"a job is given as its definition, a handle or its name, got {job!r}")
        definition = self.get(name)
        if definition is None:
            known = ", ".join(sorted(self.names)) or "none"
            raise NotFoundError(f"no job named '{name}' is registered; registered: {known}")
        return definition

    def __iter__(self) -> Iterator[JobDefinition[Any, Any]]:
        return iter(self._definitions.values())

    @property
    def names(self) -> list[str]:
        return list(self._definitions)

    def typed(self, stored: StoredRun, disposition: str | None = None) -> Run[Any]:
        """The run as users see it: typed where its job is registered and its data still fits, else plain JSON."""
        definition = self.get(stored.job_name)
        return Run(
            id=stored.id,
            job_name=stored.job_name,
            status=stored.status,
            payload=_load(stored.payload, definition.load_payload if definition else json.loads),
            output=None
            if stored.output is None
            else _load(stored.output, definition.load_output if definition else json.loads),
            error=stored.error,
            progress=None if stored.progress is None else Progress(**json.loads(stored.progress)),
            labels=json.loads(stored.labels),
            idempotency_key=stored.idempotency_key,
            concurrency_key=stored.concurrency_key,
            priority=stored.priority,
            current_step_index=stored.current_step_index,
            completed_step_count=stored.completed_step_count,
            waiting_for=stored.waiting_for,
            generation=stored.generation,
            worker_id=stored.worker_id,
            heartbeat_at=_moment(stored.heartbeat_at),
            run_at=to_datetime(stored.run_at),
            created_at=to_datetime(stored.created_at),
            updated_at=to_datetime(stored.updated_at),
            started_at=_moment(stored.started_at),
            completed_at=_moment(stored.completed_at),
            disposition=disposition,
        )


def _load(text: str, load: Callable[[str], Any]) -> Any:
    try:
        return load(text)
    except (ValidationError, pydantic.ValidationError):
        # The job's types have changed since. A list of runs must still be readable; executing such a run fails.
        return json.loads(text)


def _moment(instant: EpochMs | None) -> Any:
    return None if instant is None else to_datetime(instant)


def _adapter(job_name: str, role: str, kind: Any) -> TypeAdapter[Any]:
    try:
        try:
            # NaN and the infinities stay what they are, instead of becoming null.
            return TypeAdapter(kind, config=ConfigDict(ser_json_inf_nan="constants"))
        except pydantic.errors.PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(kind)  # a model, say, which has a configuration of its own
    except pydantic.errors.PydanticUserError as error:
        raise ValueError(
            f"job '{job_name}': its {role} type is not one that pydantic takes: {error.message}"
        ) from error


def _to_json(adapter: TypeAdapter[Any], value: Any) -> str:
    try:
        return _readable(adapter, value, by_alias=True)
    except pydantic.ValidationError:  # an alias may be for writing alone
        return _readable(adapter, value, by_alias=False)


def _readable(adapter: TypeAdapter[Any], value: Any, *, by_alias: bool) -> str:
    plain = adapter.dump_python(value, mode="json", by_alias=by_alias, round_trip=True)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    _from_json(adapter, text)  # what could not be read again must not be stored
    return text


def _from_json(adapter: TypeAdapter[Any], text: str) -> Any:
    return adapter.validate_json(text, by_alias=True, by_name=True)


def sentence(error: Exception) -> str:
    """What pydantic found, in one line: where, and what."""
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    found = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        found.append(f"{where}: {problem['msg']}" if where else problem["msg"])
    return "; ".join(found)
