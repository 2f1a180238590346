"""How a step calls its function, and what a transaction's function is given."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from .database import Params, Row, Transaction
from .errors import DurablyError

_FIRST_WORDS = re.compile(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)(.*)", re.DOTALL)
"""A statement's verb, behind whatever SQL allows before it, and the rest."""

_TRANSACTION_CONTROL = {"BEGIN", "COMMIT", "END", "ROLLBACK"}

HAS_THREADS = sys.platform != "emscripten"


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


async def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    if is_async or not HAS_THREADS:
        value = fn(*args, **kwargs)
    else:
        value = await asyncio.to_thread(_without_stop_iteration, fn, args, kwargs)
    return await value if inspect.isawaitable(value) else value


def _without_stop_iteration(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A future refuses `StopIteration`, and whoever awaited it would wait for ever."""
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("the step raised StopIteration") from error
