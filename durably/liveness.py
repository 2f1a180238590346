"""Liveness: how workers show that they live, and who is known to be dead.

Two signs exist. A *heartbeat* is a time in the store; when it is older than the stale threshold the run is
taken over, wherever durably runs. A *sign of life* is better: something that ends with the process by
itself, such as a Web Lock, so that a death is known at once. This module is the port to it; on CPython
there is none, and the browser's is `durably.browser.locks`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Liveness(Protocol):
    """A sign of life that the system takes back when its holder dies."""

    sees_death: bool
    """Whether a death is always seen: then a worker whose heartbeat is late is merely busy, and keeps its runs."""

    async def hold(self, worker_id: str) -> None:
        """Show that this worker lives. Returns when the others can see it."""
        ...

    async def release(self, worker_id: str) -> None:
        """Stop showing it."""
        ...

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        """Those of `worker_ids` that certainly live no more."""
        ...


class HeartbeatOnly:
    """No sign of life beside the heartbeat: nobody is ever known to be dead."""

    sees_death = False

    async def hold(self, worker_id: str) -> None:
        """Nothing to show."""

    async def release(self, worker_id: str) -> None:
        """Nothing to take back."""

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        return set()
