"""The browser that is measured, and the server of its pages.

`/bench/` is `web/bench` with durably's folder beside it, served as plainly as the site is; `/peer/` is the page of the
peer, with the headers of cross-origin isolation that it needs.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from harness.browser import Browser, Tab
from harness.server import DIST, Handler, Server
from playwright.sync_api import Playwright, sync_playwright

from .peers import PAGES, PEER_SITE

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


PATIENCE_SECONDS = 300
"""What a page is asked for comes within so long, or never."""
ASK = """
([name, given, patience]) => {
  const late = (_, reject) => setTimeout(() => reject(new Error(`no ${name} after ${patience} s`)), 1000 * patience)
  const asked = window[name]
  return Promise.race([typeof asked === "function" ? asked(...given) : asked, new Promise(late)])
}
"""


def ask(tab: Tab, name: str, *given: Any) -> Any:
    """What a function of the page gives, or a promise."""
    return tab.js(ASK, [name, given, PATIENCE_SECONDS])


class BenchHandler(Handler):
    """Serves the pages that are measured, and keeps count of what it sends."""

    def translate_path(self, path: str) -> str:
        plain = urlsplit(path).path
        for prefix, folder in (("/bench/durably/", DIST / "durably"), ("/bench/", PAGES), ("/peer/", PEER_SITE)):
            if plain.startswith(prefix):
                return str(folder / plain.removeprefix(prefix))
        return super().translate_path(path)

    def end_headers(self) -> None:
        if self.path.startswith("/peer/"):
            for name, value in ISOLATION.items():
                self.send_header(name, value)
        super().end_headers()

    def do_GET(self) -> None:  # noqa: N802 - the base class's
        server = self.server
        assert isinstance(server, BenchServer)
        server.asked.append(urlsplit(self.path).path)
        super().do_GET()


class BenchServer(Server):
    """Remembers in `asked` which paths were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = BenchHandler
        self.asked: list[str] = []


class Machine:
    """A browser type and a server: makes profiles, and pages in them."""

    def __init__(self, playwright: Playwright, server: BenchServer) -> None:
        self._playwright = playwright
        self.server = server
        self._numbers = itertools.count()
        self.browser_version = ""
        """Known once there was a profile."""

    @contextmanager
    def profile(self) -> Iterator[Browser]:
        """A browser with an empty profile, which goes away with it."""
        folder = Path(tempfile.mkdtemp(prefix="durably-bench-"))
        browser = Browser(self._playwright.chromium, folder / "profile", self.server)
        self.browser_version = f"Chromium {browser.version}"
        try:
            yield browser
        finally:
            browser.stop()
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def page(self, browser: Browser, path: str, **query: Any) -> Iterator[Tab]:
        """A page in a tab of its own, once it has connected."""
        tab = browser.tab(f"{path}?{urlencode(query, doseq=True)}", until="window.connected")
        try:
            ask(tab, "connected")
            yield tab
        finally:
            browser.close(tab)
        browser.check(with_log=False)

    def name(self) -> str:
        """A name for a database that nobody has used."""
        return f"bench-{next(self._numbers)}.sqlite3"


@contextmanager
def machine() -> Iterator[Machine]:
    """The machine, as long as it is needed."""
    with BenchServer() as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Machine(playwright, server)
        server.shutdown()
