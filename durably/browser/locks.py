"""Signs of life by Web Locks: the browser frees a lock the moment its holder dies.

Each worker holds a lock named after itself. One whose lock is not held is dead, however fresh its last
heartbeat, so its runs are taken over at once. (The idea of telling life and death by locks is wa-sqlite's
and PGlite's.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from js import Promise, navigator  # noqa: TID251 - this module's purpose
from pyodide.ffi import create_once_callable  # noqa: TID251

PREFIX = "durably:worker:"


class WebLocks:
    """`Liveness` in a browser."""

    sees_death = True

    def __init__(self) -> None:
        self._releases: dict[str, Callable[[], None]] = {}

    async def hold(self, worker_id: str) -> None:
        def keep(resolve: Callable[[], None], _reject: object) -> None:
            self._releases[worker_id] = resolve

        released = Promise.new(create_once_callable(keep))

        def wait_for_grant(resolve: Callable[[], None], _reject: object) -> None:
            def granted(_lock: object) -> object:
                resolve()
                return released

            navigator.locks.request(PREFIX + worker_id, create_once_callable(granted))

        await Promise.new(create_once_callable(wait_for_grant))

    async def release(self, worker_id: str) -> None:
        self._releases.pop(worker_id)()

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        if not worker_ids:
            return set()
        state = await navigator.locks.query()
        held = {lock.name for lock in state.held}
        return {worker_id for worker_id in worker_ids if PREFIX + worker_id not in held}
