"""What has been measured: lists of numbers by name, in the order of their rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Samples:
    """`add` what a round has measured; equal positions of two lists were measured side by side."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    facts: dict[str, Any] = field(default_factory=dict)
    """What was found out about what was measured: versions, settings."""

    def add(self, name: str, *values: float) -> None:
        self.values[name].extend(values)

    def median(self, name: str) -> float:
        return median(self.values[name])


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most, and how many."""
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}
