"""The worker: claims runs, executes them, keeps their leases alive, takes over from the dead.

Its loop is woken by triggers and otherwise looks every `polling_interval` seconds: one read, no lock,
unless there is something to do. Leases are renewed every `heartbeat_interval` seconds; a run whose
heartbeat is older than `stale_threshold` seconds, or whose owner is known to be dead, becomes pending.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from .clock import EpochMs, finishes_within, unbroken, wait_event
from .errors import describe
from .events import RunStale, WorkerFailed, logger
from .execution import Execution
from .jobs import Registry
from .liveness import Liveness
from .step import Services
from .store import StoredRun

ERROR_PAUSE_SECONDS = 1.0
"""How long the loop waits after an error before it looks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Spans in seconds."""

    polling_interval: float
    heartbeat_interval: float
    stale_threshold: float
    max_concurrent_runs: int


class Worker:
    """Executes runs of the jobs in `registry`. One instance of durably has one."""

    def __init__(
        self,
        worker_id: str,
        services: Services,
        registry: Registry,
        liveness: Liveness,
        options: WorkerOptions,
    ) -> None:
        self.id = worker_id
        self._services = services
        self._registry = registry
        self._liveness = liveness
        self._options = options
        self._active: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._is_held = False

    @property
    def is_started(self) -> bool:
        return self._work is not None

    def start(self) -> None:
        """Begin to look for work."""
        self._wake = asyncio.Event()
        self._work = asyncio.ensure_future(self._work_loop())
        self._heartbeats = asyncio.ensure_future(self._heartbeat_loop())

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def interrupt(self, run_id: str) -> None:
        """Stop executing a run that has been ended."""
        if (execution := self._active.get(run_id)) is not None:
            execution.interrupt(ended_elsewhere=True)

    async def stop(self, timeout: float | None = None) -> None:
        """Claim nothing more and wait for the runs in flight; after `timeout` seconds hand them back."""
        self._stopping = True
        self.wake()
        try:
            if self._work is not None:
                # Not cancelled: it may be in the middle of a claim, whose runs would belong to nobody.
                await self._work
            async with self._turn:
                await self._finish_in_flight(timeout)
        finally:
            if self._heartbeats is not None:
                self._heartbeats.cancel()
                await asyncio.gather(self._heartbeats, return_exceptions=True)
            self._work = self._heartbeats = None
            self._stopping = False
        if self._is_held:
            self._is_held = False
            await self._liveness.release(self.id)

    async def process_one(self) -> bool:
        """Claim one run and execute it to its outcome; false where there was none to claim."""
        heartbeats = None if self.is_started else asyncio.ensure_future(self._heartbeat_loop())
        try:
            begun = await self._look_for_work(len(self._active) + 1)
            await asyncio.gather(*begun)
        finally:
            if heartbeats is not None:
                heartbeats.cancel()
                await asyncio.gather(heartbeats, return_exceptions=True)
        return bool(begun)

    # -- inside ----------------------------------------------------------------------------------------

    async def _finish_in_flight(self, timeout: float | None) -> None:
        in_flight = set(self._tasks)
        if not in_flight:
            return
        if timeout is not None and not await finishes_within(self._services.clock, asyncio.wait(in_flight), timeout):
            for execution in list(self._active.values()):
                execution.interrupt(ended_elsewhere=False)
        await asyncio.wait(in_flight)

    async def _work_loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            pause = self._options.polling_interval
            try:
                await self._look_for_work(self._options.max_concurrent_runs)
            except Exception as error:  # noqa: BLE001 - the loop outlives a storage that fails for a while
                self._report(error, "looking for work")
                pause = max(pause, ERROR_PAUSE_SECONDS)
            if not self._stopping:
                await wait_event(self._services.clock, self._wake, pause)

    async def _look_for_work(self, slots: int) -> list[asyncio.Task[None]]:
        """Claim what fits into `slots` and begin it.

        One caller at a time: between a claim and the beginning of its runs nobody may take them for orphans.
        """
        async with self._turn:
            if not self._is_held:
                await unbroken(self._liveness.hold(self.id))
                self._is_held = True
            return [self._begin(stored) for stored in await self._take(slots - len(self._active))]

    async def _take(self, slots: int) -> list[StoredRun]:
        """Free the runs of the dead, then claim up to `slots`."""
        store, now = self._services.store, self._services.clock.now()
        glance = await store.glance(list(self._active), self._registry.names, now)
        freed = await self._reclaim(glance.owners, now) if glance.owners else False
        if slots <= 0 or self._stopping or not (glance.claimable or freed):
            return []
        return await store.claim(self.id, self._registry.names, slots, now)

    async def _reclaim(self, owners: dict[str, EpochMs], now: EpochMs) -> bool:
        # Where a death is always seen, a heartbeat that is late tells of a long plain step, not of a death.
        cutoff = EpochMs(0 if self._liveness.sees_death else now - int(self._options.stale_threshold * 1000))
        # A run that this worker owns and does not execute was dropped by an error: nobody else will free it.
        dead = owners.keys() & {self.id} | await self._liveness.dead(owners.keys() - {self.id})
        if not dead and all(heartbeat > cutoff for heartbeat in owners.values()):
            return False
        freed = await self._services.store.reclaim(list(self._active), dead=dead, cutoff=cutoff, now=now)
        for stored in freed:
            logger.info("run %s lost its worker and is pending again", stored.id)
            self._services.bus.emit(
                RunStale, run_id=stored.id, job_name=stored.job_name, labels=json.loads(stored.labels)
            )
        return bool(freed)

    def _begin(self, stored: StoredRun) -> asyncio.Task[None]:
        definition = self._registry.get(stored.job_name)
        assert definition is not None, "only jobs in the registry are claimed, and none ever leaves it"
        execution = Execution(self._services, definition, stored, self.id)
        self._active[stored.id] = execution
        task = execution.start()
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(execution, ended))
        return task

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        run_id = execution.claim.run_id
        self._tasks.discard(task)
        if self._active.get(run_id) is execution:  # else the run has been claimed again meanwhile
            del self._active[run_id]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._report(error, f"executing run {run_id}")
        self.wake()

    async def _heartbeat_loop(self) -> None:
        while True:
            await self._services.clock.sleep(self._options.heartbeat_interval)
            claims = [execution.claim for execution in self._active.values()]
            if not claims:
                continue
            try:
                lost = await self._services.store.heartbeat(claims, self._services.clock.now())
            except Exception as error:  # noqa: BLE001 - as in the work loop
                self._report(error, "renewing leases")
                continue
            for claim in lost:
                execution = self._active.get(claim.run_id)
                if execution is not None and execution.claim == claim:
                    execution.interrupt(ended_elsewhere=True)

    def _report(self, error: BaseException, context: str) -> None:
        logger.error("worker %s failed %s", self.id, context, exc_info=error)
        self._services.bus.emit(WorkerFailed, error=describe(error), context=context)
