"""A job in whose middle the browser takes the database's files away from the page."""

from __future__ import annotations

import asyncio
from typing import Any

from js import FileSystemFileHandle
from pyodide.ffi import create_proxy

from durably import StepContext, job

_open: list[Any] = []
_create = FileSystemFileHandle.prototype.createSyncAccessHandle


async def _note(this: Any, *options: Any) -> Any:
    handle = await _create.call(this, *options)
    if ".sqlite3" in this.name:
        _open.append(handle)
    return handle


FileSystemFileHandle.prototype.createSyncAccessHandle = create_proxy(_note, capture_this=True)


def lose() -> int:
    count = len(_open)
    while _open:
        _open.pop().close()
    return count


@job
async def loses(step: StepContext, rounds: int) -> int:
    """Each round's result cannot be stored at first."""
    await asyncio.sleep(0.3)  # until whoever triggered it has read what it was answered
    return sum([await step.run(f"lose-{number}", _lose_once, number) for number in range(rounds)])


_lost: set[int] = set()


def _lose_once(number: int) -> int:
    if number not in _lost:
        _lost.add(number)
        assert lose() > 0
    return number
