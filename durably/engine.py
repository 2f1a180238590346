"""`Durably`, the instance that a program holds, and `create_durably`, which makes one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel

from .chores import Chores, retention_ms
from .clock import Clock, SystemClock, finishes_within, to_datetime, to_seconds
from .database import IN_MEMORY, Database
from .databases import open_database
from .events import EventBus, logger
from .handles import ChildRuns, JobHandle, JobHandles, TriggerRules
from .ids import Ids
from .jobs import InputT, JobDefinition, JobFunction, OutputT, Registry, define_job
from .ledger import Ledger
from .liveness import HeartbeatOnly, Liveness
from .management import Runs
from .migrations import migrate
from .neighbours import Channel, Neighbours, NoChannel
from .plugins import Flushing, Plugin
from .records import StorageInfo
from .services import Services
from .storage import export_image, import_image
from .store import Store
from .versions import VersionedDatabase
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
    max_crashes: int = 3,
    preserve_steps: bool = True,
    retain_runs: str | timedelta | None = None,
    durability: str = "full",
    labels: type[BaseModel] | None = None,
    clock: Clock | None = None,
) -> Durably:
    """Make an instance; nothing is opened before `init()` or the first call.

    `database`: a name or path, `":memory:"`, or a `Database`. In Pyodide a name is a file in OPFS.
    `jobs`: definitions, or a mapping of keys to them, for `Durably.register`.
    `polling_interval`, `heartbeat_interval`, `stale_threshold`: seconds or timedeltas, by default 1, 5 and 30, in
    Pyodide 0.1, 0.5 and 3. How often a worker looks for work that nothing told it of; how often it renews its hold
    on its runs; and how old such a hold may be before another worker takes the run over.
    `max_concurrent_runs`: from 1 to 1,000; runs that only wait are not counted.
    `max_crashes`: a run whose worker dies so often without a new checkpoint becomes failed.
    `preserve_steps=False` deletes the steps of a run when it completes; one that fails or is cancelled keeps them.
    `retain_runs`: runs that ended longer ago than this (`"30d"`, `"12h"`, `"90m"`, a timedelta) are deleted while
    idle; by default they are kept.
    `durability`: `"full"` flushes every commit to the disk, `"relaxed"` does not: its commits survive the process
    or the browser, not a power cut.
    `labels`: a pydantic model that the labels of every trigger must fit.
    `clock`: where time comes from, for tests (`durably.testing.ManualClock`).

    Raises `ValueError` for an option out of its range or a job's name that is taken, `TypeError` for one of
    another kind.
    """
    given = (polling_interval, heartbeat_interval, stale_threshold)
    polling, heartbeat, stale = (
        default if span is None else to_seconds(span) for span, default in zip(given, DEFAULT_INTERVALS, strict=True)
    )
    if min(polling, heartbeat, stale) <= 0:
        raise ValueError("polling_interval, heartbeat_interval and stale_threshold must be greater than 0 seconds")
    if stale <= heartbeat:
        raise ValueError(f"stale_threshold ({stale} s) must be longer than heartbeat_interval ({heartbeat} s)")
    if not isinstance(max_concurrent_runs, int) or not 1 <= max_concurrent_runs <= 1000:
        raise ValueError(f"max_concurrent_runs must be from 1 to 1000, got {max_concurrent_runs}")
    if not isinstance(max_crashes, int) or max_crashes < 1:
        raise ValueError(f"max_crashes must be at least 1, got {max_crashes!r}")
    if labels is not None and not (isinstance(labels, type) and issubclass(labels, BaseModel)):
        raise TypeError(f"labels must be a pydantic model (the class), got {labels!r}")
    options = WorkerOptions(
        polling_interval=polling,
        heartbeat_interval=heartbeat,
        stale_threshold=stale,
        max_concurrent_runs=max_concurrent_runs,
        max_crashes=max_crashes,
        preserve_steps=preserve_steps,
    )
    backend = open_database(database, durability=durability)
    liveness, channel = _surroundings(backend.name)
    durably = Durably(
        backend,
        options,
        clock or SystemClock(),
        liveness=liveness,
        channel=channel,
        rules=TriggerRules(labels),
        retain_ms=retention_ms(retain_runs),
    )
    if jobs is not None:
        durably.register(*([jobs] if isinstance(jobs, Mapping) else jobs))
    return durably


def _surroundings(database_name: str) -> tuple[Liveness, Channel]:
    """How this instance sees the others on its database."""
    if IN_BROWSER:
        # Imported here because they exist in the browser only.
        from .browser.channel import TabChannel
        from .browser.locks import WebLocks

        return WebLocks(database_name), NoChannel() if database_name == IN_MEMORY else TabChannel(database_name)
    return HeartbeatOnly(), NoChannel()


class Durably(Runs):
    """Jobs, a store and a worker: what `create_durably` returns. `async with` it, or call `init` and `stop`.

    `jobs` holds the handles of all registered jobs. Every method that touches the store is async and may raise
    `StorageError`, or one of its kinds.
    """

    def __init__(
        self,
        database: Database,
        options: WorkerOptions,
        clock: Clock,
        *,
        liveness: Liveness,
        channel: Channel,
        rules: TriggerRules,
        retain_ms: int | None,
    ) -> None:
        self.jobs = JobHandles()
        self._database = database
        self._options = options
        self._polling_interval = options.polling_interval
        self._registry = Registry()
        self._rules = rules
        self._liveness = liveness
        versioned = VersionedDatabase(database)
        self._services = Services(
            store=Store(versioned),
            ledger=Ledger(versioned),
            bus=EventBus(lambda: to_datetime(clock.now())),
            clock=clock,
            ids=Ids(clock),
            wake=lambda: self._worker.wake(),
            wake_at=lambda moment: self._worker.wake_at(moment),
        )
        self._chores = Chores(self._services, self._registry, retain_ms)
        self._worker = self._new_worker(None)
        self._neighbours = Neighbours(
            channel,
            self._services.bus,
            self._worker.id,
            reactions=lambda: self._worker,
            is_alive=liveness.note_alive,
        )
        self._migrating = asyncio.Lock()
        self._plugins: dict[str, Plugin] = {}

    @property
    def ledger(self) -> Ledger:
        """For plugins: where logs and other books are kept."""
        return self._services.ledger

    @property
    def clock(self) -> Clock:
        """For what is built on this instance: the clock that it was given."""
        return self._services.clock

    @property
    def worker_id(self) -> str:
        """The name of this instance's worker: `worker_id` of the runs that it executes."""
        return self._worker.id

    @property
    def ids(self) -> Ids:
        """For plugins: where ids and all randomness come from."""
        return self._services.ids

    @property
    def database_name(self) -> str:
        """The name or path of the database."""
        return self._database.name

    async def __aenter__(self) -> Self:
        try:
            await self.init()
        except BaseException:
            await self._database.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- jobs ------------------------------------------------------------------------------------------

    def define_job(
        self,
        *,
        name: str,
        input: Any,
        output: Any = None,
        run: JobFunction[InputT, OutputT],
        timeout: float | timedelta | None = None,
    ) -> JobHandle[InputT, OutputT]:
        """Define a job and register it here; its handle. Arguments and errors are those of `define_job`.

        Raises `ValueError`, too, if the name belongs to another job.
        """
        definition = define_job(name=name, input=input, output=output, run=run, timeout=timeout)
        self.register(definition)
        return JobHandle(self, definition)

    def register(self, *jobs: JobDefinition[Any, Any] | Mapping[str, JobDefinition[Any, Any]]) -> JobHandles:
        """Register definitions, given alone or as a mapping of keys to them; returns their handles.

        The same definition twice is fine. Raises `ValueError` for another one under a taken name, `TypeError`
        for what is no definition. A worker claims the runs of registered jobs only.
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
        """The handle of a registered job, by the job's name; `None` where there is none."""
        definition = self._registry.get(name)
        return None if definition is None else JobHandle(self, definition)

    def use(self, plugin: Plugin) -> None:
        """Install a plugin: call its `install(self)`. A second one of the same `name` is not installed.

        Raises what `install` raises.
        """
        if plugin.name not in self._plugins:
            plugin.install(self)
            self._plugins[plugin.name] = plugin

    # -- life ------------------------------------------------------------------------------------------

    async def init(self) -> None:
        """`migrate()` and `start()`. Raises what `migrate` raises; harmless when done already."""
        await self.migrate()
        self.start()

    async def migrate(self) -> None:
        """Bring the database's schema up to date; harmless when it is, and safe from two sides at once.

        Raises `SchemaVersionError` for a file that a newer durably has written, which is left untouched, and
        `StorageError` for one that is no database or cannot be written.
        """
        async with self._migrating:
            await migrate(Store(self._database), self._services.clock)
        self._neighbours.open()

    def start(self, worker_id: str | None = None) -> None:
        """Start the worker in the running event loop; harmless when it runs. `worker_id` defaults to a new id."""
        if self._worker.is_started:
            return
        if worker_id is not None:
            self._worker = self._new_worker(worker_id)
        self._neighbours.open()
        self._worker.start()

    async def stop(self, timeout: float | timedelta | None = None) -> None:
        """Stop the worker, wait for its runs, close the database (any later call opens it again).

        After `timeout` (seconds or a timedelta; default: none) the runs still in flight are cancelled here and
        handed back as pending; their checkpoints are kept. A plain function in a thread runs on to its end, which
        nobody hears of. Async listeners have what is left of the time, and are cancelled after it. Raises
        `DurablyError` without a timeout inside a job of this instance.
        """
        seconds, clock, bus = None if timeout is None else to_seconds(timeout), self._services.clock, self._services.bus
        began = clock.now()
        await self._worker.stop(seconds)
        if seconds is None:
            await bus.drain()
        elif not await finishes_within(clock, bus.drain(), seconds - max(0, clock.now() - began) / 1000):
            await bus.cancel_listeners()
        for plugin in self._plugins.values():
            if isinstance(plugin, Flushing):
                try:
                    await plugin.flush()
                except Exception:  # noqa: BLE001 - the database is closed whatever a plugin does
                    logger.exception("plugin %s could not finish its work", plugin.name)
        self._neighbours.close()
        await self._database.close()

    async def process_one(self) -> bool:
        """Claim one run and execute it to its end, or until it waits; false if there is none to claim.

        For servers without a loop of their own, and tests.
        """
        return await self._worker.process_one()

    async def process_until_idle(self, max_runs: int | None = None) -> int:
        """`process_one` until there is nothing to claim, or `max_runs` runs were executed; how many were.

        A run that waited and goes on is counted again.
        """
        executed, stops = 0, self._worker.stops
        while (max_runs is None or executed < max_runs) and self._worker.stops == stops:
            if not await self._worker.process_one():
                break
            executed += 1
        return executed

    # -- the store as a whole --------------------------------------------------------------------------

    async def export(self) -> bytes:
        """All of the database at one moment, user tables included, as the bytes of a SQLite file.

        Raises `StorageError` where nothing was ever stored.
        """
        return await export_image(self._services.outside.store)

    async def import_database(self, data: bytes) -> None:
        """Replace all of the database by an exported one (or any SQLite file that durably has made).

        It is checked and brought to the newest schema before anything is replaced; what was pending or running
        when it was exported is pending. Raises `StorageError` for data that is not such a database or is damaged,
        `SchemaVersionError` if a newer durably has made it, `ConflictError` while runs are pending or running
        here; then everything is as it was.
        """
        store = self._services.outside.store
        await self.migrate()
        await import_image(store, data, self._services.clock)
        self._worker.wake()

    async def storage_info(self) -> StorageInfo:
        """Where the database is kept, its size in bytes, and what the browser gives and promises."""
        return await self._services.outside.store.database.info()

    # -- inside ----------------------------------------------------------------------------------------

    def _new_worker(self, worker_id: str | None) -> Worker:
        return Worker(
            worker_id or self._services.ids.new(),
            self._services,
            self._registry,
            ChildRuns(self._registry, self._rules),
            self._chores,
            self._liveness,
            self._options,
        )
