"""Interrupting code that blocks the worker, where the browser has a way in (`web/interrupt.js`).

The page names a run, or a deadline passes. Pyodide then lets Python handle a SIGINT, in the middle of whatever it is
doing; if that is the named run's own code, or code that is overdue, `Interrupted` is raised in it. Durably's code,
which runs between, is never broken off.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import Any

from .. import deadlines
from ..calls import WHERE_USERS_CODE_BEGINS, Interrupted, executing_run

_PACKAGE = f"{Path(__file__).parent.parent}/"
_LIBRARY = f"{Path(signal.__file__).parent}/"


class Interrupts:
    """Of this worker. `way_in` is an `Interrupts` of the bridge."""

    def __init__(self, way_in: Any) -> None:
        self._way_in = way_in
        self._executed: Collection[str] = ()
        signal.signal(signal.SIGINT, self._handle)
        deadlines.tell = self._look_at

    def executes(self, run_ids: Collection[str]) -> None:
        """Only these runs can be interrupted, from now on."""
        self._executed = run_ids
        self._way_in.watch(bool(run_ids))

    def _look_at(self, deadline: float) -> None:
        self._way_in.lookIn(math.inf if deadline == math.inf else 1000 * (deadline - time.monotonic()))

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        wanted = self._way_in.wanted()
        if wanted and wanted not in self._executed:
            self._way_in.clear()
        elif wanted and wanted == executing_run.get() and _is_users(frame):
            self._way_in.clear()
            raise Interrupted
        elif deadlines.is_overdue() and not _is_being_cancelled() and _is_users(frame):
            deadlines.postpone()
            raise Interrupted


def _is_being_cancelled() -> bool:
    """Then its timer has had its turn, and what still runs is cleaning up."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_users(frame: FrameType | None) -> bool:
    """Whether a job's or step's code is at work, or what it has called, and durably was not called from there."""
    innermost = frame
    seen_users = False
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return frame is not innermost and frame.f_code in WHERE_USERS_CODE_BEGINS
        seen_users = seen_users or not (file.startswith((_LIBRARY, "<frozen")) or "/pyodide/" in file)
        frame = frame.f_back
    return seen_users  # in a task that the job has begun


of_this_worker: Interrupts | None = None
"""Set by `boot`, where there is a way in."""
