"""The page's port: requests of the HTTP API that come by message, and their answers.

A request is `(id, method, url, headers, body)`. Its answer is sent with `post`, a function of the worker,
as dicts: first `{id, status, headers}` with the whole body beside it, or with `stream: true`; a stream then sends
`{id, chunk}` and ends with `{id, end: true}`, or with `{id, broken: sentence}`. `cancel(id)` ends a stream that
nobody reads any more.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from ..errors import describe
from ..events import logger
from ..http import DurablyHandler, Request
from ..http.message import Chunks
from .page import Page


class Post(Protocol):
    """Sends one JSON text to the page, and the bytes beside it as the `body` of what it says."""

    def __call__(self, text: str, body: bytes = ..., /) -> None: ...


class Port:
    """Serves one page."""

    def __init__(self, handler: DurablyHandler, page: Page, post: Post) -> None:
        self.page = page
        self._handler = handler
        self._post = post
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def receive(self, request_id: int, method: str, url: str, headers: str, body: str) -> None:
        """Begin to answer a request; `headers` is a JSON object, `body` text."""
        request = Request(method, url, json.loads(headers), body.encode("utf-8", "surrogatepass"))
        task = asyncio.ensure_future(self._answer(request_id, request))
        self._tasks[request_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request_id, None))

    def cancel(self, request_id: int) -> None:
        """The page reads no more of this answer."""
        if (task := self._tasks.get(request_id)) is not None:
            task.cancel()

    async def _answer(self, request_id: int, request: Request) -> None:
        response = await self._handler.handle(request)
        head = {"id": request_id, "status": response.status, "headers": dict(response.headers)}
        if isinstance(response.body, bytes):
            self._post(json.dumps(head), response.body)
            return
        self._send({**head, "stream": True})
        try:
            await self._stream(request_id, response.body)
        except Exception as error:  # noqa: BLE001 - the reader must hear that there will be no more
            logger.exception("the stream of %s broke", request.url)
            self._send({"id": request_id, "broken": describe(error)})
        else:
            self._send({"id": request_id, "end": True})

    async def _stream(self, request_id: int, chunks: Chunks) -> None:
        try:
            async for chunk in chunks:
                self._send({"id": request_id, "chunk": chunk.decode("utf-8")})
        finally:
            await chunks.aclose()

    def _send(self, message: dict[str, Any]) -> None:
        self._post(json.dumps(message))
