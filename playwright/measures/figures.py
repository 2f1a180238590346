"""The figures of the table: what is compared with what, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from .samples import Samples, summary

Check = Callable[[float], bool]


@dataclass(frozen=True)
class Figure:
    """A row: `name` is what `--only` takes; `ours` and `other` name samples."""

    name: str
    title: str
    unit: str
    ours: str
    reach: str = "stated"
    """In words, as the table shows it."""
    holds: Check | None = None
    """Whether the ratio (where there is nothing to compare with, or `is_difference`: the value) is within reach."""
    other: str = ""
    versus: str = ""
    """What `other` is."""
    is_difference: bool = False
    """Whether ours less the other counts, not their ratio."""


@dataclass(frozen=True)
class Row:
    """A figure, measured."""

    figure: Figure
    ours: dict[str, float]
    other: dict[str, float] | None
    ratio: float | None
    holds: bool | None

    def as_json(self) -> dict[str, Any]:
        figure = self.figure
        return {
            "figure": figure.name,
            "title": figure.title,
            "unit": figure.unit,
            "ours": self.ours,
            "versus": figure.versus or None,
            "other": self.other,
            "difference" if figure.is_difference else "ratio": self.ratio,
            "reach": figure.reach,
            "reached": self.holds,
        }


def at_least(bound: float) -> Check:
    return lambda value: value >= bound


def at_most(bound: float) -> Check:
    return lambda value: value <= bound


FIGURES = (
    Figure("steps", "steps of one job", "/s", "steps.ours", ">= 50 x", at_least(50), "steps.peer", "peer"),
    Figure("steps", "steps of one job", "/s", "steps.ours", ">= 0.7 x", at_least(0.7), "steps.raw", "raw commits"),
    Figure("runs", "one-step runs, batched", "/s", "runs.ours", ">= 50 x", at_least(50), "runs.peer", "peer"),
    Figure("trigger", "trigger to first line", "ms", "trigger.ours", "<= 3 ms", at_most(3)),
    Figure("trigger", "trigger to first line", "ms", "trigger.ours", other="trigger.peer", versus="peer"),
    Figure("replay", "replay of a cached step", "us", "replay.ours", "<= 20 us", at_most(20)),
    Figure(
        "warm-boot",
        "warm boot",
        "ms",
        "warm-boot.ours",
        "<= 0.5 x",
        at_most(0.5),
        "warm-boot.bare",
        "bare worker, warm",
    ),
    Figure(
        "resume",
        "navigation to first new step",
        "ms",
        "resume.ours",
        "<= + 50 ms",
        at_most(50),
        "warm-boot.ours",
        "our warm boot",
        is_difference=True,
    ),
    Figure(
        "resume", "navigation to first new step", "ms", "resume.ours", "<= 0.4 x", at_most(0.4), "resume.peer", "peer"
    ),
    Figure(
        "first-visit",
        "first visit",
        "ms",
        "first-visit.ours",
        "<= 1.1 x",
        at_most(1.1),
        "first-visit.bare",
        "bare worker, first",
    ),
    Figure(
        "claim",
        "claim with 100,000 finished runs, CPython",
        "ms",
        "claim-cpython.full",
        "<= 1.2 x",
        at_most(1.2),
        "claim-cpython.empty",
        "empty file",
    ),
    Figure(
        "claim",
        "the same from trigger to first line, browser",
        "ms",
        "claim-browser.full",
        "<= 1.2 x",
        at_most(1.2),
        "claim-browser.empty",
        "empty file",
    ),
    Figure(
        "long",
        "10,000-step run: a step at the end",
        "us",
        "long.end",
        "<= 1.2 x",
        at_most(1.2),
        "long.start",
        "at the start",
    ),
    Figure(
        "long",
        "10,000-step run: the browser's memory at the end",
        "MB",
        "long.memory-end",
        "<= 1.02 x",
        at_most(1.02),
        "long.memory-start",
        "after 1,000 steps",
    ),
    Figure(
        "cpython",
        "CPython, steps of one job",
        "/s",
        "cpython.ours",
        ">= 0.6 x",
        at_least(0.6),
        "cpython.raw",
        "raw sqlite3 commits",
    ),
    Figure(
        "cpython",
        "CPython, steps of one job",
        "/s",
        "cpython.ours",
        ">= 7 x",
        at_least(7),
        "cpython.dbos",
        "DBOS Transact",
    ),
    Figure("size", "wheel", "kB", "size.wheel"),
    Figure("size", "loaded beyond Pyodide and pydantic, compressed", "kB", "size.page", "<= 1000 kB", at_most(1000)),
)
NAMES = tuple(dict.fromkeys(figure.name for figure in FIGURES))


def rows(samples: Samples, chosen: set[str]) -> list[Row]:
    return [row(figure, samples) for figure in FIGURES if figure.name in chosen]


def row(figure: Figure, samples: Samples) -> Row:
    """Where both were measured equally often, the ratio is the median of those of each round."""
    ours, other = samples.values[figure.ours], samples.values[figure.other] if figure.other else []
    ratio = None
    if other:
        pairs = zip(ours, other, strict=True) if len(ours) == len(other) else [(median(ours), median(other))]
        ratio = median([one - two if figure.is_difference else one / two for one, two in pairs])
    judged = median(ours) if ratio is None else ratio
    holds = None if figure.holds is None else figure.holds(judged)
    return Row(figure, summary(ours), summary(other) if other else None, ratio, holds)
