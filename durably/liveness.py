"""Liveness: how workers show that they live, and who is known to be dead.

Two signs exist. A *heartbeat* is a time in the store; when it is older than the stale threshold the run is
taken over, wherever durably runs. A *sign of life* is better: something that ends with the process by
itself, such as a Web Lock, so that a death is known at once. This module is the port to it; on CPython
there is none, and the browser's is `durably.browser.locks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from .clock import EpochMs


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

    def executes(self, run_ids: Collection[str]) -> None:
        """From now on these runs are executed here, and no others: whoever may end this process is told."""
        ...

    def note_alive(self, worker_id: str) -> None:
        """A sign of life of another worker has come by another way than the store."""
        ...

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        """Those of `worker_ids` that certainly live no more."""
        ...

    async def left(self, worker_ids: Collection[str]) -> set[str]:
        """Those of these dead that took their leave, or may have: their end is not blamed on what they executed."""
        ...

    def suspended(self, heartbeats: Mapping[str, EpochMs], seconds: float) -> set[str]:
        """Those that are not dead and yet have shown no sign for `seconds` in which we were awake ourselves.

        `heartbeats` are the latest in the store. Called often: silence is measured from call to call.
        """
        ...

    def watch(self, worker_ids: Collection[str], on_death: Callable[[], None]) -> None:
        """Call `on_death` the moment one of these dies, and of no others from now on."""
        ...


class HeartbeatOnly:
    """No sign of life beside the heartbeat: nobody is ever known to be dead."""

    sees_death = False

    async def hold(self, worker_id: str) -> None:
        """Nothing to show."""

    async def release(self, worker_id: str) -> None:
        """Nothing to take back."""

    def executes(self, run_ids: Collection[str]) -> None:
        """Nobody to tell."""

    def note_alive(self, worker_id: str) -> None:
        """Only the store's heartbeats count."""

    async def dead(self, worker_ids: Collection[str]) -> set[str]:
        return set()

    async def left(self, worker_ids: Collection[str]) -> set[str]:
        return set()

    def suspended(self, heartbeats: Mapping[str, EpochMs], seconds: float) -> set[str]:
        return set()

    def watch(self, worker_ids: Collection[str], on_death: Callable[[], None]) -> None:
        """No death is seen."""


class Silence:
    """How long each of some workers has been silent, in time in which we were awake.

    Wall clocks jump and a laptop sleeps; so nothing is compared with a time that somebody else wrote down. A
    worker is silent while neither its heartbeat in the store changes nor another sign of it comes.
    """

    LONGEST_STEP_SECONDS = 1.0
    """More than this between two calls means that we slept or were blocked ourselves, and could hear nobody."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` gives seconds that never go back."""
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._silent: dict[str, float] = {}
        self._heartbeats: dict[str, EpochMs] = {}

    def note_alive(self, worker_id: str) -> None:
        """This worker gave a sign."""
        self._silent.pop(worker_id, None)

    def longer_than(self, heartbeats: Mapping[str, EpochMs], seconds: float) -> set[str]:
        """Those of these workers, with their latest heartbeats, that are silent for `seconds`."""
        now = self._monotonic()
        passed = min(now - self._looked_at, self.LONGEST_STEP_SECONDS)
        self._looked_at = now
        self._silent = {
            worker_id: self._silent.get(worker_id, -passed) + passed
            if self._heartbeats.get(worker_id) == heartbeat
            else 0.0
            for worker_id, heartbeat in heartbeats.items()
        }
        self._heartbeats = dict(heartbeats)
        return {worker_id for worker_id, silent in self._silent.items() if silent >= seconds}
