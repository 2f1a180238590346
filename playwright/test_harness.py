"""The tests' own tools: a test that could not fail would show nothing."""

from __future__ import annotations

import time

import pytest
from harness.browser import Browser
from harness.checks import assert_survived
from harness.server import Ledger, Server
from harness.snapshots import is_awake

IN_A_WORKER = """
source => void new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))
"""
MISHAPS = """
console.error("a complaint")
console.warn("a warning")
setTimeout(() => { throw new Error("a slip") })
Promise.reject(new Error("a refusal"))
fetch(`${origin}/not-there`)
fetch("http://elsewhere.test/").catch(() => {})
"""
PATIENCE_SECONDS = 20
REPORTS = ["a complaint", "a warning", "a slip", "a refusal", "/not-there answered 404", "http://elsewhere.test/"]


@pytest.mark.parametrize("run", ["source => void setTimeout(source)", IN_A_WORKER], ids=["page", "worker"])
def test_whatever_goes_wrong_in_a_page_or_its_worker_is_a_problem(browser: Browser, server: Server, run: str) -> None:
    tab = browser.tab()
    tab.js(run, f"const origin = '{server.origin}'; {MISHAPS}")
    missing, deadline = REPORTS, time.monotonic() + PATIENCE_SECONDS
    while missing and time.monotonic() < deadline:
        tab.page.wait_for_timeout(100)
        try:
            browser.check()
        except AssertionError as failure:
            missing = [report for report in missing if report not in str(failure)]
    assert missing == []
    browser.close(tab)
    browser.take_problems()  # some are told of twice


@pytest.mark.engines("chromium", "chromium-coop", "firefox")
def test_python_comes_from_the_snapshot_that_the_browser_began_with(browser: Browser) -> None:
    """Else all tests would do the same, only later."""
    tab = browser.tab()
    tab.connect()
    assert is_awake(tab) == browser.has_snapshot


def test_whoever_is_held_is_answered_when_let_go_and_others_at_once(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    post = f"fetch('{ledger.url}?step=a', {{ method: 'POST' }})"
    ledger.hold("step", "a")
    tab.js(f"void (window.first = {post}.then(() => (window.isOver = true)))")
    ledger.wait_for("step", "a")
    assert tab.js(f"{post}.then(({{ status }}) => status)") == 204
    assert not tab.js("window.isOver")
    ledger.let_go()
    assert tab.js("first")


def test_an_error_that_was_expected_must_come(browser: Browser) -> None:
    browser.expect_error("a complaint")
    with pytest.raises(AssertionError, match="not reported"):
        browser.check()


@pytest.mark.parametrize(
    "entries",
    [
        "step a, step b, step a, step b, step c",
        "step a, step b, step b, step b, step c",
        "step a, step a, step b, step b, step c",
        "step a, committed a, step a, step b, step c",
        "step a, step b",
        "step a, step c",
        "step b, step a, step c",
    ],
)
def test_a_ledger_with_a_repeated_or_missing_step_is_refused(server: Server, entries: str) -> None:
    assert not accepted(server.new_ledger(), entries)


def test_a_ledger_may_have_the_step_in_flight_twice(server: Server) -> None:
    assert accepted(server.new_ledger(), "step a, committed a, step b, step b, committed b, step c")


def accepted(ledger: Ledger, entries: str) -> bool:
    for entry in entries.split(", "):
        ledger.add(*entry.split())
    try:
        assert_survived(ledger, ["a", "b", "c"], interruptions=1)
    except AssertionError:
        return False
    return True
