"""durably's HTTP API under uvicorn, for pages that speak to a server: below `/api/` of the server of the browser tests.

What comes there is passed on to uvicorn as it is, and its answer back, so that the page and the API have one origin.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from http_server import in_thread

from durably import JobDefinition, create_durably, with_log_persistence
from durably.http import create_durably_handler
from durably.http.asgi import durably_app

PATIENCE_SECONDS = 30
GLANCE_SECONDS = 0.02
"""How often is looked whether a browser has hung up."""

OF_ONE_CONNECTION = {"connection", "transfer-encoding", "date", "server"}


class Api:
    """A server with a worker; `with` it."""

    def __init__(self, database: Path, jobs: list[JobDefinition[Any, Any]]) -> None:
        durably = create_durably(database, jobs=jobs)
        durably.use(with_log_persistence())
        self._handler = create_durably_handler(durably, sse_throttle=0)  # the same walk as in a page, which hears all
        self._open = ExitStack()
        self._streams: set[socket.socket] = set()
        self._changed = threading.Condition()

    def __enter__(self) -> Api:
        self._site = self._open.enter_context(in_thread(durably_app(self._handler, "/api"), self._handler))
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        self._open.close()

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
        """Have the request that has come answered by uvicorn."""
        body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        with self._answered(http, body) as answer:
            http.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in OF_ONE_CONNECTION:
                    http.send_header(name, value)
            if answer.getheader("content-type") == "text/event-stream":
                self._pass_on(answer, http)
            else:
                http.end_headers()
                http.wfile.write(answer.read())

    @contextmanager
    def _answered(self, http: BaseHTTPRequestHandler, body: bytes) -> Iterator[HTTPResponse]:
        connection = HTTPConnection("127.0.0.1", self._site.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(http.command, http.path, body or None, dict(http.headers))
            yield connection.getresponse()
        finally:
            connection.close()

    def _pass_on(self, answer: HTTPResponse, http: BaseHTTPRequestHandler) -> None:
        """A stream, as it comes, until one side hangs up."""
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        http.close_connection = True
        with self._counted(http.connection):
            while True:
                upstream = answer.fileno()
                readable, _, _ = select.select([upstream, http.connection], [], [], GLANCE_SECONDS)
                if http.connection in readable and not http.connection.recv(1, socket.MSG_PEEK):
                    return
                chunk = answer.read1() if upstream in readable else None
                if chunk == b"":
                    break
                if chunk:
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
