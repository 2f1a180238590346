"""What a user triggers jobs with: `JobHandle`, `JobHandles` and `Trigger`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic

import pydantic
from pydantic import BaseModel

from .clock import EpochMs, from_datetime, to_datetime, to_seconds
from .codec import is_text
from .errors import NotFoundError, ValidationError
from .ids import Ids
from .jobs import InputT, JobDefinition, OutputT, Registry, sentence
from .records import Run, RunStatus
from .rows import NewRun, StoredRun
from .session import Session

if TYPE_CHECKING:
    from .engine import Durably

_LABEL_KEY = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True, slots=True)
class TriggerRules:
    """What an instance asks of every trigger: labels that fit a pydantic model, if it has one."""

    labels: type[BaseModel] | None = None

    def checked_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels to store. Raises `ValidationError`."""
        if not isinstance(labels, Mapping):
            raise ValidationError(f"labels must be a dict of texts, got {labels!r}")
        if self.labels is not None:
            try:
                model = self.labels.model_validate(dict(labels))
            except pydantic.ValidationError as error:
                raise ValidationError(f"invalid labels: {sentence(error)}") from error
            labels = model.model_dump(mode="json", by_alias=True, exclude_none=True)
        for key, value in labels.items():
            if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
                raise ValidationError(f"label key {key!r} is not made of letters, digits and . _ / -")
            # SQLite's JSON functions end a text at a NUL.
            if not is_text(value) or "\0" in value:
                raise ValidationError(f"label {key!r} must be a text without NUL, got {value!r}")
        return dict(labels)


@dataclass(frozen=True, slots=True)
class Trigger:
    """One run to be: a payload and its options, which are those of `JobHandle.trigger`."""

    payload: Any
    idempotency_key: str | None = field(default=None, kw_only=True)
    concurrency_key: str | None = field(default=None, kw_only=True)
    coalesce: str | None = field(default=None, kw_only=True)
    labels: Mapping[str, str] | None = field(default=None, kw_only=True)
    delay: float | timedelta | None = field(default=None, kw_only=True)
    run_at: datetime | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)

    def new_run(self, definition: JobDefinition[Any, Any], run_id: str, now: EpochMs, rules: TriggerRules) -> NewRun:
        """What is stored for it. Raises `ValidationError` for a payload or an option that is not acceptable."""
        for option, key in (
            ("idempotency_key", self.idempotency_key),
            ("concurrency_key", self.concurrency_key),
        ):
            if key is not None and (not key or not is_text(key)):
                raise ValidationError(f"{option} must be a non-empty text, got {key!r}")
        if self.coalesce not in (None, "skip") or (self.coalesce and not self.concurrency_key):
            raise ValidationError(f"coalesce may be 'skip', beside a concurrency_key; got {self.coalesce!r}")
        is_number = isinstance(self.priority, int) and not isinstance(self.priority, bool)
        if not is_number or abs(self.priority) >= 2**31:
            raise ValidationError(f"priority must be a whole number of at most 31 bits, got {self.priority!r}")
        return NewRun(
            id=run_id,
            job_name=definition.name,
            payload=definition.dump_payload(self.payload),
            labels=rules.checked_labels(self.labels or {}),
            idempotency_key=self.idempotency_key,
            concurrency_key=self.concurrency_key,
            coalesce=self.coalesce is not None,
            priority=self.priority,
            run_at=self._first_moment(now),
        )

    def _first_moment(self, now: EpochMs) -> EpochMs:
        if self.delay is not None and self.run_at is not None:
            raise ValidationError("give delay or run_at, not both")
        try:
            delay = 0.0 if self.delay is None else to_seconds(self.delay)
            first = EpochMs(now + round(delay * 1000)) if self.run_at is None else from_datetime(self.run_at)
            to_datetime(first)  # what is stored must be readable
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValidationError(f"delay or run_at cannot be a moment: {error}") from error
        if delay < 0:
            raise ValidationError(f"delay must be a number of seconds from 0 on, got {self.delay!r}")
        return first


JobTrigger = tuple[JobDefinition[Any, Any], Trigger]
"""A job, and the run of it that is to be."""


def new_runs(triggers: Sequence[JobTrigger], ids: Ids, now: EpochMs, rules: TriggerRules) -> list[NewRun]:
    """What is stored for them. Raises `ValidationError`, which of several names the one by its index, from 0."""
    runs = []
    for index, (definition, trigger) in enumerate(triggers):
        try:
            runs.append(trigger.new_run(definition, ids.new(), now, rules))
        except ValidationError as error:
            if len(triggers) == 1:
                raise
            raise ValidationError(f"item {index}: {error.message}") from error
    return runs


