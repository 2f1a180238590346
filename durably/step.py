"""`StepContext`: what a job's function is given, and how a step becomes a checkpoint.

A step that has a checkpoint returns its stored result without being called. Any other is called, its
result is stored in one atomic batch with the run's advance, and only then is it returned: decoded from
its stored form, so that the first execution sees exactly what every later one will see.

The context never decides what becomes of the run; `execution` does.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from . import codec
from .clock import Clock, EpochMs, unbroken
from .database import Transaction
from .errors import (
    DuplicateStepError,
    DurablyError,
    LeaseLostError,
    StepOutputError,
    StorageError,
    StoreFailedError,
    describe,
    leaves,
)
from .events import (
    Event,
    EventBus,
    LogWritten,
    RunProgressed,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepStarted,
)
from .records import Progress
from .store import Checkpoint, Claim, Store, StoredRun, StoredStep, put_step_in

T = TypeVar("T")
P = ParamSpec("P")

PROGRESS_FLUSH_SECONDS = 0.1
"""Progress reaches the store with the next checkpoint, or this long after it was said."""

HAS_THREADS = sys.platform != "emscripten"


_transaction_of: ContextVar[str | None] = ContextVar("durably_transaction_of", default=None)
"""The run in whose transaction the present task is; tasks that it starts inherit it."""


@dataclass(frozen=True, slots=True)
class Services:
    """What an execution works with."""

    store: Store
    bus: EventBus
    clock: Clock


async def ours(work: Awaitable[T]) -> T:
    """Do durably's own work on the store: if it fails, that is not the job's failure (`StoreFailedError`)."""
    try:
        return await work
    except StorageError as error:
        raise StoreFailedError(error) from error


class StepLog:
    """Log lines of a run, sent as `log:write` events."""

    def __init__(self, write: Callable[[str, str, Any], None]) -> None:
        self._write = write

    def info(self, message: str, data: Any = None) -> None:
        self._write("info", message, data)

    def warning(self, message: str, data: Any = None) -> None:
        self._write("warning", message, data)

    warn = warning

    def error(self, message: str, data: Any = None) -> None:
        self._write("error", message, data)


class StepContext:
    """One execution of one run, as its job's function sees it."""

    def __init__(self, services: Services, run: StoredRun, completed: dict[str, StoredStep]) -> None:
        self.run_id = run.id
        self.log = StepLog(self._write_log)
        self.lost = False
        """Set when the run has gone to another worker or has ended; the next step raises `LeaseLostError`."""
        self._services = services
        self._claim = Claim(run_id=run.id, generation=run.generation)
        self._completed = completed
        self._used: set[str] = set()
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._failures: list[tuple[BaseException, str]] = []
        self._unsaved_progress: str | None = None
        self._flush: asyncio.Task[None] | None = None
        self._facts = {"run_id": run.id, "job_name": run.job_name, "labels": json.loads(run.labels)}
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

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
        path in the result.
        """
        index = self._enter(name)
        if name in self._completed:
            return self._replayed(name)

        async def attempt(started_at: EpochMs) -> Any:
            value, stored = self._kept(name, await _call(fn, args, kwargs))
            checkpoint = self._checkpoint(name, index, started_at, output=stored)
            # The commit and its event belong together, whoever cancels in between.
            await unbroken(self._commit(checkpoint, value))
            return value

        return await self._execute(name, index, attempt)

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
        call there raises `DurablyError`. Otherwise as `run`.
        """
        index = self._enter(name)
        if name in self._completed:
            return self._replayed(name)

        async def attempt(started_at: EpochMs) -> Any:
            is_written = False
            inside = _transaction_of.set(self.run_id)
            try:
                async with self._services.store.database.transaction() as tx:
                    value = fn(UserTransaction(tx), *args, **kwargs)
                    value, stored = self._kept(name, await value if inspect.isawaitable(value) else value)
                    checkpoint = self._checkpoint(name, index, started_at, output=stored)
                    self._require(await put_step_in(tx, self._claim, checkpoint))
                    is_written = True
            except asyncio.CancelledError:
                if is_written:  # cancelled while it was being committed, which no cancellation stops
                    self._tell_completed(checkpoint, value)
                raise
            finally:
                _transaction_of.reset(inside)
            self._tell_completed(checkpoint, value)
            return value

        return await self._execute(name, index, attempt)

    # -- signs -----------------------------------------------------------------------------------------

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Listeners hear it at once; the store about ten times a second."""
        self._on_loop(lambda: self._note_progress(Progress(current, total, message)))

    def raise_if_cancelled(self) -> None:
        """For long loops without an `await`: raises `asyncio.CancelledError` once the run is cancelled."""
        if self.lost:
            raise asyncio.CancelledError

    # -- for execution ---------------------------------------------------------------------------------

    def take_progress(self) -> str | None:
        """The progress that is not stored yet, for the caller to store."""
        unsaved, self._unsaved_progress = self._unsaved_progress, None
        return unsaved

    def failed_step(self, error: BaseException) -> str | None:
        """The name of the step that raised `error`, or one of the errors in it."""
        causes = {id(leaf) for leaf in leaves(error)}
        return next((name for failure, name in self._failures if id(failure) in causes), None)

    async def close(self) -> None:
        """End the steps that a job has left running, and let it begin no other."""
        self.lost = True
        tasks = [task for task in (*self._running.values(), self._flush) if task not in (None, asyncio.current_task())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- inside ----------------------------------------------------------------------------------------

    def _enter(self, name: str) -> int:
        if _transaction_of.get() == self.run_id:
            raise DurablyError(
                f"step '{name}' was called inside a transaction; there only tx is for use, so end the transaction first"
            )
        if not isinstance(name, str) or not name:
            raise DurablyError(f"a step needs a name, a non-empty text; got {name!r}")
        if self.lost:
            raise LeaseLostError(self.run_id)
        if name in self._used:
            raise DuplicateStepError(name)
        self._used.add(name)
        return len(self._used) - 1

    async def _execute(self, name: str, index: int, attempt: Callable[[EpochMs], Awaitable[Any]]) -> Any:
        """Call a step for the first time: its events, its checkpoint, its failure."""
        started_at = self._services.clock.now()
        facts = {"step_name": name, "step_index": index}
        self._emit(StepStarted, **facts)
        self._running[name] = asyncio.current_task()
        try:
            return await attempt(started_at)
        except asyncio.CancelledError:
            if name in self._running:  # else it has completed, and the cancellation is the run's
                self._emit(StepCancelled, **facts)
            raise
        except Exception as error:
            self._failures.append((error, name))
            checkpoint = self._checkpoint(name, index, started_at, error=describe(error))
            await unbroken(self._commit(checkpoint, None))
            raise
        finally:
            self._running.pop(name, None)

    async def _commit(self, checkpoint: Checkpoint, value: Any) -> None:
        self._require(await ours(self._services.store.put_step(self._claim, checkpoint)))
        if checkpoint.error is None:
            self._tell_completed(checkpoint, value)
        else:
            facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index}
            self._emit(StepFailed, **facts, error=checkpoint.error)

    def _tell_completed(self, checkpoint: Checkpoint, value: Any) -> None:
        self._running.pop(checkpoint.name, None)
        facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index}
        duration = (self._services.clock.now() - checkpoint.started_at) / 1000
        self._emit(StepCompleted, **facts, output=value, duration=duration)

    def _replayed(self, name: str) -> Any:
        output = self._completed[name].output
        assert output is not None, "a completed step has an output"
        try:
            return codec.decode(output)
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

    def _kept(self, name: str, value: Any) -> tuple[Any, str | bytes]:
        """A result as it will be read back, and its stored form: what cannot be read back is not stored."""
        try:
            stored = codec.encode(value)
            return codec.decode(stored), stored
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

    def _checkpoint(
        self, name: str, index: int, started_at: EpochMs, *, output: str | bytes | None = None, error: str | None = None
    ) -> Checkpoint:
        return Checkpoint(
            name=name,
            step_index=index,
            output=output,
            error=error,
            progress=self.take_progress(),
            started_at=started_at,
            now=self._services.clock.now(),
        )

    def _require(self, written: bool) -> None:
        if not written:
            self.lost = True
            raise LeaseLostError(self.run_id)

    def _note_progress(self, progress: Progress) -> None:
        self._unsaved_progress = json.dumps(asdict(progress))
        self._emit(RunProgressed, progress=progress)
        if self._flush is None or self._flush.done():
            self._flush = asyncio.ensure_future(self._flush_progress())

    async def _flush_progress(self) -> None:
        while self._unsaved_progress is not None:
            await self._services.clock.sleep(PROGRESS_FLUSH_SECONDS)
            if (unsaved := self.take_progress()) is not None:
                await self._services.store.put_progress(self._claim, unsaved, self._services.clock.now())

    def _write_log(self, level: str, message: str, data: Any) -> None:
        step_name = next(reversed(self._running), None)
        self._on_loop(lambda: self._emit(LogWritten, level=level, message=message, data=data, step_name=step_name))

    def _emit(self, kind: type[Event], **facts: Any) -> None:
        self._services.bus.emit(kind, **self._facts, **facts)

    def _on_loop(self, action: Callable[[], None]) -> None:
        """Plain steps run in threads; events belong to the loop."""
        if threading.get_ident() == self._thread:
            action()
        else:
            self._loop.call_soon_threadsafe(action)


class UserTransaction:
    """What the function of `step.transaction` is given."""

    def __init__(self, tx: Transaction) -> None:
        self.execute = tx.execute


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    if is_async or not HAS_THREADS:
        value = fn(*args, **kwargs)
    else:
        value = await asyncio.to_thread(_without_stop_iteration, fn, args, kwargs)
    return await value if inspect.isawaitable(value) else value


def _without_stop_iteration(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A future refuses `StopIteration`, and whoever awaited it would wait for ever."""
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("the step raised StopIteration") from error
