"""A run as a card of HTML, for notebooks: what `Run._repr_html_` gives.

The card stands alone: no script, no link, its few style rules inside it. Without them, where a notebook is not
trusted, it still reads as a title and a table. It follows the reader's choice of light or dark. Everything that comes
from a user is escaped. A `Run` is a snapshot that holds no steps, so the card counts them; `get_steps` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from .texts import counted, fraction, printable, progress_words, short_repr, shortened, span

if TYPE_CHECKING:
    from .records import Progress, Run

LONGEST_VALUE = 400
"""Characters of a payload, an output or an error."""

LONGEST_LABEL = 80

STYLE = """
.durably-run { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --paper: #ffffff;
  --tone: #59636e; box-sizing: border-box; max-width: 44rem; margin: .25rem 0; padding: .6rem .9rem; color: var(--ink);
  background: var(--paper); border: 1px solid var(--line); border-left: .3rem solid var(--tone); border-radius: .4rem;
  font: 13px/1.5 system-ui, sans-serif; }
.durably-run[data-status=running] { --tone: #0550ae }
.durably-run[data-status=completed] { --tone: #116329 }
.durably-run[data-status=failed] { --tone: #a40e26 }
.durably-run[data-status=cancelled] { --tone: #7d4e00 }
@media (prefers-color-scheme: dark) {
  .durably-run { --ink: #e6edf3; --soft: #9aa4ae; --line: #3d444d; --paper: #151b23; --tone: #9aa4ae }
  .durably-run[data-status=running] { --tone: #79b8ff }
  .durably-run[data-status=completed] { --tone: #56d364 }
  .durably-run[data-status=failed] { --tone: #ff8f86 }
  .durably-run[data-status=cancelled] { --tone: #e3b341 }
}
.durably-run .durably-status { color: var(--tone) }
.durably-run .durably-id, .durably-run th { color: var(--soft); font-weight: normal }
.durably-run table { border: 0; border-collapse: collapse; margin: .3rem 0 0; background: none }
.durably-run table { color: inherit; font: inherit }
.durably-run tr { background: none }
.durably-run th, .durably-run td { border: 0; padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top }
.durably-run code { color: inherit; background: none; padding: 0; overflow-wrap: anywhere; white-space: pre-wrap }
.durably-run progress { width: 12rem; max-width: 100%; accent-color: var(--tone); vertical-align: middle }
"""


def run_card(run: Run[Any]) -> str:
    """The card."""
    status = escape(str(run.status))
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{cell}</td></tr>' for name, cell in _rows(run))
    return (
        f'<div class="durably-run" data-status="{status}"><style>{STYLE}</style>'
        f'<div><strong>{_text(run.job_name)}</strong> <strong class="durably-status">{status}</strong> '
        f'<code class="durably-id">{_text(run.id)}</code></div>'
        f"<table>{rows}</table></div>"
    )


def _rows(run: Run[Any]) -> Iterator[tuple[str, str]]:
    """Names and cells; the cells are HTML."""
    if run.progress is not None:
        yield "progress", _progress(run.progress)
    if run.waiting_for is not None:
        yield "waits for", _code(run.waiting_for)
    yield "steps", f"{counted(run.completed_step_count, 'step')} completed"
    if run.labels:
        yield "labels", " ".join(_code(f"{key}={value}", LONGEST_LABEL) for key, value in run.labels.items())
    yield "time", _time(run)
    yield "payload", _value(run.payload)
    if run.output is not None:
        yield "output", _value(run.output)
    if run.error is not None:
        yield "error", "<br>".join(_code(line) for line in shortened(run.error, LONGEST_VALUE).splitlines())


def _progress(progress: Progress) -> str:
    words = _text(progress_words(progress))
    said = f" {_text(shortened(str(progress.message), LONGEST_VALUE))}" if progress.message else ""
    done = fraction(progress)
    bar = "" if done is None else f'<progress value="{done:.4f}" max="1" aria-label="{words}"></progress> '
    return f"{bar}{words}{said}"


def _time(run: Run[Any]) -> str:
    if run.started_at is None:
        return f"triggered {_moment(run.created_at)}"
    if run.completed_at is None:
        return f"started {_moment(run.started_at)}"
    took = span((run.completed_at - run.started_at).total_seconds())
    return f"started {_moment(run.started_at)}, ended after {took}"


def _moment(moment: datetime) -> str:
    return escape(f"{moment:%Y-%m-%d %H:%M:%S} UTC")


def _value(value: object) -> str:
    return f"<code>{escape(short_repr(value, LONGEST_VALUE))}</code>"


def _code(text: str, limit: int = LONGEST_VALUE) -> str:
    return f"<code>{_text(shortened(text, limit))}</code>"


def _text(text: str) -> str:
    return escape(printable(text))
