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
from dataclasses import asdict, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from . import codec
from .clock import Clock, EpochMs
from .database import Transaction
from .errors import DuplicateStepError, DurablyError, LeaseLostError, StepOutputError, describe
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


@dataclass(frozen=True, slots=True)
class Services:
    """What an execution works with."""

    store: Store
    bus: EventBus
    clock: Clock


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
        self.failure: tuple[BaseException, str] | None = None
        """The latest error that a step raised, and the step's name."""
        self.lost = False
        """Set when the run has gone to another worker; the next step raises `LeaseLostError`."""
        self._services = services
        self._claim = Claim(run_id=run.id, generation=run.generation)
        self._completed = completed
        self._used: set[str] = set()
        self._running: list[str] = []
        self._in_transaction: asyncio.Task[Any] | None = None
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

        async def attempt(started_at: EpochMs) -> str | bytes:
            stored = self._encoded(name, await _call(fn, args, kwargs))
            checkpoint = self._checkpoint(name, index, started_at, output=stored)
            self._require(await self._services.store.put_step(self._claim, checkpoint))
            return stored

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

        async def attempt(started_at: EpochMs) -> str | bytes:
            async with self._services.store.database.transaction() as tx:
                self._in_transaction = asyncio.current_task()
                try:
                    value = fn(UserTransaction(tx), *args, **kwargs)
                    stored = self._encoded(name, await value if inspect.isawaitable(value) else value)
                finally:
                    self._in_transaction = None
                checkpoint = self._checkpoint(name, index, started_at, output=stored)
                self._require(await put_step_in(tx, self._claim, checkpoint))
            return stored

        return await self._execute(name, index, attempt)

    # -- signals ---------------------------------------------------------------------------------------

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Listeners hear it at once; the store within a tenth of a second."""
        self._on_loop(lambda: self._note_progress(Progress(current, total, message)))

    # -- for execution ---------------------------------------------------------------------------------

    def take_progress(self) -> str | None:
        """The progress that is not stored yet, for the caller to store."""
        unsaved, self._unsaved_progress = self._unsaved_progress, None
        return unsaved

    async def close(self) -> None:
        """End what still runs in the background."""
        if self._flush is not None:
            self._flush.cancel()
            await asyncio.gather(self._flush, return_exceptions=True)

    # -- inside ----------------------------------------------------------------------------------------

    def _enter(self, name: str) -> int:
        if self._in_transaction is not None and self._in_transaction is asyncio.current_task():
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

    async def _execute(self, name: str, index: int, attempt: Callable[[EpochMs], Awaitable[str | bytes]]) -> Any:
        """Call a step for the first time: its events, its checkpoint, its failure."""
        started_at = self._services.clock.now()
        facts = {"step_name": name, "step_index": index}
        self._emit(StepStarted, **facts)
        self._running.append(name)
        try:
            stored = await attempt(started_at)
        except asyncio.CancelledError:
            self._emit(StepCancelled, **facts)
            raise
        except Exception as error:
            self.failure = (error, name)
            text = describe(error)
            checkpoint = self._checkpoint(name, index, started_at, error=text)
            self._require(await self._services.store.put_step(self._claim, checkpoint))
            self._emit(StepFailed, **facts, error=text)
            raise
        finally:
            self._running.remove(name)
        value = self._decoded(name, stored)
        duration = (self._services.clock.now() - started_at) / 1000
        self._emit(StepCompleted, **facts, output=value, duration=duration)
        return value

    def _replayed(self, name: str) -> Any:
        output = self._completed[name].output
        assert output is not None, "a completed step has an output"
        return self._decoded(name, output)

    def _checkpoint(
        self,
        name: str,
        index: int,
        started_at: EpochMs,
        *,
        output: str | bytes | None = None,
        error: str | None = None,
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

    def _encoded(self, name: str, value: Any) -> str | bytes:
        try:
            return codec.encode(value)
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

    def _decoded(self, name: str, stored: str | bytes) -> Any:
        try:
            return codec.decode(stored)
        except codec.CodecError as error:
            raise StepOutputError(name, error.path, error.reason) from error

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
        await self._services.clock.sleep(PROGRESS_FLUSH_SECONDS)
        unsaved = self.take_progress()
        if unsaved is not None:
            await self._services.store.put_progress(self._claim, unsaved, self._services.clock.now())

    def _write_log(self, level: str, message: str, data: Any) -> None:
        step_name = self._running[-1] if self._running else None
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
        value = await asyncio.to_thread(fn, *args, **kwargs)
    return await value if inspect.isawaitable(value) else value
