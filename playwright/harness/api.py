"""durably's HTTP API on CPython, for pages that speak to a server: below `/api/` of the server of the browser tests."""

from __future__ import annotations

import asyncio
import queue
import select
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

from durably import JobDefinition, create_durably, with_log_persistence
from durably.http import Request, create_durably_handler

T = TypeVar("T")

PATIENCE_SECONDS = 30
GLANCE_SECONDS = 0.02
"""How often is looked whether a browser has hung up."""


class Api:
    """An instance with a worker, in an event loop that has a thread of its own; `with` it."""

    def __init__(self, database: Path, jobs: list[JobDefinition[Any, Any]]) -> None:
        self._durably = create_durably(database, jobs=jobs)
        self._durably.use(with_log_persistence())
        self._handler = create_durably_handler(self._durably)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._streams: set[socket.socket] = set()
        self._changed = threading.Condition()

    def __enter__(self) -> Api:
        self._thread.start()
        self._result(self._durably.init())
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        self._result(self._durably.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drop(self) -> None:
        """Break every stream, as a network does."""
        with self._changed:
            for connection in self._streams:
                connection.shutdown(socket.SHUT_RDWR)
        self.wait_for_streams(0)

    def wait_for_streams(self, count: int) -> None:
        """Return once so many streams of events are open. Raises `AssertionError` where they never are."""
        with self._changed:
            is_so = self._changed.wait_for(lambda: len(self._streams) == count, PATIENCE_SECONDS)
            assert is_so, f"{len(self._streams)} streams are open, not {count}"

    def serve(self, http: BaseHTTPRequestHandler) -> None:
        """Answer the request that has come."""
        body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        request = Request(http.command, http.path, dict(http.headers), body)
        response = self._result(self._handler.handle(request, "/api"))
        http.send_response(response.status)
        for name, value in response.headers.items():
            http.send_header(name, value)
        if isinstance(response.body, bytes):
            http.send_header("Content-Length", str(len(response.body)))
            http.end_headers()
            http.wfile.write(response.body)
            return
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        http.close_connection = True
        for chunk in self._chunks(response.body, http.connection):
            http.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        http.wfile.write(b"0\r\n\r\n")

    @contextmanager
    def _counted(self, connection: socket.socket) -> Iterator[None]:
        with self._changed:
            self._streams.add(connection)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._streams.remove(connection)
                self._changed.notify_all()

    def _chunks(self, body: AsyncIterator[bytes], connection: socket.socket) -> Iterator[bytes]:
        """What comes, to its end. Raises `ConnectionError` as soon as the other side has hung up."""
        coming: queue.Queue[bytes | None] = queue.Queue()

        async def pump() -> None:
            async for chunk in body:
                coming.put(chunk)
            coming.put(None)

        with self._counted(connection):
            pumping = asyncio.run_coroutine_threadsafe(pump(), self._loop)
            try:
                while True:
                    try:
                        chunk = coming.get(timeout=GLANCE_SECONDS)
                    except queue.Empty:
                        if has_hung_up(connection):
                            raise ConnectionAbortedError from None
                        continue
                    if chunk is None:
                        return
                    yield chunk
            finally:
                pumping.cancel()

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)


def has_hung_up(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
