"""Words for people: texts, numbers and spans in the form in which a terminal, a notebook or a `repr` shows them.

Pure functions, which take whatever a user has stored and never raise. What they return is one line of characters that
can be seen: control characters, and those that turn the direction of writing, are shown as their escapes, so that a
stored text can neither break a layout nor command a terminal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import Progress, Run

ELLIPSIS = "…"

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_COARSE_FROM_SECONDS = 60


def printable(text: str) -> str:
    """The text with everything that cannot be seen written as its escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning with an ellipsis: at most `limit` characters."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + ELLIPSIS


def short_repr(value: object, limit: int) -> str:
    """The value's `repr` in one line of at most `limit` characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a class whose repr fails must not hide the run that it is in
        text = f"<{type(value).__name__}>"
    return shortened(printable(shortened(text, limit)), limit)


def number(value: Any) -> str:
    """A number without decimals that say nothing."""
    if not isinstance(value, float):
        return printable(str(value))
    return str(int(value)) if value.is_integer() else f"{value:.2f}"


def counted(count: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def span(seconds: float) -> str:
    """A span in two units at most: `12 ms`, `3.4 s`, `2 min 5 s`, `3 d 1 h`."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < _COARSE_FROM_SECONDS:
        return f"{seconds:.1f} s"
    left = int(seconds)
    largest = next(index for index, (_, size) in enumerate(_UNITS) if left >= size)
    words = []
    for unit, size in _UNITS[largest : largest + 2]:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words)


def fraction(progress: Progress) -> float | None:
    """How much of the whole is done, from 0 to 1; `None` where no whole is known."""
    parts = (progress.current, progress.total)
    if not all(isinstance(part, int | float) and math.isfinite(part) for part in parts):
        return None
    current, total = float(progress.current), float(progress.total or 0)
    return min(max(current / total, 0.0), 1.0) if total > 0 else None


def progress_words(progress: Progress) -> str:
    """`3 of 10`, or only `3` where the total is not known."""
    if progress.total is None:
        return number(progress.current)
    return f"{number(progress.current)} of {number(progress.total)}"


def run_words(run: Run[Any]) -> str:
    """A run in one line: which it is, of which job, and how far it is."""
    words = [str(run.status)]
    if run.waiting_for is not None:
        words.append(f"waits for {printable(run.waiting_for)}")
    if run.progress is not None:
        said = f" ({shortened(printable(str(run.progress.message)), 60)})" if run.progress.message else ""
        words.append(progress_words(run.progress) + said)
    words.append(counted(run.completed_step_count, "step"))
    return f"{run.id} {printable(run.job_name)}: {', '.join(words)}"
