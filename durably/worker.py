"""The worker: claims runs, executes them, keeps their leases alive, takes over from the dead.

Its loop is woken by triggers and otherwise looks every `polling_interval` seconds: one read, no lock,
unless there is something to do. Leases are renewed every `heartbeat_interval` seconds; a run whose
heartbeat is older than `stale_threshold` seconds, or whose owner is known to be dead, becomes pending.

A run that only waits is parked: its coroutine stays here and its slot is free. When it is due it is claimed
again, by this worker unless that is gone, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush

from .chores import Chores
from .claiming import Claimer, ClaimRules
from .clock import LAST_INSTANT, EpochMs, finishes_within, wait_event
from .errors import DurablyError, SchemaVersionError, describe
from .events import WorkerFailed, logger
from .execution import Execution, Interruption, Write, Written
from .jobs import Registry
from .liveness import Liveness
from .rows import StoredRun
from .services import Services
from .step import Children

IDLE_SECONDS = 2.0
"""A worker that has had no run for so long is idle."""

HEAD_START_SECONDS = 0.05
"""By so much the instance where there is something new to do is ahead of the others."""

ERROR_PAUSE_SECONDS = 1.0
"""How long the loop waits after an error before it looks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Spans in seconds."""

    polling_interval: float
    heartbeat_interval: float
    stale_threshold: float
    max_concurrent_runs: int
    max_crashes: int
    preserve_steps: bool


class Worker:
    """Executes runs of the jobs in `registry`. One instance of durably has one."""

    def __init__(
        self,
        worker_id: str,
        services: Services,
        registry: Registry,
        children: Children,
        chores: Chores,
        liveness: Liveness,
        options: WorkerOptions,
    ) -> None:
        self.id = worker_id
        self._children = children
        self._services = services
        self._registry = registry
        self._liveness = liveness
        self._options = options
        rules = ClaimRules(stale_threshold=options.stale_threshold, max_crashes=options.max_crashes)
        self._claimer = Claimer(worker_id, services, registry, chores, liveness, rules, wake=self.wake)
        self._active: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._head_start: asyncio.TimerHandle | None = None
        self._told_at_work: set[str] = set()
        self._passed_on: set[str] = set()
        """Runs that have ended and whose slot the next run has already."""
        self._due: list[EpochMs] = []
        """A heap of the moments at which there will be something to do."""
        self._idle_since: EpochMs | None = None
        self._claims_in_doubt = asyncio.Event()
        self._stop_beat: Callable[[], None] | None = None
        self._by_hand = 0
        self._keepers: set[asyncio.Task[None]] = set()
        self._retirement: asyncio.Task[None] | None = None
        self.stops = 0
        """How often it was stopped; what claims by hand ends with that."""

    @property
    def is_started(self) -> bool:
        return self._work is not None

    def start(self) -> None:
        """Begin to look for work."""
        self._wake = asyncio.Event()
        self._claimer.show()
        self._work = asyncio.ensure_future(self._work_loop())
        self._heartbeats = self._keep_beating()
        self._beat_beside_loop()

    @property
    def has_room(self) -> bool:
        """Whether it would claim a run now."""
        return self.is_started and len(self._at_work()) < self._options.max_concurrent_runs

    def wake(self) -> None:
        """Look for work now."""
        if self._head_start is not None:
            self._head_start.cancel()
            self._head_start = None
        self._wake.set()

    def wake_at(self, moment: EpochMs) -> None:
        """Look for work at this moment, at which a run is due: polling alone would be late for it."""
        if self.is_started and self._services.clock.now() < moment < LAST_INSTANT:
            heappush(self._due, moment)
            self._wake.set()

    def wake_later(self) -> None:
        """Look for work once another instance, which has something new to do, has had time to take it itself.

        Its page is the one in use; a page that is hidden would go about it more slowly.
        """
        # One that has been given is not prolonged: news may come all the time.
        if self.is_started and self._head_start is None:
            self._head_start = asyncio.get_running_loop().call_later(HEAD_START_SECONDS, self.wake)

    async def end_cancelled(self, run_id: str) -> None:
        """Stop executing a run that has been cancelled; returns when the ends of its steps are told."""
        if (execution := self._active.get(run_id)) is not None:
            await execution.end_cancelled()

    def poke(self, run_id: str) -> None:
        """Something came that a run may be waiting for."""
        if (execution := self._active.get(run_id)) is not None:
            execution.poke()
        self.wake()

    def check_claims(self) -> None:
        """A run that is executed here may have been ended elsewhere: ask the store now."""
        if self._active:
            self._claims_in_doubt.set()

    def execution_of(self, run_id: str, generation: int) -> Execution | None:
        """The execution of a run by this worker, under that very claim."""
        execution = self._active.get(run_id)
        return execution if execution is not None and execution.claim.generation == generation else None

    async def stop(self, timeout: float | None = None) -> None:
        """Claim nothing more and wait for the runs in flight; after `timeout` seconds hand them back.

        Raises `DurablyError` without a timeout inside a job of this worker.
        """
        if timeout is None and asyncio.current_task() in self._tasks:
            raise DurablyError("stop() was called inside a job, for whose end it would wait; give it a timeout")
        self._stopping = True
        self.stops += 1
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
            await self._stop_beat_beside_loop()
        await self._claimer.hide()

    async def process_one(self) -> bool:
        """Claim one run and execute it to its outcome, or until it only waits; false if there is none to claim."""
        heartbeats = None if self.is_started else self._keep_beating()
        self._by_hand += 1
        self._beat_beside_loop()
        try:
            begun = await self._look_for_work(len(self._at_work()) + 1)
            await asyncio.gather(*(execution.ended_or_parked() for execution in begun))
        finally:
            self._by_hand -= 1
            if heartbeats is not None:
                heartbeats.cancel()
                await asyncio.gather(heartbeats, return_exceptions=True)
            if not self._by_hand and not self.is_started:
                await self._stop_beat_beside_loop()
        return bool(begun)

    async def with_claim(
        self, write: Write[Written], *, ends: str | None = None, is_sure: bool = False
    ) -> tuple[Written, int]:
        """Make a commit, and let it claim runs, too, if this worker looks for some; they are begun.

        `ends` is the run that the commit ends, which has its slot no more; `is_sure` says that there is something to
        claim after it. What was written, and how many runs were begun: no sooner than whoever called this waits again.
        """
        slots = self._options.max_concurrent_runs - len(self._at_work()) + (ends is not None)
        is_looking = self.is_started and not self._stopping and self._head_start is None and not self._turn.locked()
        claim = self._claimer.next_claim(slots, is_sure=is_sure) if is_looking else None
        if claim is None:
            return (await write(None))[0], 0
        async with self._turn:
            written, claimed = await write(claim)
            self._claimer.note_claimed(len(claimed), slots)
            if claimed and ends is not None:
                self._passed_on.add(ends)
            for each in claimed:
                self._begin(each)
            self._tell_at_work()
        return written, len(claimed)

    # -- inside ----------------------------------------------------------------------------------------

    def _beat_beside_loop(self) -> None:
        if self._stop_beat is None:
            services = self._services
            self._stop_beat = services.store.beat(self.id, services.clock.now, self._options.heartbeat_interval)

    async def _stop_beat_beside_loop(self) -> None:
        stop, self._stop_beat = self._stop_beat, None
        if stop is not None:
            await asyncio.to_thread(stop)

    def _keep_beating(self) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._heartbeat_loop())
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)
        return task

    def _is_shutting_down(self) -> bool:
        """Whether everything is being cancelled, as `asyncio.run` does at its end: then it was no job's doing."""
        return not self._keepers or any(task.cancelling() for task in self._keepers)

    def _at_work(self) -> list[str]:
        """The runs that take a slot."""
        return [
            run_id
            for run_id, execution in self._active.items()
            if not execution.is_parked and run_id not in self._passed_on
        ]

    async def _finish_in_flight(self, timeout: float | None) -> None:
        in_flight = [execution for execution in self._active.values() if not execution.is_parked]
        ended = asyncio.gather(*(execution.ended_or_parked() for execution in in_flight), return_exceptions=True)
        if timeout is None:
            await ended
        else:
            await finishes_within(self._services.clock, ended, timeout)
        # What is parked is parked in the store as well, and any worker may go on with it.
        left = list(self._active.values())
        for execution in left:
            execution.interrupt(Interruption.ENDED_ELSEWHERE if execution.is_parked else Interruption.RELEASE)
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if left:
            await self._services.store.unpark([self.id])

    async def _rest_when_idle(self, now: EpochMs) -> None:
        if self._active:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif not 0 <= now - self._idle_since < IDLE_SECONDS * 1000:
            await self._claimer.rest()

    async def _work_loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            looked_at = self._services.clock.now()
            pause = self._options.polling_interval
            try:
                await self._look_for_work(self._options.max_concurrent_runs)
            except SchemaVersionError as error:
                self._report(error, "looking for work")
                self._retirement = asyncio.ensure_future(self._retire())
                return
            except Exception as error:  # noqa: BLE001 - the loop outlives a storage that fails for a while
                self._report(error, "looking for work")
                pause = max(pause, ERROR_PAUSE_SECONDS)
            else:
                pause = min(pause, self._until_due(looked_at))
            if not self._stopping:
                await wait_event(self._services.clock, self._wake, pause)

    def _until_due(self, looked_at: EpochMs) -> float:
        """Seconds until the next run is due of which that is known; what was due at the last look was seen there."""
        while self._due and self._due[0] <= looked_at:
            heappop(self._due)
        return max(self._due[0] - self._services.clock.now(), 0) / 1000 if self._due else math.inf

    async def _retire(self) -> None:
        """Stop for good: whoever has the newer durably goes on with the runs, beginning now."""
        try:
            await self.stop(timeout=0)
        except Exception as error:  # noqa: BLE001 - nobody waits for this; the lock is free, so the runs are as well
            self._report(error, "handing its runs back")

    async def _look_for_work(self, slots: int) -> list[Execution]:
        """Claim what fits into `slots` and begin it.

        One caller at a time: between a claim and the beginning of its runs nobody may take them for orphans.
        """
        async with self._turn:

            def free() -> int:
                # What is new belongs for a moment to the instance where it is; and one that stops claims nothing.
                return 0 if self._stopping or self._head_start is not None else slots - len(self._at_work())

            begun = [self._begin(stored) for stored in await self._claimer.take(self._at_work(), free)]
            await self._rest_when_idle(self._services.clock.now())
            self._tell_at_work()
            return begun

    def _tell_at_work(self) -> None:
        if (at_work := set(self._at_work())) != self._told_at_work:
            self._told_at_work = at_work
            self._liveness.executes(at_work)

    async def _finish(self, run_id: str, write: Write[int | None]) -> int | None:
        """Write the end of a run, and give its slot to the next one."""
        return (await self.with_claim(write, ends=run_id))[0]

    def _begin(self, stored: StoredRun) -> Execution:
        parked = self._active.get(stored.id)
        if parked is not None and parked.is_parked and parked.claim.generation == stored.generation - 1:
            parked.resume(stored)
            return parked
        if parked is not None:
            # Somebody else had the run in between: what is here is of the past.
            parked.interrupt(Interruption.ENDED_ELSEWHERE)
        definition = self._registry.get(stored.job_name)
        assert definition is not None, "only jobs in the registry are claimed, and none ever leaves it"
        execution = Execution(
            self._services,
            self._children,
            definition,
            stored,
            worker_id=self.id,
            keep_steps=self._options.preserve_steps,
            is_shutting_down=self._is_shutting_down,
            finish=partial(self._finish, stored.id),
        )
        self._active[stored.id] = execution
        task = execution.start()
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(execution, ended))
        return execution

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        run_id = execution.claim.run_id
        self._tasks.discard(task)
        if self._active.get(run_id) is execution:  # else the run has been claimed again meanwhile
            del self._active[run_id]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._report(error, f"executing run {run_id}")
        if run_id in self._passed_on:
            self._passed_on.remove(run_id)
        else:
            self.wake()

    async def _heartbeat_loop(self) -> None:
        while True:
            await wait_event(self._services.clock, self._claims_in_doubt, self._options.heartbeat_interval)
            self._claims_in_doubt.clear()  # before the store is asked: what comes meanwhile is asked next
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 - as in the work loop
                self._report(error, "renewing leases")

    async def _beat(self) -> None:
        """Renew the leases of what is at work, and let go of what is no longer ours."""
        store = self._services.store
        at_work = [execution.claim for execution in self._active.values() if not execution.is_parked]
        parked = [execution.claim for execution in self._active.values() if execution.is_parked]
        lost = set(await store.heartbeat(at_work, self._services.clock.now())) if at_work else set()
        if parked:
            lost |= set(parked) - await store.still_parked(self.id, parked)
        for claim in lost:
            execution = self._active.get(claim.run_id)
            # It may have been parked, resumed or ended while the store was asked.
            if execution is not None and execution.claim == claim and execution.is_parked == (claim in parked):
                await execution.end_cancelled()

    def _report(self, error: BaseException, context: str) -> None:
        logger.error("worker %s failed %s", self.id, context, exc_info=error)
        self._services.bus.emit(WorkerFailed, error=describe(error), context=context)
