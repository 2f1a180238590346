"""durably's HTTP API under uvicorn, for pages that speak to a server: below `/api/` of the server of the browser tests.

What comes there is passed on to uvicorn as it is, and its answer back, so that the page and the API have one origin.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from http_server import in_thread

from durably import JobDefinition, create_durably, with_log_persistence
from durably.http import Auth, create_durably_handler
from durably.http.asgi import durably_app

PATIENCE_SECONDS = 30

OF_ONE_CONNECTION = {"connection", "transfer-encoding", "date", "server"}


class Api:
    """A server with a worker; `with` it."""

    def __init__(self, database: Path, jobs: list[JobDefinition[Any, Any]], auth: Auth | None = None) -> None:
        durably = create_durably(database, jobs=jobs)
        durably.use(with_log_persistence())
        # The same walk as in a page, which hears all.
        self._handler = create_durably_handler(durably, auth, sse_throttle=0)
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
                end(connection)
        self.wait_for_streams(0)

    def wait_for_streams(self, count: int) -> None:
        """Return once so many streams of events are open. Raises `AssertionError` where they never are."""
        with self._changed:
            is_so = self._changed.wait_for(lambda: len(self._streams) == count, PATIENCE_SECONDS)
            assert is_so, f"{len(self._streams)} streams are open, not {count}"

    def serve(self, http: BaseHTTPRequestHandler) -> None:
        """Have the request that has come answered by uvicorn."""
        body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        with self._asked(http, body) as upstream:
            answer = upstream.getresponse()
            http.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in OF_ONE_CONNECTION:
                    http.send_header(name, value)
            if answer.getheader("content-type") == "text/event-stream":
                self._pass_on(upstream, answer, http)
            else:
                http.end_headers()
                http.wfile.write(answer.read())

    @contextmanager
    def _asked(self, http: BaseHTTPRequestHandler, body: bytes) -> Iterator[HTTPConnection]:
        connection = HTTPConnection("127.0.0.1", self._site.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(http.command, http.path, body or None, dict(http.headers))
            yield connection
        finally:
            connection.close()

    def _pass_on(self, upstream: HTTPConnection, answer: HTTPResponse, http: BaseHTTPRequestHandler) -> None:
        """A stream, as it comes, until one side hangs up."""
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        http.close_connection = True
        # `select` would see nothing of the second of two chunks that come at once: it is in a buffer by then.
        with self._counted(http.connection), hung_up_with(http.connection, upstream.sock), suppress(IncompleteRead):
            while chunk := answer.read1():
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


@contextmanager
def hung_up_with(reader: socket.socket, upstream: socket.socket) -> Iterator[None]:
    """While `reader`, which has nothing more to say, stays on the line. When it hangs up, `upstream` ends."""

    def hang_up() -> None:
        with suppress(ConnectionResetError):
            reader.recv(1, socket.MSG_PEEK)
        end(upstream)

    listening = threading.Thread(target=hang_up, name="until the reader hangs up")
    listening.start()
    try:
        yield
    finally:
        end(reader)
        listening.join()


def end(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side has ended it
        connection.shutdown(socket.SHUT_RDWR)
