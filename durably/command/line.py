"""The command line: its verbs and options, and what becomes of an error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ..chores import retention_ms
from ..errors import DurablyError
from ..records import RunStatus
from ..texts import printable
from .serving import serve_verb
from .terminal import Terminal
from .verbs import cancel_verb, follow_verb, list_verb, purge_verb, retry_verb, show_verb

INTERRUPTED = 130
"""What shells give for a program that Ctrl-C has ended."""

Verb = Callable[[argparse.Namespace, Terminal], int]


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m durably",
        description="Look at the runs of a durably file, also while a program works on it, manage and serve them.",
        epilog="FILE is a database of durably's, or an exported one. RUN is a run's id, or the beginning of one. "
        "Exit code: 0, 1 if it was refused or the followed run did not complete, 2 for a wrong command line.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(action: Verb, text: str, *, has_run: bool = True) -> argparse.ArgumentParser:
        each = verbs.add_parser(action.__name__.removesuffix("_verb"), help=text, description=text)
        each.add_argument("file", metavar="FILE")
        if has_run:
            each.add_argument("run", metavar="RUN", type=_run_id)
        each.set_defaults(action=action)
        return each

    listing = verb(list_verb, "list runs, newest first", has_run=False)
    statuses = [status.value for status in RunStatus]
    listing.add_argument("--status", action="append", choices=statuses, help="only these; may be given several times")
    listing.add_argument("--job", action="append", metavar="NAME", help="only these; may be given several times")
    listing.add_argument("--label", action="append", metavar="K=V", type=_label, help="only those with all of these")
    listing.add_argument("--limit", metavar="N", type=_count, help="at most so many; default: 50, with --json all")
    showing = verb(show_verb, "show a run with its steps and logs")
    for each in (listing, showing):
        each.add_argument("--json", action="store_true", help="as JSON, with the names of the HTTP API")
    verb(follow_verb, "show how far a run is until it ends; Ctrl-C leaves it alone")
    verb(retry_verb, "make a failed or cancelled run pending again; completed steps are kept")
    verb(cancel_verb, "cancel a pending or running run")
    purge = verb(purge_verb, "delete the runs that ended long ago", has_run=False)
    purge.add_argument("--older-than", metavar="SPAN", type=_span, required=True, help="such as 30d, 12h, 90m")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    serving = verb(serve_verb, "execute the jobs of Python files, with the HTTP API and the dashboard", has_run=False)
    serving.add_argument("jobs", metavar="JOBS", nargs="+", help="a Python file with jobs, such as jobs.py")
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen at; default: %(default)s")
    serving.add_argument("--port", type=_port, default=8000, help="default: %(default)s; 0: any that is free")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments (default: the program's) say; the exit code. A wrong command line exits with 2."""
    options = command_line().parse_args(arguments)
    action: Verb = options.action
    try:
        return action(options, Terminal())
    except DurablyError as error:
        sys.stderr.write(f"durably: {printable(error.message)}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. Python must not find that out once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run_id(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a run's id, or its beginning, is not empty")
    return text


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"a label is KEY=VALUE, not {text!r}")
    return key, value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number up to 65535, not {text!r}")
    return int(text)


def _span(text: str) -> int:
    try:
        milliseconds = retention_ms(text)
    except ValueError:
        milliseconds = None
    if milliseconds is None:
        raise argparse.ArgumentTypeError(f"a span such as 30d, 12h or 90m, not {text!r}")
    return milliseconds
