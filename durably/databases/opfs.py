"""SQLite in the browser: wa-sqlite on OPFS, through the bridge of `web/sqlite.js`.

One batch is one call across the border to JavaScript, made with JSON text (bytes beyond some length, which
are cheaper) and answered at once; only where the bridge must wait for another tab it answers with a promise.
The form of requests and replies is described at the top of `web/sqlite.js`. Because most batches never
suspend, the event loop is given a turn every `LOOP_TURN_SECONDS`, so that messages of the page are heard.

After an error by which the connection may have lost track of the file, another one is opened for the next call.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pyodide.ffi import JsException, to_js  # noqa: TID251 - this module's purpose

from ..clock import unbroken
from ..database import IN_MEMORY, OpenTransaction, Params, Result, Row, Statement
from ..errors import StorageError, StorageFullError
from ..events import logger
from ..records import StorageInfo
from .bridge import BridgeError, bridge

LONG_TEXT = 10_000
"""Characters; text beyond it crosses the border as bytes."""

LOOP_TURN_SECONDS = 0.01

_LARGEST_EXACT_INTEGER = 2**53
_SQLITE_FULL, _SQLITE_IOERR, _SQLITE_CORRUPT, _SQLITE_NOTADB = 13, 10, 11, 26
_NEARLY_FULL = 0.98
_LONG_WAIT_SECONDS = 1.0
"""Whoever waits for the store for longer says so in `StorageInfo.state`."""
_FULL_SECONDS = 5.0
"""So long after a write that found no space the state is `full`; a run that needs some tries every second."""


class OpfsDatabase:
    """`name` is a path in the private file system, or `IN_MEMORY` for a database that ends with this object."""

    def __init__(self, name: str, *, durability: str = "full") -> None:
        self._name = name
        self._durability = durability
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._busy_since: float | None = None
        self._is_broken = False
        self._full_at = -math.inf
        self._waiting_since: float | None = None
        self._set_aside = ""
        self._outlasts_close = name == IN_MEMORY

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, *statements: Statement) -> list[Result]:
        mode = "read" if all(statement.is_read for statement in statements) else "write"
        await self._give_loop_a_turn()
        async with self._turn:
            await self._renew_if_broken()
            return await self._send(mode, statements)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OpenTransaction]:
        async with self._turn:
            await self._renew_if_broken()
            tx = OpenTransaction(self._run_in_transaction)
            try:
                await self._send("bare", [Statement("BEGIN IMMEDIATE")])
                yield tx
                tx.end()
                await self._send("bare", [Statement("COMMIT")])
            except BaseException:
                tx.end()
                await self._rollback()
                raise

    def beat(self, statement: Callable[[], Statement], seconds: float) -> None:
        """There are no threads here; that a worker lives is told by its lock."""
        return

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        async with self._turn:
            if self._connection is not None:
                await self._connection.rest()
            yield

    async def close(self) -> None:
        async with self._turn:
            if not self._outlasts_close:
                await self._close()

    async def dump(self) -> bytes:
        async with self._turn:
            connection = await self._opened()
            image: bytes = (await self._asked(connection.dump)).to_bytes()
            return image

    async def staged(self, image: bytes) -> OpfsDatabase:
        async with self._turn:
            connection = await self._opened()
            staged = OpfsDatabase(IN_MEMORY)
            staged._connection = await self._asked(connection.stage, to_js(image))
            staged._outlasts_close = False  # its memory is JavaScript's
            return staged

    async def load(self, image: bytes, *, unless: Statement) -> bool:
        async with self._turn:
            connection = await self._opened()
            return bool(await self._asked(connection.load, to_js(image), unless.sql))

    async def info(self) -> StorageInfo:
        if self._connection is None:
            async with self._turn:
                await self._opened()
        # Without taking its turn: how long others have waited is part of the answer.
        facts = json.loads(await self._asked(self._connection.describe))
        return StorageInfo(**facts, state=self._state(facts["persisted"]))

    def _state(self, is_persisted: bool | None) -> str:
        if self._set_aside:
            return f"corrupt: set aside as {self._set_aside}"
        if self._waiting_since is not None and time.monotonic() - self._waiting_since > _LONG_WAIT_SECONDS:
            return "waiting for another tab"
        # That a small write has found room since, in what the browser had set apart, tells nothing.
        if time.monotonic() - self._full_at < _FULL_SECONDS:
            return "full"
        if is_persisted is None:
            return "ready"
        return "persistent" if is_persisted else "best-effort"

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._asked(connection.close)

    async def _renew_if_broken(self) -> None:
        if self._is_broken:
            self._is_broken = False
            await self._close()

    async def _run_in_transaction(self, statement: Statement) -> Result:
        await self._give_loop_a_turn()
        [result] = await self._send("bare", [statement])
        return result

    async def _send(self, mode: str, statements: Sequence[Statement]) -> list[Result]:
        """One request to the bridge; the caller holds the turn."""
        connection = await self._opened()
        blobs: list[bytes] = []
        text = json.dumps([mode, [[one.sql, _wire_params(one.params, blobs)] for one in statements]])
        request = text if len(text) <= LONG_TEXT else to_js(text.encode("ascii"))
        reply = connection.execute(request, *map(to_js, blobs))
        # Pyodide hands a promise over as a future.
        if asyncio.isfuture(reply):
            self._waiting_since = time.monotonic()
            try:
                reply = await unbroken(reply)
            finally:
                self._waiting_since = None
        try:
            return await self._results(reply)
        except StorageError:
            self._is_broken = self._is_broken or bool(connection.isDoubtful)
            raise

    async def _opened(self) -> Any:
        if self._connection is None:
            self._connection = await self._asked((await bridge()).openDatabase, self._name, self._durability)
            if aside := str(self._connection.setAside):
                self._set_aside = aside
                logger.warning(
                    "the database %s was damaged; it was set aside as %s, and a new one was begun", self._name, aside
                )
        return self._connection

    async def _asked(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the bridge that throws, and await its answer where that is a promise."""
        try:
            answer = function(*arguments)
            return await unbroken(answer) if asyncio.isfuture(answer) else answer
        except (JsException, BridgeError) as error:
            code = getattr(error, "code", None)
            message = str(getattr(error, "message", error))
            if isinstance(code, int):
                raise await self._error(code, message) from None
            raise StorageError(message) from None

    async def _rollback(self) -> None:
        # SQLite has rolled back by itself after some errors; then there is nothing left to roll back.
        try:
            await self._send("bare", [Statement("ROLLBACK")])
        except StorageError as error:
            if "no transaction is active" not in error.message:
                raise

    async def _results(self, reply: Any) -> list[Result]:
        blobs: list[bytes] = []
        text = reply
        if not isinstance(reply, str):
            first, *rest = reply
            blobs = [blob.to_bytes() for blob in rest]
            text = first.to_bytes()
        # Most replies have nothing marked, and then nothing is called.
        found = json.loads(text, object_hook=lambda marked: _unmarked(marked, blobs))
        if isinstance(found, dict):
            raise await self._error(*found["error"])
        return [Result([Row(names, row) for row in rows], changes) for names, rows, changes in found]

    async def _error(self, code: int, message: str) -> StorageError:
        primary = code & 0xFF
        self._is_broken = self._is_broken or primary == _SQLITE_IOERR
        if primary == _SQLITE_FULL or (primary == _SQLITE_IOERR and await _quota_is_used_up()):
            self._full_at = time.monotonic()
            return StorageFullError(
                f"the browser gives this site no more space, so {self._name} cannot grow; free some"
            )
        if primary == _SQLITE_NOTADB:
            return StorageError(
                f"the file {self._name} in this browser is not a SQLite database; it was left as it is, "
                "choose another name"
            )
        if primary == _SQLITE_CORRUPT:
            return StorageError(f"the database {self._name} is damaged ({message}); it was left as it is")
        return StorageError(f"database {self._name}: {message}")

    async def _give_loop_a_turn(self) -> None:
        """Let the loop turn if it has not for a while; where it has, a turn would only cost time."""
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
            asyncio.get_running_loop().call_soon(self._note_turn)
        elif now - self._busy_since > LOOP_TURN_SECONDS:
            await asyncio.sleep(0)

    def _note_turn(self) -> None:
        self._busy_since = None


async def _quota_is_used_up() -> bool:
    from js import navigator  # noqa: TID251 - this module's purpose

    estimate = await navigator.storage.estimate()
    return bool(estimate.usage >= estimate.quota * _NEARLY_FULL)


def _wire_params(params: Params, blobs: list[bytes]) -> Any:
    if isinstance(params, dict):
        return {name: _wire(value, blobs) for name, value in params.items()}
    return [_wire(value, blobs) for value in params]


def _wire(value: Any, blobs: list[bytes]) -> Any:
    if value is None or type(value) is str:
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST_EXACT_INTEGER else {"i": str(int(value))}
    if isinstance(value, float):
        return value if math.isfinite(value) and not value.is_integer() else {"f": _float_text(value)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        blobs.append(bytes(value))
        return {"b": len(blobs) - 1}
    raise StorageError(f"a {type(value).__name__} cannot be a parameter of SQL; give None, int, float, str or bytes")


def _float_text(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return "NaN" if math.isnan(value) else repr(value)


def _unmarked(marked: dict[str, Any], blobs: list[bytes]) -> Any:
    [(kind, content)] = marked.items()
    match kind:
        case "b":
            return blobs[content]
        case "i":
            return int(content)
        case "f":
            return float(content)
        case _:
            return marked
