"""The wheel is all that durably needs: in a worker with Pyodide and nothing of ours, `micropip.install` is enough."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from harness.browser import Browser, Tab
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import DIST, Ledger, Server

WHEEL = "durably/" + json.loads((DIST / "durably" / "manifest.json").read_text("utf-8"))["wheel"]
NO_BLOB = "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'"


def begin(tab: Tab, name: str, **environment: str) -> None:
    """Call a function of `pages/one_wheel.py` in a worker of the page."""
    tab.js("begin", [WHEEL, name, environment])


def said(tab: Tab) -> Any:
    """What it returns."""
    text = tab.js("said")
    assert not text.startswith("stopped"), text
    return json.loads(text)


def test_with_the_wheel_alone_a_run_survives_a_reload(browser: Browser, ledger: Ledger) -> None:
    """Nobody has registered a JavaScript module, and no header is set: the bridge comes out of the wheel."""
    tab = browser.tab("/t/bare.html")
    ledger.hold("step", "step-09")
    begin(tab, "survive", LEDGER=ledger.url)
    ledger.wait_for("step", "step-09", timeout=60)
    browser.reload(tab)
    begin(tab, "survive", LEDGER=ledger.url)

    assert said(tab) == [True, chain_output(), "opfs"]
    assert_survived(ledger, chain_names(), interruptions=1)


def test_where_no_worker_may_come_from_a_blob_the_error_names_the_way_out_and_it_works(
    browser: Browser, server: Server
) -> None:
    """The policy is the worker's own, as a site sends it with every file."""
    with zipfile.ZipFile(DIST / WHEEL) as wheel:
        server.put("/elsewhere/bridge.mjs", wheel.read("durably/databases/web/bridge.mjs").decode())
    server.policies["/t/bare-worker.js"] = NO_BLOB
    tab = browser.tab("/t/bare.html")
    begin(tab, "refused")

    no_bridge, kind, too_long = said(tab)
    assert "Content-Security-Policy" in no_bridge
    assert "DURABLY_BRIDGE_URL" in no_bridge
    assert kind == "opfs"
    assert "choose a shorter one" in too_long, "what the bridge throws is an error of durably"


def test_on_the_main_thread_the_error_says_to_use_a_worker(browser: Browser) -> None:
    tab = browser.tab("/t/bare.html")
    source = 'from durably import create_durably\nawait create_durably("main.sqlite3").init()'
    error = tab.js("([wheel, source]) => errorHere(wheel, source)", [WHEEL, source])
    assert "StorageError" in error
    assert "Use a worker" in error
