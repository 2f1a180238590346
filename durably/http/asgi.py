"""The HTTP API as an ASGI 3 application (asgi.readthedocs.io): see `durably_app`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from ..errors import DurablyError, ValidationError, describe
from ..events import logger
from .handler import DurablyHandler
from .message import Chunks, Request, Response

__all__ = ["durably_app"]

STOP_SECONDS = 10.0

CHUNKS_IN_A_ROW = 4
"""After so many the event loop has a turn: others are waiting, and only then does it hear that the client has gone."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def durably_app(
    handler: DurablyHandler, base_path: str = "/api/durably", *, stop_timeout: float | None = STOP_SECONDS
) -> ASGIApp:
    """An application for any ASGI server, alone or mounted in another.

    Alone it answers below `base_path`, starts the handler's durably with the server and stops it with that: runs that
    are still in flight `stop_timeout` seconds later (`None`: whenever they end) are handed back as pending. Mounted at
    a path (Starlette, FastAPI) it answers below that path; then the server tells only the outer application when it
    starts and stops, and durably is started there.
    """
    base = base_path.rstrip("/")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(handler, receive, send, stop_timeout)
        elif scope["type"] == "http":
            request = await _request(scope, receive, handler.max_body_size)
            if request is not None:
                root = scope.get("root_path", "").rstrip("/")
                await _respond(await handler.handle(request, _base_of(request, root, base)), receive, send)
        else:
            await send({"type": "websocket.close"})  # which is how a handshake is refused

    return app


async def _live(handler: DurablyHandler, receive: Receive, send: Send, stop_timeout: float | None) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        if message["type"] != "lifespan.startup":
            continue
        try:
            await handler.durably.init()
        except Exception as error:  # noqa: BLE001 - the server says it, and ends
            if not isinstance(error, DurablyError):  # whose sentence is enough
                logger.exception("durably could not start")
            await send({"type": "lifespan.startup.failed", "message": f"durably could not start: {describe(error)}"})
            return
        await send({"type": "lifespan.startup.complete"})
    await handler.durably.stop(stop_timeout)
    await send({"type": "lifespan.shutdown.complete"})


async def _request(scope: Scope, receive: Receive, max_body_size: int | None) -> Request | None:
    """The request; `None` if its client has gone. Of a body that is too large no more is read than shows that."""
    raw_path = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    query = scope.get("query_string", b"")
    url = (raw_path + (b"?" + query if query else b"")).decode("latin-1")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body") or (max_body_size is not None and len(body) > max_body_size):
            return Request(scope["method"], url, _headers(scope), bytes(body))


def _headers(scope: Scope) -> Mapping[str, str]:
    """The headers, those that are there several times as one."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        separator = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    return headers


def _base_of(request: Request, root: str, base: str) -> str:
    """What of the path comes before the endpoint's: a mount's own path will do, with or without `base` behind it."""
    try:
        path = request.path
    except ValidationError:  # which the handler answers
        return base
    candidates = [root + base, base, root] if root else [base]
    return next((each for each in candidates if path.startswith(f"{each}/")), base)


async def _respond(response: Response, receive: Receive, send: Send) -> None:
    # An error's class, or what a hook puts there, may have a name that no header can have.
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in response.headers.items()]
    if isinstance(response.body, bytes):
        if response.status != 204:
            headers.append((b"content-length", b"%d" % len(response.body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        return
    sending = asyncio.ensure_future(_stream(response.status, headers, response.body, send))
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.wait({sending, leaving})
        await response.body.aclose()


async def _stream(status: int, headers: list[tuple[bytes, bytes]], chunks: Chunks, send: Send) -> None:
    """Send what comes, each chunk when the one before it is on its way: who reads slowly is sent no more meanwhile."""
    try:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        number = 0
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            number += 1
            if number % CHUNKS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    except OSError:
        pass  # the client has gone: some servers tell it so (ASGI's HTTP specification 2.4)


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
