"""One claimed run, from its start to its outcome.

The outcome is decided here and written fenced: completed, failed, cancelled by somebody, handed back
because the worker stops, or lost to another worker. Nothing a job raises gets any further than this.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from enum import Enum
from typing import Any, TypeVar

from .calls import executing_run, interruptible
from .clock import finishes_within, unbroken
from .database import Statement
from .deadlines import Deadline, deadline
from .errors import (
    DurablyError,
    LeaseLostError,
    RunTimeoutError,
    SchemaVersionError,
    StorageError,
    StoreFailedError,
    describe,
    leaves,
)
from .events import RunCompleted, RunFailed, RunStarted, logger
from .jobs import JobDefinition
from .records import Progress, RunStatus
from .rows import Claim, StoredRun
from .services import Services, ours
from .session import Session
from .step import Children, StepContext

Written = TypeVar("Written")

Write = Callable[[Statement | None], Awaitable[tuple[Written, list[StoredRun]]]]
"""Makes a commit, in which runs are claimed by the statement: what was written, and what was claimed."""


class Interruption(Enum):
    """Why an execution is stopped from outside."""

    ENDED_ELSEWHERE = "the run was cancelled or taken over: nothing more is written"
    RELEASE = "the worker stops: the run goes back to pending"
    TIMEOUT = "the run was at work for longer than its job allows"


class Execution:
    """Executes one run. Whoever made it calls `start` once, and may `interrupt` or `resume` it."""

    def __init__(
        self,
        services: Services,
        children: Children,
        definition: JobDefinition[Any, Any],
        stored: StoredRun,
        *,
        worker_id: str,
        keep_steps: bool,
        is_shutting_down: Callable[[], bool],
        finish: Callable[[Write[int | None]], Awaitable[int | None]],
    ) -> None:
        """`finish` makes the commit that completes the run; it may have that claim the next runs."""
        self.stored = stored
        self._services = services
        self._children = children
        self._definition = definition
        self._worker_id = worker_id
        self._keep_steps = keep_steps
        self._is_shutting_down = is_shutting_down
        self._finish = finish
        self._session: Session | None = None
        self._watch: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._interruption: Interruption | None = None

    @property
    def claim(self) -> Claim:
        return Claim(run_id=self.stored.id, generation=self.stored.generation)

    @property
    def is_parked(self) -> bool:
        """Whether the run waits and its slot is given back."""
        return self._session is not None and self._session.parked.is_set()

    @property
    def progress(self) -> Progress | None:
        """What the run has said last; the store hears of it a moment later."""
        return None if self._session is None else self._session.progress.said

    def start(self) -> asyncio.Task[None]:
        """Begin, as a task of its own."""
        self._task = asyncio.ensure_future(self._run())
        return self._task

    def resume(self, stored: StoredRun) -> None:
        """Go on with a parked run that has been claimed again."""
        assert self._session is not None, "only what has begun can be parked"
        self.stored = stored
        self._session.resume(stored)

    def poke(self) -> None:
        """Something came that the run may be waiting for."""
        if self._session is not None:
            self._session.poke()

    async def ended_or_parked(self) -> None:
        """Return when this execution needs its slot no more.

        Raises what broke it, which no job can, and `StorageError` if it cannot be parked: then it goes on waiting.
        """
        assert self._task is not None, "only what has begun can end"
        while not self._task.done() and not self.is_parked:
            session = self._session
            if session is not None and session.stuck.is_set() and session.park_error is not None:
                raise session.park_error
            signs = [self._begun] if session is None else [session.parked, session.stuck]
            waiters = [asyncio.ensure_future(sign.wait()) for sign in signs]
            try:
                await asyncio.wait({self._task, *waiters}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in waiters:
                    waiter.cancel()
        if self._task.done():
            self._task.result()

    async def end_cancelled(self) -> None:
        """The run has been cancelled: write and tell that of its steps, and cancel the job at its next `await`."""
        session = self._session
        if session is not None:
            session.lost = True
            for checkpoint in [*session.begun.values()]:
                try:
                    await self._services.store.put_cancelled_step(self.claim, checkpoint, self._services.clock.now())
                except StorageError as error:
                    logger.warning("that step '%s' was cancelled could not be stored: %s", checkpoint.name, error)
        self.interrupt(Interruption.ENDED_ELSEWHERE)

    def interrupt(self, why: Interruption) -> None:
        """Cancel the job at its next `await`."""
        self._interruption = why
        session = self._session
        if session is not None:
            session.is_released = why is Interruption.RELEASE
            if why is Interruption.ENDED_ELSEWHERE:
                session.interrupt()
            elif self.is_parked:
                session.lose()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        session: Session | None = None
        executing_run.set(self.stored.id)
        try:
            is_new = self.stored.generation == 1 and not self.stored.completed_step_count
            steps = [] if is_new else await ours(self._services.store.steps_of(self.stored.id))
            session = self._session = Session(self._services, self.stored, steps)
            self._begun.set()
            step = StepContext(session, self._children)
            timeout = self._definition.timeout
            with deadline(math.inf if timeout is None else self._time_left(timeout)) as due:
                if timeout is not None:
                    self._watch = asyncio.ensure_future(self._watch_timeout(session, timeout, due))
                payload = self._definition.load_payload(self.stored.payload)
                session.emit(RunStarted, payload=payload, worker_id=self._worker_id, generation=session.run.generation)
                output = self._definition.dump_output(await interruptible(self._definition.run(step, payload)))
            async with session.holding():
                await unbroken(ours(self._complete(session, output)))
        except BaseException as error:  # noqa: BLE001 - whatever a job raises is the outcome of its run
            await self._ended_by(session, error)
        finally:
            self._stop_watching()
            if session is not None:
                await session.close()

    async def _ended_by(self, session: Session | None, error: BaseException) -> None:
        # From here on the time that a run may take is no concern: its outcome is known.
        self._stop_watching()
        refused = next((leaf for leaf in leaves(error) if isinstance(leaf, StoreFailedError)), None)
        if refused is not None:
            if isinstance(refused.cause, SchemaVersionError):
                await self._hand_back(session)
            # Not the job's fault. The worker takes the run for an orphan and frees it when it can write.
            raise refused.cause from error
        if isinstance(error, KeyboardInterrupt):
            await self._hand_back(session)
            raise error
        if session is not None and session.lost:
            # Whatever its code raised on the way out: the run is somebody else's, or has its end already.
            logger.info("run %s was taken over or ended elsewhere", self.stored.id, exc_info=error)
        elif isinstance(error, asyncio.CancelledError):
            await self._cancelled(session, error)
        else:
            await self._fail(session, error)

    async def _complete(self, session: Session, output: str) -> None:
        self._stop_watching()
        await session.settle()
        took_ms = await self._finish(
            lambda claim_next: self._services.store.finish(
                session.claim,
                RunStatus.COMPLETED,
                output=output,
                progress=session.progress.take(),
                keep_steps=self._keep_steps,
                claim_next=claim_next,
                now=self._services.clock.now(),
            )
        )
        if took_ms is not None:
            session.emit(RunCompleted, output=self._definition.load_output(output), duration=took_ms / 1000)

    async def _fail(self, session: Session | None, error: BaseException) -> None:
        if not isinstance(error, DurablyError):
            logger.info("run %s of job %s failed", self.stored.id, self.stored.job_name, exc_info=error)
        try:
            async with session.holding() if session else nullcontext():
                await unbroken(self._write_failure(session, error))
        except asyncio.CancelledError:
            # Late: the failure is written, or the run is parked and whoever claims it next comes to the same end.
            logger.info("run %s was interrupted when it had failed", self.stored.id)
        except LeaseLostError:
            logger.info("run %s was taken over or ended elsewhere", self.stored.id)

    async def _write_failure(self, session: Session | None, error: BaseException) -> None:
        text = describe(error)
        failed_step = session.failed_step(error) if session else None
        if session is not None:
            await session.settle()
        took_ms, _ = await self._services.store.finish(
            self.claim,
            RunStatus.FAILED,
            error=text,
            failed_step_name=failed_step,
            progress=session.progress.take() if session else None,
            now=self._services.clock.now(),
        )
        if took_ms is not None and session is not None:
            session.emit(RunFailed, error=text, failed_step_name=failed_step)

    async def _cancelled(self, session: Session | None, error: asyncio.CancelledError) -> None:
        match self._interruption:
            case Interruption.ENDED_ELSEWHERE:
                return
            case Interruption.TIMEOUT:
                assert self._definition.timeout is not None, "only a job with a timeout runs out of it"
                await self._fail(session, RunTimeoutError(self._definition.timeout))
            case None if not self._is_shutting_down():
                # Nobody asked for it: the job raised it, or cancelled itself, and that is a failure like any other.
                await self._fail(session, error)
            case _:
                await self._hand_back(session)

    async def _hand_back(self, session: Session | None) -> None:
        if not self.is_parked:
            progress = session.progress.take() if session else None
            await unbroken(self._services.store.release(self.claim, progress, self._services.clock.now()))

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    def _time_left(self, timeout: float) -> float:
        """At the beginning of this claim."""
        return timeout - self.stored.active_ms / 1000

    async def _watch_timeout(self, session: Session, timeout: float, due: Deadline) -> None:
        """Interrupt the run once it has been at work for `timeout` seconds; time in which it waits is not counted."""
        # Measured by sleeping, not by comparing instants: a clock that is set ends no run, and spares none.
        while True:
            try:
                await session.gate()
            except LeaseLostError:
                return
            # Code that blocks the loop may have kept this from its first turn until the time was over.
            left = 0 if due.has_passed() else self._time_left(timeout)
            due.set_in(left)
            if left <= 0 or not await finishes_within(self._services.clock, session.parked.wait(), left):
                self.interrupt(Interruption.TIMEOUT)
                return
            due.set_in(math.inf)
