"""`Durably`, the instance that a program holds, and `create_durably`, which makes one."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

from . import codec
from .clock import Clock, SystemClock, finishes_within, to_datetime, to_seconds
from .database import Database
from .databases import open_database
from .errors import ConflictError, NotFoundError, RunCancelledError, RunFailedError, ValidationError
from .events import (
    ErrorHandler,
    Event,
    EventBus,
    Listener,
    LogWritten,
    RunProgressed,
    RunRetried,
    RunTriggered,
)
from .events import RunCancelled as RunCancelledEvent
from .handles import JobHandle, JobHandles, Trigger
from .ids import Ids
from .jobs import InputT, JobDefinition, JobFunction, OutputT, Registry, define_job
from .liveness import HeartbeatOnly, Liveness
from .migrations import migrate
from .records import Run, RunStatus, Step
from .step import Services
from .store import Store, StoredRun, StoredStep
from .subscription import follow
from .worker import Worker, WorkerOptions

Jobs = Mapping[str, JobDefinition[Any, Any]] | Iterable[JobDefinition[Any, Any]]

IN_BROWSER = sys.platform == "emscripten"
DEFAULT_INTERVALS = (0.1, 0.5, 3.0) if IN_BROWSER else (1.0, 5.0, 30.0)
"""Seconds: polling, heartbeat, stale threshold. A page wants to go on at once; a server has time."""


def create_durably(
    database: str | os.PathLike[str] | Database = "durably.sqlite3",
    *,
    jobs: Jobs | None = None,
    polling_interval: float | timedelta | None = None,
    heartbeat_interval: float | timedelta | None = None,
    stale_threshold: float | timedelta | None = None,
    max_concurrent_runs: int = 1,
    durability: str = "full",
    clock: Clock | None = None,
) -> Durably:
    """Make an instance; nothing is opened before `init()` or the first call.

    `database`: a name or path, `":memory:"`, or a `Database`. In Pyodide a name is a file in OPFS. The
    intervals are seconds and default to 1, 5 and 30, in Pyodide to 0.1, 0.5 and 3. `max_concurrent_runs`
    is from 1 to 1,000. `durability`: `"full"` flushes every commit, `"relaxed"` survives the process only.
    `clock` is for tests. Raises `ValueError` for an option out of its range.
    """
    given = (polling_interval, heartbeat_interval, stale_threshold)
    polling, heartbeat, stale = (
        default if span is None else to_seconds(span) for span, default in zip(given, DEFAULT_INTERVALS, strict=True)
    )
    if min(polling, heartbeat, stale) <= 0:
        raise ValueError("polling_interval, heartbeat_interval and stale_threshold must be greater than 0 seconds")
    if stale <= heartbeat:
        raise ValueError(f"stale_threshold ({stale} s) must be longer than heartbeat_interval ({heartbeat} s)")
    if not 1 <= max_concurrent_runs <= 1000:
        raise ValueError(f"max_concurrent_runs must be from 1 to 1000, got {max_concurrent_runs}")
    options = WorkerOptions(
        polling_interval=polling,
        heartbeat_interval=heartbeat,
        stale_threshold=stale,
        max_concurrent_runs=max_concurrent_runs,
    )
    backend = open_database(database, durability=durability)
    durably = Durably(backend, options, clock or SystemClock(), liveness=_default_liveness())
    if jobs is not None:
        durably.register(*([jobs] if isinstance(jobs, Mapping) else jobs))
    return durably


def _default_liveness() -> Liveness:
    if IN_BROWSER:
        # Imported here because it exists in the browser only.
        from .browser.locks import WebLocks

        return WebLocks()
    return HeartbeatOnly()


class Durably:
    """Jobs, a store and a worker. `async with` it, or call `init` and `stop`."""

    def __init__(self, database: Database, options: WorkerOptions, clock: Clock, *, liveness: Liveness) -> None:
        self.jobs = JobHandles()
        self._database = database
        self._options = options
        self._clock = clock
        self._ids = Ids(clock)
        self._store = Store(database)
        self._bus = EventBus(lambda: to_datetime(clock.now()))
        self._registry = Registry()
        self._liveness = liveness
        self._services = Services(self._store, self._bus, clock)
        self._worker = self._new_worker(None)
        self._migrating = asyncio.Lock()

    @property
    def database_name(self) -> str:
        """The name or path of the database."""
        return self._database.name

    async def __aenter__(self) -> Self:
        await self.init()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- jobs ------------------------------------------------------------------------------------------

    def define_job(
        self, *, name: str, input: Any, output: Any = None, run: JobFunction[InputT, OutputT]
    ) -> JobHandle[InputT, OutputT]:
        """Define a job and register it here."""
        definition = define_job(name=name, input=input, output=output, run=run)
        self.register(definition)
        return JobHandle(self, definition)

    def register(self, *jobs: JobDefinition[Any, Any] | Mapping[str, JobDefinition[Any, Any]]) -> JobHandles:
        """Register definitions, given alone or as a mapping of keys to them; returns their handles.

        The same definition twice is fine. Raises `ValueError` for another one under a taken name.
        """
        registered = JobHandles()
        for group in jobs:
            named = group.items() if isinstance(group, Mapping) else [(None, group)]
            for key, definition in named:
                self._registry.add(definition)
                handle: JobHandle[Any, Any] = JobHandle(self, definition)
                for handles in (self.jobs, registered):
                    handles.put(handle, key)
        self._worker.wake()
        return registered

    def get_job(self, name: str) -> JobHandle[Any, Any] | None:
        """The handle of a registered job, by the job's name."""
        definition = self._registry.get(name)
        return None if definition is None else JobHandle(self, definition)

    # -- life ------------------------------------------------------------------------------------------

    async def init(self) -> None:
        """`migrate()` and `start()`."""
        await self.migrate()
        self.start()

    async def migrate(self) -> None:
        """Bring the database's schema up to date; harmless when it is. Raises `StorageError` and its kinds."""
        async with self._migrating:
            await migrate(self._store, self._clock)

    def start(self, worker_id: str | None = None) -> None:
        """Start the worker; harmless when it runs. `worker_id` defaults to a new id."""
        if self._worker.is_started:
            return
        if worker_id is not None:
            self._worker = self._new_worker(worker_id)
        self._worker.start()

    async def stop(self, timeout: float | timedelta | None = None) -> None:
        """Stop the worker, wait for its runs, close the database (any later call opens it again).

        After `timeout` seconds (default: none) the runs still in flight are cancelled here and handed back
        as pending; their checkpoints are kept.
        """
        await self._worker.stop(None if timeout is None else to_seconds(timeout))
        await self._bus.drain()
        await self._database.close()

    async def process_one(self) -> bool:
        """Claim one run and execute it to its end; false if there is none to claim. For servers and tests."""
        return await self._worker.process_one()

    async def process_until_idle(self, max_runs: int | None = None) -> int:
        """`process_one` until there is nothing to claim, or `max_runs` runs were executed; how many were."""
        executed = 0
        while (max_runs is None or executed < max_runs) and await self._worker.process_one():
            executed += 1
        return executed

    # -- runs ------------------------------------------------------------------------------------------

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """The run, as it is now; `None` if there is none with this id."""
        stored = await self._store.find_run(run_id)
        return None if stored is None else self._registry.typed(stored)

    async def get_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        job_name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Run[Any]]:
        """Runs, newest first. `status` and `job_name` are one or several; `labels` must all match.

        Raises `ValidationError` for a status that does not exist or a negative `limit` or `offset`.
        """
        try:
            statuses = None if status is None else [RunStatus(one).value for one in _several(status)]
        except ValueError:
            known = ", ".join(RunStatus)
            raise ValidationError(f"no such status in {status!r}; there are {known}") from None
        if offset < 0 or (limit is not None and limit < 0):
            raise ValidationError(f"limit and offset must not be negative, got {limit} and {offset}")
        found = await self._store.list_runs(
            statuses=statuses,
            job_names=None if job_name is None else _several(job_name),
            labels=dict(labels or {}),
            limit=limit,
            offset=offset,
        )
        return [self._registry.typed(stored) for stored in found]

    async def get_steps(self, run_id: str) -> list[Step]:
        """The steps of a run that have ended, in the order in which they began."""
        await self._require(run_id)
        return [_step(stored) for stored in await self._store.steps_of(run_id)]

    async def cancel(self, run_id: str) -> Run[Any]:
        """Cancel a pending or running run: its step is cancelled at its next `await`.

        Raises `NotFoundError`, or `ConflictError` if it has ended.
        """
        stored = await self._store.cancel_run(run_id, self._clock.now())
        if stored is None:
            raise await self._refused(run_id, "cancelled")
        self._emit(RunCancelledEvent, stored)
        self._worker.interrupt(run_id)
        return self._registry.typed(stored)

    async def retry(self, run_id: str) -> Run[Any]:
        """Make a failed or cancelled run pending again; completed steps are kept and not run again.

        Raises `NotFoundError`, or `ConflictError` if it is neither.
        """
        stored = await self._store.retry_run(run_id, self._clock.now())
        if stored is None:
            raise await self._refused(run_id, "retried")
        self._emit(RunRetried, stored)
        self._worker.wake()
        return self._registry.typed(stored)

    async def wait_for_run(
        self,
        run_id: str,
        *,
        timeout: float | timedelta | None = None,
        on_progress: Callable[[Any], Any] | None = None,
        on_log: Callable[[Any], Any] | None = None,
    ) -> Run[Any]:
        """Wait until the run has completed, and return it.

        `on_progress(progress)` and `on_log(event)`, plain or async, are called on the way. Raises `RunFailedError`,
        `RunCancelledError`, `NotFoundError`, and `TimeoutError` after `timeout` seconds (the run goes on).
        """
        ending: asyncio.Future[Run[Any]] = asyncio.ensure_future(self._ended(run_id, on_progress, on_log))
        if timeout is not None and not await finishes_within(self._clock, ending, to_seconds(timeout)):
            raise TimeoutError(f"run {run_id} has not ended after {to_seconds(timeout)} s; it goes on")
        run = await ending
        if run.status is RunStatus.FAILED:
            raise RunFailedError(run)
        if run.status is RunStatus.CANCELLED:
            raise RunCancelledError(run)
        return run

    # -- events ----------------------------------------------------------------------------------------

    def on(self, event_type: str, listener: Listener) -> Callable[[], None]:
        """Call `listener(event)`, plain or async, for each event of the type, or of any with `"*"`.

        Returns the way to stop it. Raises `ValueError` for a type that does not exist.
        """
        return self._bus.on(event_type, listener)

    def on_error(self, handler: ErrorHandler) -> Callable[[], None]:
        """Call `handler(error, event)` with what a listener raised."""
        return self._bus.on_error(handler)

    def subscribe(self, run_id: str) -> AsyncIterator[Event]:
        """The events of one run: its present state, then live, up to its end. Raises `NotFoundError`."""
        return follow(
            run_id,
            bus=self._bus,
            clock=self._clock,
            find_run=self.get_run,
            polling_interval=self._options.polling_interval,
        )

    # -- for handles -----------------------------------------------------------------------------------

    async def trigger_all(self, definition: JobDefinition[Any, Any], triggers: Sequence[Trigger]) -> list[Run[Any]]:
        """Validate all, then store all in one transaction: what `JobHandle.trigger` and its kin call."""
        now = self._clock.now()
        wanted = [trigger.new_run(definition, self._ids.new(), now) for trigger in triggers]
        if not wanted:
            return []
        runs = []
        for stored, is_new in await self._store.enqueue(wanted, now):
            run = self._registry.typed(stored, disposition="created" if is_new else "idempotent")
            runs.append(run)
            if is_new:
                self._emit(RunTriggered, stored, payload=run.payload)
        self._worker.wake()
        return runs

    # -- inside ----------------------------------------------------------------------------------------

    def _new_worker(self, worker_id: str | None) -> Worker:
        return Worker(worker_id or self._ids.new(), self._services, self._registry, self._liveness, self._options)

    def _emit(self, kind: type[Event], stored: StoredRun, **facts: Any) -> None:
        self._bus.emit(kind, run_id=stored.id, job_name=stored.job_name, labels=json.loads(stored.labels), **facts)

    async def _ended(
        self, run_id: str, on_progress: Callable[[Any], Any] | None, on_log: Callable[[Any], Any] | None
    ) -> Run[Any]:
        """The run once it has ended; a retry may have begun it again before it could be read."""
        while True:
            async for event in self.subscribe(run_id):
                if on_progress is not None and isinstance(event, RunProgressed):
                    await _called(on_progress, event.progress)
                if on_log is not None and isinstance(event, LogWritten):
                    await _called(on_log, event)
            run = self._registry.typed(await self._require(run_id))
            if run.is_terminal:
                return run

    async def _require(self, run_id: str) -> StoredRun:
        stored = await self._store.find_run(run_id)
        if stored is None:
            raise NotFoundError(f"there is no run {run_id}")
        return stored

    async def _refused(self, run_id: str, what: str) -> Exception:
        stored = await self._require(run_id)
        return ConflictError(f"run {run_id} is {stored.status} and cannot be {what}")


async def _called(listener: Callable[[Any], Any], value: Any) -> None:
    outcome = listener(value)
    if inspect.isawaitable(outcome):
        await outcome


def _several(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _step(stored: StoredStep) -> Step:
    try:
        output = None if stored.output is None else codec.decode(stored.output)
    except codec.CodecError:
        # Its classes are gone or changed: show what is stored. Only an execution must have the very value.
        output = stored.output
    return Step(
        name=stored.name,
        index=stored.step_index,
        status=stored.status,
        output=output,
        error=stored.error,
        attempt=stored.attempt,
        started_at=to_datetime(stored.started_at),
        completed_at=to_datetime(stored.completed_at),
    )
