"""`StepContext`: what a job's function is given, and how a call becomes a checkpoint.

A step that has a checkpoint returns its stored result without being called. Any other is called, its
result is stored in one atomic batch with the run's advance, and only then is it returned: decoded from
its stored form, so that the first execution sees exactly what every later one will see.

The context never decides what becomes of the run; `execution` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from .calls import UserTransaction, call, call_in_place, interruptible, put
from .clock import EpochMs, finishes_within, instant_after, to_datetime, to_seconds, unbroken
from .codec import is_text
from .deadlines import deadline
from .errors import DurablyError, StepTimeoutError, StorageError, StorageFullError, StoreFailedError, describe, text_of
from .events import LogWritten, StepCompleted, StepFailed, StepRetried
from .records import Progress, Run
from .retry import ONCE, Retry
from .rows import Checkpoint, NewRun, StoredRun
from .services import in_transaction, ours
from .session import Session, step_of
from .store import put_step_in
from .typed import TypedValue
from .waits import child_run, disposition_of, sleep, start_child, wait_for_signal

T = TypeVar("T")
P = ParamSpec("P")


class Children(Protocol):
    """What a step needs to start runs of other jobs; `handles` has it."""

    def new_run(self, session: Session, job: Any, payload: Any, options: dict[str, Any]) -> NewRun:
        """A validated child of the session's run."""
        ...

    def typed(self, stored: StoredRun) -> Run[Any]: ...

    async def find(self, session: Session, run_id: str) -> Run[Any]:
        """The child as it is now. Raises `NotFoundError` if it has been deleted."""
        ...


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What `with_options` sets."""

    retry: Retry = ONCE
    timeout: float | None = None
    output: Any = None


class StepLog:
    """Log lines of a run, sent as `log:write` events."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def info(self, message: str, data: Any = None) -> None:
        """A line of level `info`; `data` is anything, shown as JSON."""
        self._write("info", message, data)

    def warning(self, message: str, data: Any = None) -> None:
        """A line of level `warning`; `warn` is another name for it."""
        self._write("warning", message, data)

    warn = warning

    def error(self, message: str, data: Any = None) -> None:
        """A line of level `error`; the run goes on."""
        self._write("error", message, data)

    def _write(self, level: str, message: str, data: Any) -> None:
        session = self._session
        line = {"level": level, "message": text_of(message), "data": data, "step_name": session.present_step()}
        claim = {"worker_id": session.run.worker_id or "", "generation": session.run.generation}
        session.on_loop(lambda: session.emit(LogWritten, **line, **claim))


