"""The scenarios of `tests/scenarios*.py` inside Pyodide, on OPFS. `tests/test_scenarios.py` runs them on CPython."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
from harness.browser import ENGINES, Browser, Tab
from harness.server import Server
from playwright.sync_api import Playwright

# Each registers its scenarios in the first one, which the others import.
FILES = ("scenarios", "scenarios_durable", "scenarios_storage")
for file in FILES:
    importlib.import_module(file)
SCENARIOS = importlib.import_module(FILES[0]).SCENARIOS


@pytest.fixture(scope="module", params=["chromium", "chromium-coop"])
def shared_browser(
    request: pytest.FixtureRequest, playwright: Playwright, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """One browser for all scenarios: each has databases of its own."""
    browser = Browser(playwright.chromium, tmp_path_factory.mktemp("scenarios"), server, ENGINES[request.param])
    yield browser
    browser.stop()


@pytest.fixture(scope="module")
def tab(shared_browser: Browser) -> Tab:
    tab = shared_browser.tab()
    files = (*FILES, "run_scenario")
    tab.connect(jobs=tuple(f"./{file}.py" for file in files), database="runner.sqlite3")
    return tab


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(shared_browser: Browser, tab: Tab, name: str) -> None:
    run = tab.follow(tab.trigger("run-scenario", name))
    assert run["output"] == "ok", run["error"]
    shared_browser.check(with_log=False)  # some scenarios are about errors that get logged
