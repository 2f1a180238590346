"""Signs of life by Web Locks: the browser frees a lock the moment its holder dies.

Each worker holds a lock named after itself while it has work. One whose lock is not held is dead, however fresh
its last heartbeat, so its runs are taken over at once: others wait for the lock, and are granted it at its death.
(The idea of telling life and death by locks is wa-sqlite's and PGlite's.)

A lock says nothing of a tab that the system has suspended. For that each worker has a *pulse*, a tiny worker of its
own that says "alive" to the other tabs whatever Python does; who is silent there and in the store is suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from js import AbortController, Object, Promise, navigator  # noqa: TID251 - this module's purpose
from pyodide.ffi import JsException, create_once_callable, to_js  # noqa: TID251 - as above

from ..clock import EpochMs
from ..databases.bridge import bridge
from ..liveness import Silence
from ..neighbours import message
from . import interrupts, page
from .channel import channel_name

PREFIX = "durably:worker:"
PULSE_SECONDS = 0.5


class WebLocks:
    """`Liveness` in a browser, for the tabs of one database."""

    sees_death = True

    def __init__(self, database_name: str) -> None:
        self._channel_name = channel_name(database_name)
        self._releases: dict[str, Callable[[], None]] = {}
        self._watches: dict[str, Any] = {}
        self._silence = Silence(time.monotonic)
        self._bridge: Any = None

    async def hold(self, worker_id: str) -> None:
        def keep(resolve: Callable[[], None], _reject: object) -> None:
            self._releases[worker_id] = resolve

        released = Promise.new(create_once_callable(keep))

        def wait_for_grant(resolve: Callable[[], None], reject: Callable[[object], None]) -> None:
            def granted(_lock: object) -> object:
                resolve()
                return released

            # Once it is granted a rejection says no more than that this worker is being ended.
            navigator.locks.request(PREFIX + worker_id, create_once_callable(granted)).then(lambda _: None, reject)

        await Promise.new(create_once_callable(wait_for_grant))
        # A step may block this worker from its first moment on: by then the pulse must beat.
        text = message(worker_id, "alive", worker=worker_id)
        self._bridge = await bridge()
        await self._bridge.startPulse(self._channel_name, text, PULSE_SECONDS * 1000)

    async def release(self, worker_id: str) -> None:
        self._bridge.stopPulse()
        self._releases.pop(worker_id)()

    def executes(self, run_ids: Collection[str]) -> None:
        if interrupts.of_this_worker is not None:
            interrupts.of_this_worker.executes(run_ids)
        if page.of_this_worker is not None:
            page.of_this_worker.executes(run_ids)

    def note_alive(self, worker_id: str) -> None:
        self._silence.note_alive(worker_id)

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        # Whose lock is waited for has it.
        unknown = set(worker_ids) - self._watches.keys()
        if not unknown:
            return set()
        state = await navigator.locks.query()
        # Those who wait for a death are granted the lock as sharers, for a moment.
        held = {lock.name for lock in state.held if lock.mode == "exclusive"}
        return {worker_id for worker_id in unknown if PREFIX + worker_id not in held}

    async def left(self, worker_ids: Collection[str]) -> set[str]:
        # Where no page answers for its workers, a person may have closed the tab: nothing is blamed on the run.
        return set(worker_ids) if page.of_this_worker is None else await page.of_this_worker.left(worker_ids)

    def suspended(self, heartbeats: Mapping[str, EpochMs], seconds: float) -> set[str]:
        return self._silence.longer_than(heartbeats, seconds)

    def watch(self, worker_ids: Collection[str], on_death: Callable[[], None]) -> None:
        for worker_id in self._watches.keys() - set(worker_ids):
            self._watches.pop(worker_id).abort()
        for worker_id in set(worker_ids) - self._watches.keys():
            self._watches[worker_id] = self._wait_for(worker_id, on_death)

    def _wait_for(self, worker_id: str, on_death: Callable[[], None]) -> Any:
        """Ask for the lock of a worker, which is granted when that dies. Returns the way to ask no more."""
        controller = AbortController.new()

        def granted(_lock: object) -> None:
            if self._watches.get(worker_id) is controller:
                del self._watches[worker_id]
            on_death()

        options = to_js({"mode": "shared", "signal": controller.signal}, dict_converter=Object.fromEntries)
        on_grant = create_once_callable(granted)

        def ended(error: JsException | None) -> None:
            if error is not None:
                on_grant.destroy()  # it was never called

        request = navigator.locks.request(PREFIX + worker_id, options, on_grant)
        request.then(lambda _: None, ended)
        return controller
