"""What the command shows of runs: the list, one run with its steps and logs, and the line that follows a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from ..records import Log, Progress, Run, Step
from ..texts import ELLIPSIS, counted, fraction, printable, progress_words, span
from .terminal import BLUE, BOLD, DIM, GREEN, RED, YELLOW, Piece, Styled, Terminal, cells, clipped, padded, text_of

STYLES = {"completed": GREEN, "failed": RED, "cancelled": YELLOW, "running": BLUE, "pending": DIM, "waiting": DIM}
LEVEL_STYLES = {"error": RED, "warning": YELLOW}

GAP = "  "
BAR_CELLS = 20
SHORT_BAR_CELLS = 8
STEP_BAR_CELLS = 24
NAMES_CELLS = 40
"""A step's or job's name takes at most so many, and no more than a quarter of the line, where others are beside it."""

FACT_CELLS = 12
"""The names of what is said of a run, and a gap."""

LONGEST_VALUE = 2_000
"""Characters of a payload, an output or an error."""

NARROWEST_NOTES = 12

Row = list[Piece]


def show_list(terminal: Terminal, runs: Sequence[Run[Any]], now: datetime) -> None:
    """A line for each run. Columns that do not fit are left out, the least important first."""
    titles = ["run", "status", "job", "progress", "steps", "triggered", "notes"]
    rows: list[Row] = [[Styled(title.upper(), BOLD) for title in titles]]
    rows += [_list_row(terminal, run, now) for run in runs]
    widths = [max(_width(row[index]) for row in rows) for index in range(len(titles))]
    shown = list(range(len(titles)))
    notes = len(titles) - 1
    for column in (4, 5, notes, 3, 2):
        fixed = sum(widths[index] + len(GAP) for index in shown if index != notes)
        needed = fixed + (min(widths[notes], NARROWEST_NOTES) if notes in shown else -len(GAP))
        if needed < terminal.width:
            break
        shown.remove(column)
    for row in rows:
        _say_row(terminal, [row[index] for index in shown], [widths[index] for index in shown])


def _list_row(terminal: Terminal, run: Run[Any], now: datetime) -> Row:
    progress = ""
    if run.progress is not None:
        done = fraction(run.progress)
        bar = "" if done is None else "".join(text_of(half) for half in terminal.bar(done, SHORT_BAR_CELLS)) + " "
        progress = bar + progress_words(run.progress)
    notes = [f"{key}={value}" for key, value in run.labels.items()]
    if run.waiting_for is not None:
        notes.append(f"waits for {run.waiting_for}")
    if run.error is not None:
        notes.append(run.error.strip().split("\n")[0])
    elif run.progress is not None and run.progress.message:
        notes.append(str(run.progress.message))
    return [
        run.id,
        _status(run.status),
        clipped(printable(run.job_name), _names_width(terminal)),
        progress,
        str(run.completed_step_count),
        f"{span((now - run.created_at).total_seconds())} ago",
        Styled(GAP.join(notes), RED if run.error is not None else ""),
    ]


def show_run(terminal: Terminal, run: Run[Any], steps: Sequence[Step], logs: Sequence[Log], now: datetime) -> None:
    """All of a run."""
    terminal.say(Styled(run.id, BOLD), GAP, _status(run.status), GAP, run.job_name)
    for name, value in _facts(run, now):
        _say_fact(terminal, name, value)
    if run.progress is not None:
        terminal.say(GAP, Styled(f"{'progress':<{FACT_CELLS}}", DIM), *_progress(terminal, run.progress))
    _say_fact(terminal, "payload", _value(run.payload))
    show_outcome(terminal, run)
    if steps:
        terminal.say()
        terminal.say(Styled("Steps", BOLD))
        for row in _step_rows(terminal, steps, now):
            terminal.say(*row)
    if logs:
        terminal.say()
        terminal.say(Styled("Logs", BOLD))
        for line in logs:
            terminal.say(GAP, *_log_line(line))


def show_outcome(terminal: Terminal, run: Run[Any]) -> None:
    """What a run has come to, if it has ended."""
    if run.output is not None:
        _say_fact(terminal, "output", _value(run.output))
    if run.error is not None:
        _say_fact(terminal, "error", _cut(run.error), RED)


def run_line(terminal: Terminal, run: Run[Any]) -> Row:
    """How far a run is, in one line."""
    line: Row = [_status(run.status)]
    if run.progress is not None:
        line += [GAP, *_progress(terminal, run.progress)]
    line += [GAP, counted(run.completed_step_count, "step")]
    if run.waiting_for is not None:
        line += [GAP, f"waits for {run.waiting_for}"]
    if run.is_terminal and run.started_at is not None and run.completed_at is not None:
        line += [GAP, f"after {span((run.completed_at - run.started_at).total_seconds())}"]
    return line


def _facts(run: Run[Any], now: datetime) -> Iterator[tuple[str, str]]:
    if run.labels:
        yield "labels", GAP.join(f"{key}={value}" for key, value in run.labels.items())
    yield "triggered", _moment(run.created_at, now)
    if run.started_at is not None:
        yield "started", _moment(run.started_at, now)
    if run.completed_at is not None:
        took = "" if run.started_at is None else f", after {span((run.completed_at - run.started_at).total_seconds())}"
        yield "ended", _moment(run.completed_at, now) + took
    elif run.waiting_for is not None:
        yield "waits for", run.waiting_for
    is_asleep = run.waiting_for is None or run.waiting_for.startswith("sleep:")
    if run.is_active and is_asleep and run.run_at > now:
        yield "not before", _moment(run.run_at, now)
    if run.worker_id is not None:
        heard = "" if run.heartbeat_at is None else f", last heard of {_ago(run.heartbeat_at, now)}"
        yield "worker", run.worker_id + heard
    if run.concurrency_key is not None:
        yield "key", run.concurrency_key


def _say_fact(terminal: Terminal, name: str, value: str, style: str = "") -> None:
    """A name and its value; what is too long goes on below."""
    if "\n" not in value and cells(printable(value)) < terminal.width - FACT_CELLS - len(GAP):
        terminal.say(GAP, Styled(f"{name:<{FACT_CELLS}}", DIM), Styled(value, style))
        return
    terminal.say(GAP, Styled(name, DIM))
    terminal.say_folded(GAP * 2, value, style)


def _step_rows(terminal: Terminal, steps: Sequence[Step], now: datetime) -> Iterator[Row]:
    names = min(max(cells(printable(step.name)) for step in steps), _names_width(terminal))
    seconds = [((step.completed_at or now) - step.started_at).total_seconds() for step in steps]
    longest = max(*seconds, 0.001)
    for step, took in zip(steps, seconds, strict=True):
        style = STYLES.get(step.status, "")
        length = min(max(round(took / longest * STEP_BAR_CELLS), 1), STEP_BAR_CELLS)
        row: Row = [GAP, padded(clipped(printable(step.name), names), names), GAP]
        row += [padded(_status(step.status), 9), GAP, f"{span(took):>12}", GAP, terminal.stroke(length, style)]
        if step.attempt > 1:
            row.append(f"{GAP}attempt {step.attempt}")
        yield row
        if step.error is not None:
            yield [GAP * 2, Styled(step.error, RED)]


def _log_line(line: Log) -> Row:
    row: Row = [Styled(f"{_local(line.created_at):%H:%M:%S}", DIM), GAP]
    row += [Styled(f"{line.level:<7}", LEVEL_STYLES.get(line.level, "")), GAP]
    if line.step_name is not None:
        row += [Styled(line.step_name, DIM), GAP]
    row.append(line.message)
    if line.data is not None:
        row += [GAP, Styled(_value(line.data), DIM)]
    return row


def _progress(terminal: Terminal, progress: Progress) -> Row:
    done = fraction(progress)
    row: Row = [] if done is None else [*terminal.bar(done, BAR_CELLS), GAP]
    row.append(progress_words(progress))
    return [*row, GAP, str(progress.message)] if progress.message else row


def _say_row(terminal: Terminal, row: Row, widths: Sequence[int]) -> None:
    pieces: Row = []
    for piece, width in zip(row[:-1], widths, strict=False):
        pieces += [padded(piece, width), GAP]
    terminal.say(*pieces, row[-1])


def _names_width(terminal: Terminal) -> int:
    return min(NAMES_CELLS, max(terminal.width // 4, 1))


def _width(piece: Piece) -> int:
    return cells(printable(text_of(piece)))


def _status(status: str) -> Styled:
    return Styled(str(status), STYLES.get(status, ""))


def _value(value: Any) -> str:
    return _cut(json.dumps(json.loads(to_json(value, fallback=repr, inf_nan_mode="strings")), ensure_ascii=False))


def _cut(text: str) -> str:
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}{ELLIPSIS} ({len(text):,} characters; --json shows them all)"


def _moment(moment: datetime, now: datetime) -> str:
    shown = f"{_local(moment):%Y-%m-%d %H:%M:%S %z}"
    if moment > now:
        return f"{shown} (in {span((moment - now).total_seconds())})"
    return f"{shown} ({_ago(moment, now)})"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{span((now - moment).total_seconds())} ago"


def _local(moment: datetime) -> datetime:
    try:
        return moment.astimezone()
    except (OverflowError, OSError):  # the end of time is in UTC, and east of it there is none
        return moment
