"""A run goes on by itself after every way in which its worker can die, and nothing committed is done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.checks import assert_survived, chain_names, chain_output, take_over_ms
from harness.server import Ledger, Server
from harness.snapshots import is_awake, keep_snapshot

TAKE_OVER_MS = 3000
"""By far more than it takes: this is no benchmark."""

Interruption = Callable[[Browser, Tab], Tab]
"""Lets a worker die; returns a tab that can connect again."""


def reload(browser: Browser, tab: Tab) -> Tab:
    browser.reload(tab)
    return tab


def close_the_tab(browser: Browser, tab: Tab) -> Tab:
    browser.close(tab)
    return browser.tab()


def crash_the_tab(browser: Browser, tab: Tab) -> Tab:
    browser.crash(tab)
    return browser.tab()


def terminate_the_worker(browser: Browser, tab: Tab) -> Tab:
    tab.js("durably.worker.terminate()")
    return tab


def kill_the_browser(browser: Browser, tab: Tab) -> Tab:
    browser.kill()
    browser.start()
    return browser.tab()


@dataclass(frozen=True)
class Moment:
    """A run of `job`, and the entry of the ledger at which its worker is to die."""

    where: str
    job: str
    payload: dict[str, Any]
    entry: tuple[str, str]
    steps: list[str]
    output: Any


ROWS = 6
MOMENTS = [
    Moment("after the 2nd checkpoint", "chain", {}, ("committed", "step-02"), chain_names(), chain_output()),
    Moment(
        "in an open transaction",
        "keep-rows",
        {"steps": ROWS},
        ("step", "row-03"),
        [*[f"row-{number:02}" for number in range(1, ROWS + 1)], "rows"],
        list(range(1, ROWS + 1)),
    ),
    Moment("in the last step", "chain", {}, ("step", "step-20"), chain_names(), chain_output()),
]


@pytest.mark.engines("chromium", "firefox")
@pytest.mark.parametrize("python", ["anew", "awake"])
@pytest.mark.parametrize("interrupt", [reload, close_the_tab, crash_the_tab, terminate_the_worker, kill_the_browser])
def test_a_run_goes_on_by_itself_and_repeats_no_committed_step(
    browser: Browser, server: Server, interrupt: Interruption, python: str
) -> None:
    if interrupt is crash_the_tab and browser.engine.kind == "firefox":
        pytest.skip("as it is driven here, Firefox ends when a tab crashes, which kill_the_browser shows already")
    by_snapshot = python == "awake"
    tab = keep_snapshot(browser) if by_snapshot else browser.tab()
    tab.connect(snapshot=by_snapshot)
    for moment in MOMENTS:
        ledger = server.new_ledger()
        kind, name = moment.entry
        if kind == "step":
            ledger.hold(kind, name)
        tab.report_to(ledger.url)
        run_id = tab.trigger(moment.job, {"ledger": ledger.url, **moment.payload})
        ledger.wait_for(kind, name)

        tab = interrupt(browser, tab)
        tab.connect(ledger.url, snapshot=by_snapshot)
        run = tab.follow(run_id)

        assert is_awake(tab) == by_snapshot
        assert (run["status"], run["output"]) == ("completed", moment.output), moment.where
        assert_survived(ledger, moment.steps, interruptions=1)
        assert [step["name"] for step in tab.steps(run_id)] == moment.steps
        assert kind != "step" or ledger.names().count(name) == 2, "its worker did not die in it"
        waited = take_over_ms(ledger)
        print(f"{interrupt.__name__} {moment.where}: on after {waited:.0f} ms of a new connection")
        assert waited < TAKE_OVER_MS


@pytest.mark.engines("chromium", "chromium-coop")
def test_a_run_survives_five_reloads(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("chain", {"ledger": ledger.url})
    for number in (3, 6, 9, 13, 17):
        ledger.wait_for("step", f"step-{number:02}")
        browser.reload(tab)
        tab.connect(ledger.url)
    run = tab.follow(run_id)

    assert (run["status"], run["output"]) == ("completed", chain_output())
    assert_survived(ledger, chain_names(), interruptions=5)


@pytest.mark.engines("chromium", "firefox")
def test_a_run_survives_the_death_of_a_worker_that_a_plain_step_keeps_busy(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    # Chromium lets a busy worker go on for two seconds before it ends it by force.
    run_id = tab.trigger("think", {"ledger": ledger.url, "busy": 6})
    ledger.wait_for("step", "think")
    browser.reload(tab)
    tab.connect(ledger.url)
    run = tab.follow(run_id)

    assert (run["status"], run["output"]) == ("completed", chain_output(3))
    assert_survived(ledger, ["before", "think", "after"], interruptions=1)
    assert ledger.names().count("think") == 2, "it was over before it could be interrupted"
