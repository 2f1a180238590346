"""What each verb does: a plain function of the command line's options and the terminal, which gives the exit code."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..clock import EpochMs, SystemClock, to_datetime
from ..http.wire import log_json, run_json, step_json
from ..records import Run, RunStatus
from ..texts import counted
from .opening import OpenFile, with_file
from .pictures import run_line, show_list, show_outcome, show_run
from .terminal import Terminal

DONE, REFUSED = 0, 1

USUAL_LIMIT = 50
"""Runs in a list for people; programs get all."""

FOLLOW_SECONDS = 0.2
"""How often a run that is followed is looked at."""

PURGE_AT_ONCE = 500
"""So many runs are deleted in one transaction: a worker waits no longer than for that."""


def list_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    limit = options.limit or (None if options.json else USUAL_LIMIT)

    async def read(file: OpenFile) -> list[Run[Any]]:
        return await file.durably.get_runs(
            status=options.status,
            job_name=options.job,
            labels=dict(options.label or ()),
            limit=None if limit is None else limit + 1,
        )

    found = with_file(options.file, read)
    runs = found if limit is None else found[:limit]
    if options.json:
        _say_json([run_json(run) for run in runs])
        return DONE
    if runs:
        show_list(terminal, runs, to_datetime(SystemClock().now()))
    else:
        terminal.say("There are no such runs.")
    if len(found) > len(runs):
        terminal.say(f"These are the newest {limit}; --limit shows more.")
    return DONE


def show_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    async def read(file: OpenFile) -> tuple[Run[Any], list[Any], list[Any]]:
        run = await file.find(options.run)
        return run, await file.steps(run.id), await file.durably.get_logs(run.id)

    run, steps, logs = with_file(options.file, read)
    if options.json:
        shown = {
            "run": run_json(run),
            "steps": [*map(step_json, steps)],
            "logs": [log_json(number, log) for number, log in enumerate(logs, 1)],
        }
        _say_json(shown)
    else:
        show_run(terminal, run, steps, logs, to_datetime(SystemClock().now()))
    return DONE


def follow_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    async def watch(file: OpenFile) -> Run[Any]:
        run = await file.find(options.run)
        terminal.say(run.id, "  ", run.job_name)
        try:
            terminal.say_live(*run_line(terminal, run))
            while run.is_active:
                await SystemClock().sleep(FOLLOW_SECONDS)
                run = await file.run(run.id)
                terminal.say_live(*run_line(terminal, run))
        finally:
            terminal.leave_live_line()
        return run

    run = with_file(options.file, watch)
    show_outcome(terminal, run)
    return DONE if run.status is RunStatus.COMPLETED else REFUSED


def retry_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    async def retry(file: OpenFile) -> Run[Any]:
        return await file.durably.retry((await file.find(options.run)).id)

    return _say_changed(with_file(options.file, retry), terminal)


def cancel_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    async def cancel(file: OpenFile) -> Run[Any]:
        return await file.durably.cancel((await file.find(options.run)).id)

    return _say_changed(with_file(options.file, cancel), terminal)


def purge_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    older_than = EpochMs(max(SystemClock().now() - options.older_than, 0))
    before = f"that ended before {to_datetime(older_than):%Y-%m-%d %H:%M:%S} UTC"

    async def purge(file: OpenFile) -> int:
        deleted = 0
        while batch := await file.durably.purge_runs(to_datetime(older_than), PURGE_AT_ONCE):
            deleted += batch
        return deleted

    if not options.yes:
        count = with_file(options.file, lambda file: file.ledger.count_ended(older_than))
        if not count:
            terminal.say(f"There are no runs {before}.")
            return DONE
        if not _is_agreed(f"Delete {counted(count, 'run')} {before}? [y/N] "):
            sys.stderr.write(f"Nothing was deleted. Of {counted(count, 'run')} {before}, --yes deletes all.\n")
            return REFUSED
    terminal.say(f"Deleted {counted(with_file(options.file, purge), 'run')} {before}.")
    return DONE


def _is_agreed(question: str) -> bool:
    """Ask whoever sits at the terminal; where there is nobody, the answer is no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        sys.stderr.write("\n")
        return False


def _say_changed(run: Run[Any], terminal: Terminal) -> int:
    terminal.say(run.id, "  ", *run_line(terminal, run), "  ", run.job_name)
    return DONE


def _say_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()  # here, where it can be told that nobody reads any more
