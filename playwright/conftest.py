"""Fixtures of the browser tests. They need `dist`, so build it first: `python build.py site`.

A test runs in Chromium, unless it is marked with the engines that it is for: `@pytest.mark.engines("firefox")`.
Chromium is the one that DURABLY_CHROMIUM names, else Playwright's own; Firefox the one that DURABLY_FIREFOX names.

Its profile is a copy of one in which there is a snapshot of Python and nothing else, for to start Python anew is most
of what a test would wait for. A test that is marked with `new_profile` has one in which nothing is, and so has one that
is marked with `alone`: where time is measured, no snapshot may be made beside it when one is lost. DURABLY_SNAPSHOTS=0
gives it to all: every test has to pass with Python started anew, too.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserType, Playwright

# Test modules are imported by their path, so what they share has to be made known: `harness`, and the scenarios.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from harness.browser import ENGINES, Browser, Engine  # noqa: E402 - the path comes first
from harness.profiles import Profiles  # noqa: E402 - the path comes first
from harness.server import Ledger, Server  # noqa: E402 - the path comes first

SNAPSHOTS = os.environ.get("DURABLY_SNAPSHOTS") != "0"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def profiles(playwright: Playwright, server: Server) -> Iterator[Profiles]:
    with tempfile.TemporaryDirectory(prefix="durably-profiles-", ignore_cleanup_errors=True) as folder:
        yield Profiles(playwright, server, Path(folder))


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
def browser(
    request: pytest.FixtureRequest,
    playwright: Playwright,
    engine: Engine,
    server: Server,
    profiles: Profiles,
    tmp_path: Path,
) -> Iterator[Browser]:
    """A browser with a profile of the test's own. An error in any of its tabs fails the test."""
    browser_type: BrowserType = getattr(playwright, engine.kind)
    profile = tmp_path / "profile"
    has_snapshot = SNAPSHOTS and not any(map(request.node.get_closest_marker, ("new_profile", "alone")))
    if has_snapshot:
        profiles.copy(engine, profile)
    browser = Browser(browser_type, profile, server, engine, has_snapshot=has_snapshot)
    try:
        yield browser
    finally:
        browser.stop()
        shutil.rmtree(profile, ignore_errors=True)  # pytest would keep it, with all that is in it
    browser.check()
