"""A thread that does one thing after another for an event loop, in order.

An executor would do, but its results come through two futures and three turns of the loop; here it is one future and
one turn, and the rest of a checkpoint is hardly more than that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Work(Generic[T]):
    """Something to do, and who waits for it."""

    def __init__(self, do: Callable[[], T]) -> None:
        self._do = do
        self._loop = asyncio.get_running_loop()
        self._result: asyncio.Future[T] = self._loop.create_future()
        self._end: asyncio.Future[None] | None = None
        self._has_ended = False

    async def result(self) -> T:
        """What it gives, or raises. Whoever is cancelled waits for its end: it cannot be called back."""
        try:
            return await self._result
        except asyncio.CancelledError:
            while not self._has_ended:
                self._end = self._loop.create_future()
                try:
                    await self._end
                except asyncio.CancelledError:
                    continue
            raise

    def run(self) -> None:
        """Do it, in the thread."""
        try:
            value = self._do()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._tell(partial(self._result.set_exception, error))
        else:
            self._tell(partial(self._result.set_result, value))

    def _tell(self, answer: Callable[[], None]) -> None:
        def end() -> None:
            self._has_ended = True
            if not self._result.done():
                answer()
            if self._end is not None and not self._end.done():
                self._end.set_result(None)

        try:
            self._loop.call_soon_threadsafe(end)
        except RuntimeError:
            if not self._loop.is_closed():  # then nobody waits any more
                raise


class WorkThread:
    """Lives from when it is made until `end`, or until nobody has it. It does not keep the program alive."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Work[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work_off, args=(self._queue,), name=name, daemon=True)
        self._thread.start()

    async def do(self, do: Callable[[], T]) -> T:
        """What `do` gives, or raises."""
        work = _Work(do)
        self._queue.put(work)
        return await work.result()

    def end(self) -> None:
        """End it, once it has done what it was given."""
        self._queue.put(None)
        self._thread.join()

    def __del__(self) -> None:
        self._queue.put(None)


def _work_off(queue: SimpleQueue[_Work[Any] | None]) -> None:
    # A function, for a method would keep its object alive.
    while (work := queue.get()) is not None:
        work.run()
        del work  # and what it has given, while there is nothing to do
