"""Ids that are the same in every run of a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..engine import Durably


def counting_entropy(start: int = 1) -> Callable[[int], int]:
    """An entropy that counts: `start`, `start + 1`, ... instead of random numbers, cut to the bits asked for."""
    numbers = itertools.count(start)
    return lambda bits: next(numbers) % (1 << bits)


def counting_ids(start: int = 1) -> CountingIds:
    """A plugin that draws from `counting_entropy(start)`: `durably.use(counting_ids())`, before anything else.

    With a `ManualClock` every id of a test, every `step.random()` and `step.uuid()` and the jitter of every retry are
    known beforehand.
    """
    return CountingIds(start)


class CountingIds:
    """See `counting_ids`."""

    name = "counting-ids"

    def __init__(self, start: int) -> None:
        self._start = start

    def install(self, durably: Durably) -> None:
        """Let the instance count instead of drawing at random."""
        durably.ids.draw_from(counting_entropy(self._start))
