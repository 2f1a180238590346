"""Fixtures of the browser tests. They need `dist`, so build it first: `python build.py site`.

A test runs in Chromium, unless it is marked with the engines that it is for: `@pytest.mark.engines("firefox")`.
Chromium is the one that DURABLY_CHROMIUM names, else Playwright's own; Firefox the one that DURABLY_FIREFOX names.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserType, Playwright

# Test modules are imported by their path, so what they share has to be made known: `harness`, and the scenarios.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from harness.browser import ENGINES, Browser, Engine  # noqa: E402 - the path comes first
from harness.server import Ledger, Server  # noqa: E402 - as above


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def ledger(server: Server) -> Ledger:
    """A ledger of the test's own."""
    return server.new_ledger()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        metafunc.parametrize("engine", marker.args if marker else ["chromium"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


@pytest.fixture
def browser(playwright: Playwright, engine: Engine, server: Server, tmp_path: Path) -> Iterator[Browser]:
    """A browser with a profile of the test's own. An error in any of its tabs fails the test."""
    browser_type: BrowserType = getattr(playwright, engine.kind)
    browser = Browser(browser_type, tmp_path / "profile", server, engine)
    try:
        yield browser
    finally:
        browser.stop()
    browser.check()
