"""A job in whose middle the browser takes the database's files away from the page."""

from __future__ import annotations

import asyncio
from typing import Any

from js import FileSystemSyncAccessHandle
from pyodide.ffi import create_proxy

from durably import StepContext, job

_open: list[Any] = []
_prototype = FileSystemSyncAccessHandle.prototype


def _noting(method: Any) -> Any:
    """The method, which notes whose it is. These are called of nothing but the database's handles."""

    def note(this: Any, *arguments: Any) -> Any:
        if this not in _open:
            _open.append(this)
        return method.call(this, *arguments)

    return create_proxy(note, capture_this=True)


_prototype.flush = _noting(_prototype.flush)
_prototype.getSize = _noting(_prototype.getSize)


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
