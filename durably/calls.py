"""How a step calls its function, how code that blocks is interrupted, and what a transaction's function is given."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakSet

from .database import Database, Params, Row, Transaction
from .errors import DurablyError

_FIRST_WORDS = re.compile(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)(.*)", re.DOTALL)
"""A statement's verb, behind whatever SQL allows before it, and the rest."""

_TRANSACTION_CONTROL = {"BEGIN", "COMMIT", "END", "ROLLBACK"}

T = TypeVar("T")

INTERRUPTED_SECONDS = 5.0
"""How long interrupted code waits for the cancellation for whose sake it was interrupted."""

executing_run: ContextVar[str | None] = ContextVar("durably_executing_run", default=None)
"""The run whose code the present task executes; tasks that it starts inherit it."""

QUICK_SECONDS = 0.02
"""Others may wait so long for the store without anybody noticing."""

_quick: WeakSet[Any] = WeakSet()
"""The code of plain functions that were quick when they were last called, and are called without further ado."""

HAS_THREADS = sys.platform != "emscripten"


class Interrupted(BaseException):
    """Raised in a job's code that blocks the event loop, so that what waits in the loop gets its turn."""


async def interruptible(work: Awaitable[T]) -> T:
    """Do work of a job. If it is interrupted, give way to what is to cancel this task."""
    try:
        return await work
    except Interrupted as error:
        await asyncio.sleep(INTERRUPTED_SECONDS)
        raise DurablyError("it was interrupted because it kept its worker busy, and nobody has cancelled it") from error


async def put(values: list[T], work: Awaitable[T]) -> None:
    """Do work of a job, and put what it gives into a list."""
    values.append(await interruptible(work))


class UserTransaction:
    """What the function of `step.transaction` is given."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def execute(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement inside the transaction; its rows.

        Raises `DurablyError` for one that would begin or end a transaction: that is the step's to do.
        """
        first, rest = _FIRST_WORDS.match(sql).groups()  # type: ignore[union-attr]  # it matches any text
        is_to_savepoint = first.upper() == "ROLLBACK" and re.match(r"\s+(TRANSACTION\s+)?TO\b", rest, re.IGNORECASE)
        if first.upper() in _TRANSACTION_CONTROL and not is_to_savepoint:
            raise DurablyError(f"{first.upper()} is not for a step's transaction, which the step itself ends")
        return await self._tx.execute(sql, params)


async def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], database: Database) -> Any:
    """What a step's function gives. Plain code runs in a thread; where there are none, with the database at rest."""
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - whether it is async, not whether it can be called
    if is_async:
        return await call_in_place(fn, args, kwargs)
    if HAS_THREADS:
        value = await asyncio.to_thread(_without_stop_iteration, fn, args, kwargs)
    else:
        value = await _call_at_rest(fn, args, kwargs, database)
    return await value if inspect.isawaitable(value) else value


async def _call_at_rest(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], database: Database
) -> Any:
    """Call a function that may block the loop for long, so that others can write meanwhile; which takes some ms."""
    code = getattr(fn, "__code__", None)
    async with nullcontext() if code in _quick else database.at_rest():
        began = time.monotonic()
        try:
            return fn(*args, **kwargs)
        finally:
            if time.monotonic() - began > QUICK_SECONDS:
                _quick.discard(code)
            elif code is not None:
                _quick.add(code)


async def call_in_place(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function here, and await what it returns if that can be awaited."""
    value = fn(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _without_stop_iteration(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A future refuses `StopIteration`, and whoever awaited it would wait for ever."""
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("the step raised StopIteration") from error


WHERE_USERS_CODE_BEGINS = frozenset({one.__code__ for one in (interruptible, call, _call_at_rest, call_in_place)})
"""What of durably is on the stack next to a job's or step's own code."""
