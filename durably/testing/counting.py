"""Ids that are the same in every run of a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..clock import Clock
from ..ids import Ids


def counting_entropy(start: int = 1) -> Callable[[int], int]:
    """An entropy that counts: `start`, `start + 1`, ... instead of random numbers, cut to the bits asked for."""
    numbers = itertools.count(start)
    return lambda bits: next(numbers) % (1 << bits)


def counting_ids(clock: Clock, start: int = 1) -> Ids:
    """`Ids` over `counting_entropy`: with a `ManualClock` every id of a test is known beforehand."""
    return Ids(clock, counting_entropy(start))
