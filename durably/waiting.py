"""`Waiting`: one durable wait of a session."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from .clock import LAST_INSTANT, EpochMs

NEVER = LAST_INSTANT
"""The wake-up time of a run that only waits for something to come."""


def this_task() -> asyncio.Task[Any]:
    """The present task, of a job or of one of its steps."""
    task = asyncio.current_task()
    assert task is not None, "a job runs in a task"
    return task


@dataclass(slots=True)
class Waiting:
    """What a wait is for, and the moment by which it looks again."""

    name: str
    description: str
    wake_at: EpochMs
    poke: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] = field(default_factory=this_task)
