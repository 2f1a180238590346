"""The server of the browser tests: the built site, the tests' own pages, and the ledgers.

`/` is `dist`, as plainly as a static host gives it: no special headers. `/t/` is `playwright/pages`, with durably's
folder beside them as a user would copy it, and so is the empty `/readme/`. `/coop/` is the same as `/t/`, but workers
there find no mode in which a file may be opened twice at once. A test may add files of its own with `put`, and an
API of its own, at `/api/`; and give a path a Content-Security-Policy in `policies`.
`POST /ledger/ID` writes a line into a `Ledger`, which the test reads in this process; the test may `hold` the answer.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
DIST, PAGES, TESTS = ROOT / "dist", ROOT / "playwright" / "pages", ROOT / "tests"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
}

LONGEST_HOLD_SECONDS = 120
"""A test that fails lets nothing go."""

ONE_HANDLE = b"""
{
  const { createSyncAccessHandle } = FileSystemFileHandle.prototype
  FileSystemFileHandle.prototype.createSyncAccessHandle = function () {
    return createSyncAccessHandle.call(this)
  }
}
"""
"""What makes a worker ignore the mode in which it is to open a file, as browsers do that know none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a ledger. `at` is in seconds, and only good for differences."""

    kind: str
    """`step`: its execution begins; `committed`: a page heard that it is stored; `connected`: so says a page."""
    name: str
    at: float


class Ledger:
    """What happened in a test, in the order in which it happened, whatever became of the pages."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._to_hold: set[tuple[str, str]] = set()
        self._may_go_on = threading.Event()

    def hear(self, told: list[tuple[str, str]]) -> str:
        """Write down what a page or a step has sent, by kind and name; what it is to be answered."""
        for kind, name in told:
            self.add(kind, name)
            if self._is_to_be_held(kind, name):
                self._may_go_on.wait(LONGEST_HOLD_SECONDS)
        return ""

    def hold(self, kind: str, name: str) -> None:
        """Let the first to send this entry wait for its answer until `let_go`: so long its step is in flight.

        The entry is there at once; whoever sends it again is answered.
        """
        with self._changed:
            self._may_go_on.clear()
            self._to_hold.add((kind, name))

    def let_go(self) -> None:
        """Answer whoever is held, and hold nobody any more."""
        with self._changed:
            self._to_hold.clear()
            self._may_go_on.set()

    def _is_to_be_held(self, kind: str, name: str) -> bool:
        with self._changed:
            is_first = (kind, name) in self._to_hold
            self._to_hold.discard((kind, name))
            return is_first

    def add(self, kind: str, name: str) -> None:
        with self._changed:
            self._entries.append(Entry(kind, name, time.monotonic()))
            self._changed.notify_all()

    @property
    def entries(self) -> list[Entry]:
        with self._changed:
            return list(self._entries)

    def names(self, kind: str = "step") -> list[str]:
        return [entry.name for entry in self.entries if entry.kind == kind]

    def wait_for(self, kind: str, name: str, timeout: float = 30, *, times: int = 1) -> None:
        """Return once there are so many of this entry. Raises `AssertionError` after `timeout` seconds without."""

        def is_there() -> bool:
            return sum(entry.kind == kind and entry.name == name for entry in self._entries) >= times

        with self._changed:
            assert self._changed.wait_for(is_there, timeout), f"no '{kind} {name}' in {self._entries}"


class Serves(Protocol):
    """An API, such as `harness.api.Api`."""

    def serve(self, http: BaseHTTPRequestHandler) -> None:
        """Answer the request that has come."""


AnyLedger = TypeVar("AnyLedger", bound=Ledger)


class Server(ThreadingHTTPServer):
    """Serves on a free port of this machine; `with` it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.api: Serves | None = None
        self.policies: dict[str, str] = {}
        self.ledgers: dict[str, Ledger] = {}

    def put(self, path: str, text: str) -> None:
        """Serve `text` at `path`, instead of any file."""
        self.files[path] = text.encode()

    def new_ledger(self) -> Ledger:
        return self.new_ledger_of(Ledger)

    def new_ledger_of(self, kind: type[AnyLedger]) -> AnyLedger:
        name = str(len(self.ledgers))
        ledger = kind(f"{self.origin}/ledger/{name}")
        self.ledgers[name] = ledger
        return ledger

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle is what these tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def translate_path(self, path: str) -> str:
        path = unquote(urlsplit(path).path)
        mounts: list[tuple[str, Callable[[str], Path]]] = [
            ("/coop/durably/", lambda rest: DIST / "durably" / rest),
            ("/coop/scenarios", lambda rest: TESTS / f"scenarios{rest}"),
            ("/coop/", lambda rest: PAGES / rest),
            ("/t/durably/", lambda rest: DIST / "durably" / rest),
            ("/readme/durably/", lambda rest: DIST / "durably" / rest),
            ("/t/scenarios", lambda rest: TESTS / f"scenarios{rest}"),
            ("/t/", lambda rest: PAGES / rest),
            ("/", lambda rest: DIST / rest),
        ]
        found = next(place(path.removeprefix(prefix)) for prefix, place in mounts if path.startswith(prefix))
        return str(found / "index.html" if path == "/" else found)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self._is_for_api(path):
            return
        if path in self.server.files:
            self._answer(200, self.server.files[path], self.guess_type(path))
        elif path.startswith("/coop/") and path.endswith(("worker.js", "deputy.js")):
            source = Path(self.translate_path(path)).read_bytes()
            self._answer(200, source + ONE_HANDLE, self.guess_type(path))
        else:
            super().do_GET()

    def do_DELETE(self) -> None:
        if not self._is_for_api(self.path):
            self._answer(404)

    def do_POST(self) -> None:
        if self._is_for_api(self.path):
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        ledger = self.server.ledgers.get(url.path.removeprefix("/ledger/"))
        if ledger is None:
            self._answer(404)
            return
        answer = ledger.hear(parse_qsl(url.query, keep_blank_values=True))
        self._answer(200 if answer else 204, answer.encode())

    def end_headers(self) -> None:
        policy = self.server.policies.get(urlsplit(self.path).path)
        if policy is not None:
            self.send_header("Content-Security-Policy", policy)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is pytest's."""

    def _is_for_api(self, path: str) -> bool:
        """Whether it is, in which case it has been answered."""
        api = self.server.api if path.startswith("/api/") else None
        if api is not None:
            api.serve(self)
        return api is not None

    def _answer(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
