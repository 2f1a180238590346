"""Two tabs of one page, on one database at once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import Ledger, Server

pytestmark = pytest.mark.engines("chromium", "chromium-coop", "firefox")

HEARTBEAT_ALONE_MS = 2500
"""A closed tab whose death nobody can see is taken for dead no earlier than this after it."""
STALE_SECONDS = 3.0


def begin_to_follow(tab: Tab, run_id: str) -> None:
    """Let `await followed` in the page give the run once it has ended."""
    tab.js("id => void (window.followed = follow(id))", run_id)


def outcome(run: dict[str, Any]) -> tuple[str, int]:
    return run["status"], run["output"]


def test_each_of_two_tabs_sees_the_runs_of_both_and_each_step_is_executed_once(
    browser: Browser, server: Server
) -> None:
    ledgers = server.new_ledger(), server.new_ledger()
    first, second = browser.tab(), browser.tab()
    # Either tab may take either run, so a tab's word of a checkpoint could be about the run of the other ledger.
    first.connect()
    second.connect()

    ledgers[0].hold("step", "step-04")
    run_of_first = first.trigger("chain", {"ledger": ledgers[0].url})
    begin_to_follow(second, run_of_first)
    ledgers[0].wait_for("step", "step-04")
    run_of_second = second.trigger("chain", {"ledger": ledgers[1].url})
    begin_to_follow(first, run_of_second)
    ledgers[1].wait_for("step", "step-01")
    ledgers[0].let_go()

    for tab in (first, second):
        assert outcome(tab.js("followed")) == ("completed", chain_output())
        assert tab.js("heard.at(-1).type") == "run:complete"
        assert outcome(tab.follow(run_of_first)) == ("completed", chain_output())
        assert outcome(tab.follow(run_of_second)) == ("completed", chain_output())
        assert tab.js("durably.getRuns().then(runs => runs.map(run => run.id))") == [run_of_second, run_of_first]
    for ledger in ledgers:
        assert_survived(ledger, chain_names(), interruptions=0)


@pytest.mark.engines("chromium", "chromium-coop", "firefox-without-jspi")
def test_when_one_tab_is_closed_the_other_goes_on_with_its_run(browser: Browser, ledger: Ledger) -> None:
    first, second = browser.tab(), browser.tab()
    first.connect(ledger.url)
    # Before the second is there, which might take it.
    ledger.hold("step", "step-03")
    run_id = first.trigger("chain", {"ledger": ledger.url})
    ledger.wait_for("step", "step-03")
    second.connect(ledger.url)
    begin_to_follow(second, run_id)
    second.run(run_id)

    browser.close(first)
    closed = time.monotonic()

    assert outcome(second.js("followed")) == ("completed", chain_output())
    assert_survived(ledger, chain_names(), interruptions=1)
    assert "run:stale" in second.js("heard.map(event => event.type)")
    _, again = [entry.at for entry in ledger.entries if (entry.kind, entry.name) == ("step", "step-03")]
    waited = 1000 * (again - closed)
    print(f"the step in flight began again {waited:.0f} ms after its tab was closed")
    assert waited < HEARTBEAT_ALONE_MS


def test_a_tab_that_comes_while_a_plain_step_keeps_the_other_busy_can_work_at_once(
    browser: Browser, server: Server
) -> None:
    """The other was alone when its step began, and cannot hear now that it no longer is.

    Nor is it robbed: for longer than the stale threshold it sends no heartbeat, but it is not dead.
    """
    busy, other = server.new_ledger(), server.new_ledger()
    first, second = browser.tab(), browser.tab()
    first.connect()
    warm_up = first.trigger("chain", {"ledger": other.url, "steps": 1, "seconds": 0})
    assert first.follow(warm_up)["status"] == "completed"
    busy.hold("step", "think")  # the whole worker waits for the answer
    long_run = first.trigger("think", {"ledger": busy.url, "busy": STALE_SECONDS + 1})
    busy.wait_for("step", "think")

    second.connect()
    run_id = second.trigger("chain", {"ledger": other.url, "steps": 1, "seconds": 0})
    assert second.follow(run_id)["status"] == "completed"

    busy.let_go()
    assert outcome(first.follow(long_run)) == ("completed", chain_output(3))
    assert_survived(busy, ["before", "think", "after"], interruptions=0)
