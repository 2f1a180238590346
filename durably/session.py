"""A session: one execution's hold on its run, from the claim to the outcome.

It hands out step names, writes checkpoints under its claim, tells events, and knows when the run only
waits. Then it *parks*: the slot goes back to the worker and the claim ends, while the job's coroutine
stays where it is. The worker claims the run again when it is due and `resume`s the session under the new
claim; in between the *gate* is shut, and nothing is written.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from . import codec
from .errors import (
    DuplicateStepError,
    DurablyError,
    LeaseLostError,
    StepOutputError,
    StorageError,
    leaves,
)
from .events import Event, RunProgressed, StepCancelled, StepStarted, logger
from .progress import ProgressReport
from .records import Progress
from .rows import Checkpoint, Claim, StoredRun, StoredStep
from .services import Services, open_transaction, ours
from .waiting import Waiting, this_task

PROGRESS_FLUSH_SECONDS = 0.1
"""Progress reaches the store with the next checkpoint, or this long after it was said."""

QUIET_TURNS = 3
"""Turns of the event loop without a step at work before a run that waits is parked: between two steps of one
branch there are a few."""

SETTLE_SECONDS = 1.0
"""How long the outcome of a run waits for the steps that its job has left running: they are cancelled first."""

PARK_AGAIN_SECONDS = 0.1
"""After this long a run that could not be parked is tried to be parked again."""

step_of: ContextVar[tuple[str, str]] = ContextVar("durably_step_of", default=("", ""))
"""The run and the step whose code the present task or thread executes; those that it starts inherit it."""


class Session:
    """The state of one execution of one run."""

    def __init__(self, services: Services, run: StoredRun, steps: Sequence[StoredStep]) -> None:
        self.run = run
        self.claim = Claim(run_id=run.id, generation=run.generation)
        self.services = services
        self.lost = False
        """Set when the run has gone to another worker or has ended; the next step raises `LeaseLostError`."""
        self.parked = asyncio.Event()
        """Set while the claim is given back."""
        self.running: dict[str, asyncio.Task[Any]] = {}
        """The steps at work."""
        self.stuck = asyncio.Event()
        """Set while the store has twice refused to take the claim back; `park_error` says why."""
        self.park_error: StorageError | None = None
        self.progress = ProgressReport(lambda progress: self.emit(RunProgressed, progress=progress))
        """What was said under this claim; the store hears of it a moment later."""
        self.begun: dict[str, Checkpoint] = {}
        """Those of them whose beginning was told."""
        self.is_released = False
        """Set when the worker stops and the run goes back to pending: nothing of it was cancelled for good."""
        self.failures: list[tuple[BaseException, str]] = []
        """What steps raised, and their names."""
        self._stored = {step.name: step for step in steps}
        self._indexes: dict[str, int] = {}
        self._told_ended: set[str] = set()
        self._is_over = False
        self._gate = asyncio.Event()
        self._gate.set()
        self._working = 0
        self._wanting = 0
        self._waits: list[Waiting] = []
        self._background: set[asyncio.Task[None]] = set()
        self._is_replaying = False
        self._flushing = False
        self._is_suspect = run.crash_count > 0
        self._facts = {"run_id": run.id, "job_name": run.job_name, "labels": json.loads(run.labels)}
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    # -- steps -----------------------------------------------------------------------------------------

    def enter(self, name: str) -> int:
        """Take a step's name for this execution; its index."""
        inside = open_transaction()
        if inside is not None and inside.run_id == self.run.id:
            raise DurablyError(
                f"step '{name}' was called inside a transaction; there only tx is for use, so end the transaction first"
            )
        if not name or not codec.is_text(name):
            raise DurablyError(f"a step needs a name, a non-empty text; got {name!r}")
        if self.lost or self._is_over:
            raise LeaseLostError(self.run.id)
        if name in self._indexes:
            raise DuplicateStepError(name)
        return self._indexes.setdefault(name, len(self._indexes))

    def stored(self, name: str) -> StoredStep | None:
        """What earlier executions have stored of a step."""
        stored = self._stored.get(name)
        self._is_replaying = stored is not None and stored.status == "completed"
        return stored

    async def begin_work(self, name: str) -> None:
        """Before a step, which `end_work` ends: it needs the claim, and is known to be running."""
        if self.parked.is_set() or self.lost or not self._gate.is_set():
            await self._claimed()
        self._working += 1
        self.running[name] = this_task()
        if self._is_suspect:
            try:
                self.require(await ours(self.services.store.suspect_step(self.claim, name)))
            except BaseException:
                self.end_work(name)
                raise

    def present_step(self) -> str | None:
        """The step at work whose code calls this; `None` in the job's own."""
        run_id, name = step_of.get()
        return name if run_id == self.run.id and name in self.running else None

    def end_work(self, name: str) -> None:
        self.running.pop(name, None)
        self.begun.pop(name, None)
        self._working -= 1
        self._park_when_quiet()

    @asynccontextmanager
    async def at_work(self, name: str) -> AsyncIterator[None]:
        """`begin_work` and `end_work`."""
        await self.begin_work(name)
        try:
            yield
        finally:
            self.end_work(name)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Around what needs the claim: waits for it if the run is parked, and keeps it meanwhile."""
        await self._claimed()
        async with self.busy():
            yield

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Around what needs the claim and has it: the run is not parked meanwhile."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self._park_when_quiet()

    @asynccontextmanager
    async def waiting(self, waiting: Waiting) -> AsyncIterator[None]:
        """Around a durable wait, in which the run may be parked."""
        self._waits.append(waiting)
        self._park_when_quiet()
        try:
            yield
        finally:
            self._waits.remove(waiting)

    async def gate(self) -> None:
        """Return when the run is claimed, without asking for it: what is waited for has not come."""
        while not self._gate.is_set():
            await self._gate.wait()
        if self.lost:
            raise LeaseLostError(self.run.id)

    async def write(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint. Raises `LeaseLostError` if the run is no longer ours."""
        self.require(await ours(self.services.store.put_step(self.claim, checkpoint)))

    def require(self, written: bool) -> None:
        """Raise `LeaseLostError` unless a fenced write was made."""
        if not written:
            self.lost = True
            raise LeaseLostError(self.run.id)

    def kept(self, name: str, value: Any) -> tuple[Any, str | bytes]:
        """A result as it will be read back, and its stored form: what cannot be read back is not stored."""
        try:
            stored = codec.encode(value)
            return codec.decode(stored), stored
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

    def decoded(self, name: str, stored: str | bytes | None) -> Any:
        """A step's result from its stored form."""
        assert stored is not None, "a completed step has an output"
        try:
            return codec.decode(stored)
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

    # -- telling ---------------------------------------------------------------------------------------

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Tell an event of this run."""
        self.progress.tell()
        self.services.bus.emit(kind, **self._facts, **facts)

    def on_loop(self, action: Callable[[], None]) -> None:
        """Plain steps run in threads; events belong to the loop."""
        if threading.get_ident() == self._thread:
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    def note_progress(self, progress: Progress) -> None:
        """Tell progress, and store it soon. Once the run is over there is none."""
        if self.lost or self._is_over:
            return
        self.progress.say(progress, in_replay=self._is_replaying)
        if self._is_replaying:
            self._loop.call_soon(self._tell_held_progress)
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush_progress())

    # -- for the worker --------------------------------------------------------------------------------

    def resume(self, run: StoredRun) -> None:
        """Go on under a new claim."""
        self.run = run
        self.claim = Claim(run_id=run.id, generation=run.generation)
        self._is_suspect = run.crash_count > 0
        self.parked.clear()
        self._gate.set()
        self.poke()
        self._park_when_quiet()

    def poke(self) -> None:
        """Let every wait look again whether what it waits for has come."""
        for waiting in self._waits:
            waiting.poke.set()

    def lose(self) -> None:
        """The run is no longer ours: whoever waits, for the gate or for anything, is let through to find that out."""
        self.lost = True
        self._gate.set()
        self.poke()

    def is_interrupted(self, error: BaseException) -> bool:
        """Whether what ended a step came from outside (cancelled, taken over), and was not raised by its function."""
        if isinstance(error, asyncio.CancelledError):
            return self.lost or self.is_released or this_task().cancelling() > 0
        return isinstance(error, LeaseLostError) and self.lost

    def tell_begun(self, checkpoint: Checkpoint) -> None:
        """Tell that a step begins."""
        self.begun[checkpoint.name] = checkpoint
        self.emit(StepStarted, step_name=checkpoint.name, step_index=checkpoint.step_index)

    def tell_cancelled(self, name: str, index: int) -> None:
        """Tell that a step was cancelled, unless its end was told before."""
        if name not in self._told_ended:
            self._told_ended.add(name)
            self.emit(StepCancelled, step_name=name, step_index=index)

    def note_ended(self, name: str) -> None:
        """The end of a wait has been told: it cannot be cancelled any more."""
        self._told_ended.add(name)

    def interrupt(self) -> None:
        """The run has ended elsewhere: tell it of every step that has not ended, before the run's own end is told."""
        for name in [*self.begun, *(waiting.name for waiting in self._waits)]:
            self.tell_cancelled(name, self._indexes[name])
        self.lose()

    def failed_step(self, error: BaseException) -> str | None:
        """The name of the step that raised `error`, or one of the errors in it."""
        causes = {id(leaf) for leaf in leaves(error)}
        return next((name for failure, name in self.failures if causes & {id(leaf) for leaf in leaves(failure)}), None)

    async def settle(self) -> None:
        """Cancel the steps that a job has left at work or waiting, while that can be stored; it begins no other.

        The caller holds the claim. A step that does not end in time is told as cancelled all the same.
        """
        self._is_over = True
        names = [*self.running, *(waiting.name for waiting in self._waits)]
        left = {*self.running.values(), *(waiting.task for waiting in self._waits)} - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            ended, _ = await asyncio.wait(left, timeout=SETTLE_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)  # looked at, so that none is reported as lost
        for name in names:
            if name in self.running or any(waiting.name == name for waiting in self._waits):
                self.tell_cancelled(name, self._indexes[name])

    async def close(self) -> None:
        """End what is left of the execution."""
        self.lose()
        left = {*self._background, *self.running.values(), *(waiting.task for waiting in self._waits)}
        left -= {None, asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # -- inside ----------------------------------------------------------------------------------------

    def _tell_held_progress(self) -> None:
        if not self.lost:
            self.progress.tell()

    async def _claimed(self) -> None:
        self._wanting += 1
        try:
            if self.parked.is_set():
                await self._ask_for_claim()
            await self.gate()
        finally:
            self._wanting -= 1

    async def _ask_for_claim(self) -> None:
        await ours(self.services.store.wake(self.claim, self.services.clock.now()))
        self.services.wake()

    def _park_when_quiet(self) -> None:
        if self._is_quiet():
            self._spawn(self._park_if_quiet())

    def _is_quiet(self) -> bool:
        """Whether the run only waits, and each wait has looked since it was last told to."""
        has_looked = not any(waiting.poke.is_set() for waiting in self._waits)
        return bool(self._waits) and has_looked and not self._working and self._gate.is_set() and not self.lost

    async def _park_if_quiet(self) -> None:
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)
            if not self._is_quiet():
                return
        self._gate.clear()
        first = min(self._waits, key=lambda waiting: waiting.wake_at)
        try:
            parked = await self.services.store.park(
                self.claim,
                waiting_for=first.description,
                wake_at=first.wake_at,
                progress=self.progress.take(),
                now=self.services.clock.now(),
            )
        except StorageError as error:
            # Then it waits in its slot, and is parked when the store can be written again.
            logger.warning("run %s could not be parked yet: %s", self.run.id, error)
            if self.park_error is not None:
                self.stuck.set()
            self.park_error = error
            self._gate.set()
            self._loop.call_later(PARK_AGAIN_SECONDS, self._park_when_quiet)
            return
        self.park_error = None
        self.stuck.clear()
        if not parked:
            self.lose()
            return
        self.parked.set()
        if self._wanting:
            await self._ask_for_claim()
        self.services.wake_at(first.wake_at)
        # Something may have woken the run while it was being parked.
        self.services.wake()

    async def _flush_progress(self) -> None:
        while not self.progress.is_saved:
            await self.services.clock.sleep(PROGRESS_FLUSH_SECONDS)
            try:
                await self.gate()
            except LeaseLostError:
                return  # it is no longer ours to store
            if (unsaved := self.progress.take()) is not None:
                try:
                    await self.services.store.put_progress(self.claim, unsaved, self.services.clock.now())
                except StorageError as error:
                    logger.warning("progress of run %s could not be stored yet: %s", self.run.id, error)
                    self.progress.put_back(unsaved)
        self._flushing = False

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
