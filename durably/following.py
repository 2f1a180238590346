"""What a program does to hear of runs: listen to all, subscribe to one, wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

from .clock import finishes_within, to_seconds
from .errors import NotFoundError, RunCancelledError, RunFailedError
from .events import ErrorHandler, Event, Listener
from .jobs import Registry
from .neighbours import Neighbours
from .records import Run, RunStatus
from .rows import StoredRun
from .services import Services
from .subscription import Callback, Hearing, follow, hand_on
from .worker import Worker


class Following:
    """The ear of one instance."""

    _services: Services
    _registry: Registry
    _worker: Worker
    _neighbours: Neighbours
    _polling_interval: float

    async def wait_for_run(
        self,
        run_id: str,
        *,
        timeout: float | timedelta | None = None,
        on_progress: Callable[[Any], Any] | None = None,
        on_log: Callable[[Any], Any] | None = None,
    ) -> Run[Any]:
        """Wait until the run has completed, and return it.

        `on_progress(progress)` and `on_log(event)`, plain or async, are called on the way. Raises `RunFailedError`
        or `RunCancelledError` (both have the run), `NotFoundError`, and `TimeoutError` after `timeout` (seconds or a
        timedelta; default: none), upon which the run goes on.
        """
        with Hearing(run_id, self._services.bus, self._services.clock) as hearing:
            # It hears from now on; the task below begins a turn of the loop later.
            return await self._wait(hearing, None, timeout, on_progress, on_log)

    # -- events ----------------------------------------------------------------------------------------

    def on(self, event_type: str, listener: Listener, *, here_only: bool = False) -> Callable[[], None]:
        """Call `listener(event)`, plain or async, for each event of the type, or of any with `"*"`.

        In a browser events of other tabs are among them, unless `here_only`. Returns the way to stop it. Raises
        `ValueError` for a type that does not exist, `TypeError` for a listener that cannot be called.
        """
        return self._services.bus.on(event_type, listener, here_only=here_only)

    def on_error(self, handler: ErrorHandler) -> Callable[[], None]:
        """Call `handler(error)` or `handler(error, event)`, plain or async, with what a listener raised.

        Returns the way to stop it. Without a handler it is logged.
        """
        return self._services.bus.on_error(handler)

    def subscribe(self, run_id: str) -> AsyncGenerator[Event, None]:
        """The events of one run: its present state as events, then live, up to its end.

        No event of this instance in between is missed; of a run that another process or tab executes the store
        tells, once every polling interval. Raises `NotFoundError` when it is iterated.
        """
        return self._follow(run_id)

    # -- inside ----------------------------------------------------------------------------------------

    def _follow(
        self, run_id: str, hearing: Hearing | None = None, first: Run[Any] | None = None
    ) -> AsyncGenerator[Event, None]:
        return follow(
            run_id,
            hearing,
            first,
            bus=self._services.bus,
            clock=self._services.clock,
            find_run=self._run_and_failed_step,
            find_execution=lambda run: self._worker.execution_of(run.id, run.generation),
            may_hear_of_it=lambda: self._neighbours.are_known,
            polling_interval=self._polling_interval,
        )

    async def _wait(
        self, hearing: Hearing, first: Run[Any] | None, timeout: float | timedelta | None, *callbacks: Callback
    ) -> Run[Any]:
        ending: asyncio.Future[Run[Any]] = asyncio.ensure_future(self._ended(hearing, first, *callbacks))
        if timeout is None or await finishes_within(self._services.clock, ending, to_seconds(timeout)):
            run = await ending
        elif (run := self._registry.typed(await self._require(hearing.run_id))).is_active:  # it may not have been read
            raise TimeoutError(f"run {hearing.run_id} has not ended after {to_seconds(timeout)} s; it goes on")
        if run.status is RunStatus.FAILED:
            raise RunFailedError(run)
        if run.status is RunStatus.CANCELLED:
            raise RunCancelledError(run)
        return run

    async def _ended(self, hearing: Hearing, first: Run[Any] | None, *callbacks: Callback) -> Run[Any]:
        """The run once it has ended; a retry may have begun it again before it could be read."""
        while True:
            async for event in self._follow(hearing.run_id, hearing, first):
                await hand_on(event, *callbacks)
            run = self._registry.typed(await self._require(hearing.run_id))
            if run.is_terminal:
                return run
            first = None

    async def _run_and_failed_step(self, run_id: str) -> tuple[Run[Any], str | None]:
        stored = await self._require(run_id)
        return self._registry.typed(stored), stored.failed_step_name

    async def _require(self, run_id: str) -> StoredRun:
        stored = await self._services.outside.store.find_run(run_id)
        if stored is None:
            raise NotFoundError(f"there is no run {run_id}")
        return stored