class StepContext:
    """One execution of one run, as its job's function sees it.

    `run_id` is the run's id, `log` writes log lines. Each step takes a name that is used once in an execution. Once
    another worker has the run, or it has ended, every step raises `LeaseLostError`, which jobs should let pass.
    """

    def __init__(self, session: Session, children: Children, options: StepOptions | None = None) -> None:
        self.run_id = session.run.id
        self.log = StepLog(session)
        self._session = session
        self._children = children
        self._options = options or StepOptions()
        self._counts: dict[str, int] = {}

    def with_options(
        self, *, retry: Retry | int | None = None, timeout: float | timedelta | None = None, output: Any = None
    ) -> StepContext:
        """The same execution, with other options for the steps that are called on what is returned.

        `retry`: a policy, or how many calls in all (default: one); attempts are counted in the store. `timeout`
        (seconds or a timedelta; default: none) for each attempt: past it the step is cancelled and
        `StepTimeoutError` raised (a plain function in a thread cannot be stopped; its result is not used).
        `output`: the type of the result, for a class that cannot be found again by its import path. Raises
        `ValueError` or `TypeError` for options that make no sense.
        """
        context = StepContext(
            self._session,
            self._children,
            StepOptions(Retry.of(retry), None if timeout is None else to_seconds(timeout), output),
        )
        context._counts = self._counts
        return context

    # -- steps -----------------------------------------------------------------------------------------

    @overload
    async def run(self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(*args, **kwargs)` once, ever, under `name`; later executions return the stored result.

        `fn` is async, or plain: then it runs in a thread (in the browser, which has none, in place).
        Raises what `fn` raises, after the step is stored as failed; `DuplicateStepError` for a name used
        twice; `StepOutputError` for a result that could not be read back equal, naming the step and the
        path in the result; `StepTimeoutError` as `with_options` says; `DurablyError` inside a transaction.
        """
        session, kind = self._session, TypedValue.of(self._options.output, fn)

        async def attempt(checkpoint: Checkpoint) -> Any:
            result = await self._in_time(name, call(fn, args, kwargs, session.services.store.database))
            value, stored = kind.kept(session, name, result)
            # The commit and its event belong together, whoever cancels in between.
            await unbroken(self._commit(self._completed(checkpoint, stored), value))
            return value

        return await self._step(name, kind, attempt)

    @overload
    async def transaction(
        self,
        name: str,
        fn: Callable[Concatenate[UserTransaction, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def transaction(
        self, name: str, fn: Callable[Concatenate[UserTransaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def transaction(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(tx, *args, **kwargs)` in a transaction on durably's own database, exactly once.

        `await tx.execute(sql, params)` gives rows with index and name access. What `fn` writes and the
        step's checkpoint are committed together, or neither is. Inside `fn` only `tx` is for use: a step
        call there raises `DurablyError`. Everything else that writes waits meanwhile, so be quick. Otherwise as
        `run`, `StepTimeoutError` included; a plain `fn` runs in place.
        """
        session, kind = self._session, TypedValue.of(self._options.output, fn)

        async def attempt(checkpoint: Checkpoint) -> Any:
            is_written = False
            of_the_job: BaseException | None = None
            try:
                async with in_transaction(self.run_id, session.services.store) as tx:
                    try:
                        value = await self._in_time(name, call_in_place(fn, (UserTransaction(tx), *args), kwargs))
                        value, stored = kind.kept(session, name, value)
                    except StorageError as error:
                        of_the_job = error
                        raise
                    checkpoint = self._completed(checkpoint, stored)
                    session.require(await put_step_in(tx, session.claim, checkpoint))
                    is_written = True
            except asyncio.CancelledError:
                if is_written:  # cancelled while it was being committed, which no cancellation stops
                    self._tell_completed(checkpoint, value)
                raise
            except StorageError as error:
                if error is of_the_job and not isinstance(error, StorageFullError):
                    raise
                raise StoreFailedError(error) from error
            self._tell_completed(checkpoint, value)
            return value

        return await self._step(name, kind, attempt)

    # -- waiting ---------------------------------------------------------------------------------------

    async def sleep(self, name: str, seconds: float | timedelta) -> None:
        """Sleep durably: the moment to wake up is stored at the first call, and a restart does not move it.

        `seconds` or a timedelta. While the run only waits it holds no slot of its worker. Raises `ValueError` for a
        negative span.
        """
        span = to_seconds(seconds)
        if not 0 <= span < float("inf"):
            raise ValueError(f"step '{name}': the span to sleep must be from 0 seconds on, got {seconds!r}")
        await sleep(self._session, name, span)

    async def wait_for_signal(
        self, name: str, *, signal: str | None = None, timeout: float | timedelta | None = None
    ) -> Any:
        """Wait for `durably.signal(run_id, signal, payload)` and return the payload.

        `signal` defaults to `name`. Signals sent early are kept; each is delivered to one step, in order.
        Raises `TimeoutError` when none has come `timeout` (seconds or a timedelta) after the first call,
        `DurablyError` for a name that is no text.
        """
        if signal is not None and not is_text(signal):
            raise DurablyError(f"step '{name}': a signal's name is a text, got {signal!r}")
        span = None if timeout is None else to_seconds(timeout)
        return await wait_for_signal(self._session, name, signal or name, span)

    async def trigger(self, name: str, job: Any, payload: Any, **trigger_options: Any) -> Run[Any]:
        """Start a run of another job, once, and return it at once.

        `job` is a definition, a handle or a name; options are those of `JobHandle.trigger`, and `detached`:
        with it the child is not cancelled with this run. A later execution returns the same child, as it is then,
        with the first one's `disposition`. Raises `ValidationError`, and `NotFoundError` for a job that is not
        registered or a child that was deleted.
        """
        session = self._session
        index = session.enter(name)
        if (stored := session.stored(name)) is None:
            now = session.services.clock.now()
            first = Checkpoint(name=name, step_index=index, status="completed", started_at=now, now=now)
            child = self._children.new_run(session, job, payload, trigger_options)
            begun = await start_child(session, first, child, self._children.typed)
            child_id, output = begun.child_id, begun.output
            session.emit(StepCompleted, step_name=name, step_index=index, output=child_id, duration=0.0)
        else:
            child_id, output = stored.child_id, stored.output
        assert child_id is not None, "a step that started a child knows which"
        return replace(await self._children.find(session, child_id), disposition=disposition_of(output))

    async def trigger_and_wait(self, name: str, job: Any, payload: Any, **trigger_options: Any) -> Run[Any]:
        """Start a run of another job, once, and wait for its end; this run holds no slot meanwhile.

        Options and errors as in `trigger`; and `RunFailedError` or `RunCancelledError` for a child that did not
        complete, `NotFoundError` for one that was deleted meanwhile.
        """
        child = self._children.new_run(self._session, job, payload, trigger_options)
        return await child_run(self._session, name, child, self._children.typed)

    # -- what differs each time ------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The present moment, and the same one on replay."""
        return await self._noted("now", lambda: to_datetime(self._session.services.clock.now()))

    async def random(self) -> float:
        """A random number from 0 to 1, and the same one on replay."""
        return await self._noted("random", self._session.services.ids.random)

    async def uuid(self) -> UUID:
        """A random UUID (version 4), and the same one on replay."""
        return await self._noted("uuid", self._session.services.ids.uuid)

    # -- signs -----------------------------------------------------------------------------------------

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Listeners hear it at once; the store within a tenth of a second."""
        self._session.on_loop(lambda: self._session.note_progress(Progress(current, total, message)))

    def raise_if_cancelled(self) -> None:
        """For long loops without an `await`: raises `asyncio.CancelledError` once the run is cancelled."""
        if self._session.lost:
            raise asyncio.CancelledError

    # -- inside ----------------------------------------------------------------------------------------

    async def _step(self, name: str, kind: TypedValue, attempt: Callable[[Checkpoint], Awaitable[Any]]) -> Any:
        session = self._session
        index = session.enter(name)
        stored = session.stored(name)
        if stored is not None and stored.status == "completed":
            return kind.decode(session, name, stored.output)
        number = 1 if stored is None else stored.attempt + 1
        if stored is not None and stored.wake_at is not None:
            clock = session.services.clock
            async with session.busy():
                await clock.sleep(max(0, stored.wake_at - clock.now()) / 1000)
        while True:
            await session.begin_work(name)
            try:
                started_at = session.services.clock.now()
                checkpoint = Checkpoint(
                    name=name, step_index=index, status="running", attempt=number, started_at=started_at, now=started_at
                )
                session.tell_begun(checkpoint)
                outside = step_of.set((self.run_id, name))
                try:
                    return await interruptible(attempt(checkpoint))
                except StoreFailedError:
                    raise
                except BaseException as error:
                    if name not in session.running:
                        raise  # it had completed: what was raised since is the run's
                    if session.is_interrupted(error):
                        await unbroken(self._cancelled(checkpoint))
                        raise
                    wake_at = await unbroken(self._failed(checkpoint, error))
                    if wake_at is None:
                        raise
                finally:
                    step_of.reset(outside)
                try:
                    await session.services.clock.sleep(max(0, wake_at - session.services.clock.now()) / 1000)
                except asyncio.CancelledError:
                    await unbroken(self._cancelled(checkpoint))
                    raise
            finally:
                session.end_work(name)
            number += 1

    async def _commit(self, checkpoint: Checkpoint, value: Any) -> None:
        await self._session.write(checkpoint)
        self._tell_completed(checkpoint, value)

    def _tell_completed(self, checkpoint: Checkpoint, value: Any) -> None:
        self._session.running.pop(checkpoint.name, None)
        facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index}
        duration = (checkpoint.now - checkpoint.started_at) / 1000
        self._session.emit(StepCompleted, **facts, output=value, duration=duration)

    async def _cancelled(self, checkpoint: Checkpoint) -> None:
        session = self._session
        if not session.is_released:
            await ours(
                session.services.store.put_cancelled_step(session.claim, checkpoint, session.services.clock.now())
            )
        session.tell_cancelled(checkpoint.name, checkpoint.step_index)

    async def _failed(self, checkpoint: Checkpoint, error: BaseException) -> EpochMs | None:
        """Store and tell a failed attempt; the moment of the next, or `None` if it was the last."""
        session = self._session
        text = describe(error)
        delay = None
        if isinstance(error, Exception):
            delay = self._options.retry.next_delay(error, checkpoint.attempt, session.services.ids.random)
        now = session.services.clock.now()
        wake_at = None if delay is None else instant_after(now, delay)
        await session.write(
            replace(checkpoint, status="failed", error=text, wake_at=wake_at, progress=session.progress.take(), now=now)
        )
        facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index, "error": text}
        if wake_at is None:
            session.failures.append((error, checkpoint.name))
            session.emit(StepFailed, **facts)
        else:
            session.emit(StepRetried, **facts, attempt=checkpoint.attempt, next_attempt_at=to_datetime(wake_at))
        return wake_at

    async def _in_time(self, name: str, work: Awaitable[Any]) -> Any:
        """What the step's function gives. Its commit is not counted: once that is under way the step is done."""
        if self._options.timeout is None:
            return await work
        values: list[Any] = []
        with deadline(self._options.timeout):
            # Not a task yet: the timer is to be set before the work begins, which may block the loop.
            if not await finishes_within(self._session.services.clock, put(values, work), self._options.timeout):
                raise StepTimeoutError(name, self._options.timeout)
        return values[0]

    def _completed(self, checkpoint: Checkpoint, output: str | bytes) -> Checkpoint:
        session = self._session
        return checkpoint.completed(output, progress=session.progress.take(), now=session.services.clock.now())

    async def _noted(self, what: str, make: Callable[[], T]) -> T:
        number = self._counts[what] = self._counts.get(what, 0) + 1
        name = f"durably:{what}:{number}"
        session = self._session
        index = session.enter(name)
        if (stored := session.stored(name)) is not None and stored.status == "completed":
            noted: T = session.decoded(name, stored.output)
            return noted
        async with session.at_work(name):
            now = session.services.clock.now()
            made = make()
            value: T
            value, output = session.kept(name, made)
            await session.write(
                Checkpoint(name=name, step_index=index, status="completed", output=output, started_at=now, now=now)
            )
        return value
