"""A clock that only moves when told.

(The idea of a clock that tests own is trio's.)
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

from ..clock import EpochMs, from_datetime, to_seconds

_SETTLING_TURNS = 20
"""Turns of the event loop that whoever was woken gets before time moves on."""


class ManualClock:
    """A clock for `create_durably(clock=)` whose time stands still between calls of `advance`.

    `start`: an aware datetime. Raises `ValueError` for a naive one.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = from_datetime(start)
        self._sleepers: list[tuple[EpochMs, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> EpochMs:
        """The present instant, in whole milliseconds since 1970."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved time this far; at once for 0."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (EpochMs(self._now + round(seconds * 1000)), next(self._order), woken))
        await woken

    async def advance(self, span: float | timedelta) -> None:
        """Let `span` (seconds) go by: everyone whose time comes is woken, in the order of their times.

        Raises `ValueError` for a negative span; time never goes back.
        """
        if to_seconds(span) < 0:
            raise ValueError(f"time does not go back: {span}")
        end = EpochMs(self._now + round(to_seconds(span) * 1000))
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self._settle()
        self._now = end

    async def _settle(self) -> None:
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