class JobHandle(Generic[InputT, OutputT]):
    """One job of one instance: triggers it, and looks at its runs. `definition` is the job's."""

    def __init__(self, durably: Durably, definition: JobDefinition[InputT, OutputT]) -> None:
        self._durably = durably
        self.definition = definition

    @property
    def name(self) -> str:
        """The job's name."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"JobHandle({self.name!r})"

    async def trigger(
        self,
        payload: InputT | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: str | None = None,
        labels: Mapping[str, str] | None = None,
        delay: float | timedelta | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
    ) -> Run[OutputT]:
        """Store a run of this job and wake the worker; returns at once.

        `payload` is the job's input or what pydantic makes one of (a dict). `idempotency_key`: one run per
        key and job, for ever; a second trigger returns the first's run, `disposition="idempotent"`.
        `concurrency_key`: one running run per key at a time, across jobs; with `coalesce="skip"` a pending run of
        this job with the key is returned instead, `disposition="coalesced"`. `labels`: texts to find runs by.
        `delay` (seconds or a timedelta) or `run_at` (an aware datetime): not started before. `priority`: higher
        first, then oldest first. Raises `ValidationError`, and then nothing is stored.
        """
        trigger = Trigger(
            payload,
            idempotency_key=idempotency_key,
            concurrency_key=concurrency_key,
            coalesce=coalesce,
            labels=labels,
            delay=delay,
            run_at=run_at,
            priority=priority,
        )
        [run] = await self._durably.trigger_all([(self.definition, trigger)])
        return run

    async def batch_trigger(self, items: Iterable[InputT | Mapping[str, Any] | Trigger]) -> list[Run[OutputT]]:
        """Store a run for each item, a payload or a `Trigger`, in one transaction: all of them, or none.

        Raises `ValidationError` that names the item by its index, from 0.
        """
        triggers = [item if isinstance(item, Trigger) else Trigger(item) for item in items]
        return await self._durably.trigger_all([(self.definition, trigger) for trigger in triggers])

    async def trigger_and_wait(
        self,
        payload: InputT | Mapping[str, Any],
        *,
        timeout: float | timedelta | None = None,
        on_progress: Callable[[Any], Any] | None = None,
        on_log: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Run[OutputT]:
        """`trigger`, then `Durably.wait_for_run`; `options` are those of `trigger`.

        Raises `ValidationError` as the one, and as the other `RunFailedError`, `RunCancelledError`,
        `NotFoundError` (deleted meanwhile) and `TimeoutError`.
        """
        trigger = (self.definition, Trigger(payload, **options))
        return await self._durably.trigger_and_wait(trigger, timeout=timeout, on_progress=on_progress, on_log=on_log)

    async def get_run(self, run_id: str) -> Run[OutputT] | None:
        """A run of this job by its id; `None` where there is none, or it is another job's."""
        run = await self._durably.get_run(run_id)
        return run if run is not None and run.job_name == self.name else None

    async def get_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Run[OutputT]]:
        """The runs of this job, newest first; filters as in `Durably.get_runs`. Raises `ValidationError`."""
        return await self._durably.get_runs(
            status=status, job_name=self.name, labels=labels, limit=limit, offset=offset
        )


class ChildRuns:
    """How a step starts runs of other jobs of the same instance."""

    def __init__(self, registry: Registry, rules: TriggerRules) -> None:
        self._registry = registry
        self._rules = rules

    def new_run(self, session: Session, job: Any, payload: Any, options: dict[str, Any]) -> NewRun:
        """A child of the session's run. Raises `ValidationError`, or `NotFoundError` for a job nobody registered."""
        definition = self._registry.find(job)
        options = dict(options)
        is_detached = bool(options.pop("detached", False))
        try:
            trigger = Trigger(payload, **options)
        except TypeError as error:
            raise ValidationError(f"starting a child of job '{definition.name}': {error}") from error
        services = session.services
        child = trigger.new_run(definition, services.ids.new(), services.clock.now(), self._rules)
        return replace(child, parent_id=session.run.id, is_detached=is_detached)

    def typed(self, stored: StoredRun) -> Run[Any]:
        return self._registry.typed(stored)

    async def find(self, session: Session, run_id: str) -> Run[Any]:
        """The child as it is now. Raises `NotFoundError` if it has been deleted."""
        stored = await session.services.store.find_run(run_id)
        if stored is None:
            raise NotFoundError(f"the child run {run_id} has been deleted")
        return self._registry.typed(stored)


class JobHandles:
    """Handles by key: `handles.sync_users`, `handles["sync-users"]`; iterating gives the handles.

    Raises `AttributeError` or `KeyError`, which name the jobs that there are.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, JobHandle[Any, Any]] = {}
        self._by_key: dict[str, JobHandle[Any, Any]] = {}

    def put(self, handle: JobHandle[Any, Any], key: str | None = None) -> None:
        """Add a handle: found by its job's name, by `key`, and by the name as an identifier."""
        self._by_name[handle.name] = handle
        if key is not None:
            self._by_key[key] = handle
        self._by_key.setdefault(handle.name.replace("-", "_"), handle)

    def __getitem__(self, key: str) -> JobHandle[Any, Any]:
        handle = self._by_name.get(key) or self._by_key.get(key)
        if handle is None:
            raise KeyError(f"no job {key!r}; registered: {', '.join(self._by_name) or 'none'}")
        return handle

    def __getattr__(self, key: str) -> JobHandle[Any, Any]:
        if key.startswith("_"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[JobHandle[Any, Any]]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, key: object) -> bool:
        return key in self._by_name or key in self._by_key
