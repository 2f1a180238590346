"""Ids: ULIDs that sort by the order in which they were made.

A ULID (github.com/ulid/spec) is 48 bits of milliseconds and 80 random bits, written as 26 letters of
Crockford's base 32. Two made in one millisecond, or while the clock runs backwards, still sort in
order: the random part of the last one is counted up. This module alone draws randomness.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from uuid import UUID

from .clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


class Ids:
    """Makes ids. `entropy(bits)` returns a random integer of that many bits; tests pass a counting one."""

    def __init__(self, clock: Clock, entropy: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0

    def draw_from(self, entropy: Callable[[int], int]) -> None:
        """Begin anew with another entropy."""
        self._entropy = entropy
        self._last = 0

    def random(self) -> float:
        """A random number, at least 0 and less than 1."""
        return self._entropy(53) / 2**53

    def uuid(self) -> UUID:
        """A random UUID, version 4."""
        return UUID(int=self._entropy(128), version=4)

    def new(self) -> str:
        """A new ULID, greater than every one made here before."""
        fresh = (self._clock.now() << _RANDOM_BITS) | self._entropy(_RANDOM_BITS)
        same_or_past = fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS
        self._last = self._last + 1 if same_or_past else fresh
        return "".join(_ALPHABET[(self._last >> shift) & 31] for shift in range(125, -1, -5))
