"""How quickly a run goes on, and how quickly tabs hear of each other: medians, printed beside what is aimed at.

`DURABLY_ROUNDS` sets how often each is measured (3; 20 where they are to be quoted). Where tabs are compared
their own clock is read, which is one clock; a crash is seen from outside, so that figure has a round trip to the test's
server in it.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from statistics import median

import pytest
from harness.browser import Browser
from harness.checks import step_times
from harness.server import Ledger, Server

pytestmark = pytest.mark.alone

ROUNDS = int(os.environ.get("DURABLY_ROUNDS", "3"))
LENIENT = 4
"""A busy machine may take so many times as long before a test fails: what is sought here are mistakes by magnitudes."""

DEARER = {"chromium": 1, "firefox": 5}
"""The aims are Chromium's. In Firefox handles to files cost 30 to 60 times as much, and a commit several times."""

ENDLESS = 100_000


def report(what: str, milliseconds: list[float], aim: float) -> None:
    ordered = sorted(milliseconds)
    figures = f"median {median(ordered):.0f} ms, {ordered[0]:.0f} to {ordered[-1]:.0f}, of {len(ordered)}"
    print(f"\n{what}: {figures}; aim {aim:.0f} ms")
    assert median(ordered) <= aim * LENIENT


def first_step_after(ledger: Ledger, moment: float, steps: int) -> float:
    """Milliseconds from `moment` to the beginning of the next step; `steps` had begun before."""
    deadline = time.monotonic() + 20
    while len(step_times(ledger)) <= steps:
        assert time.monotonic() < deadline, "nobody goes on"
        time.sleep(0.002)
    return 1000 * (step_times(ledger)[steps] - moment)


def first_repetition_after(ledger: Ledger, moment: float) -> float:
    """The same to the step that was in flight at that moment, when it begins again."""
    deadline = time.monotonic() + 20
    while True:
        steps = [entry for entry in ledger.entries if entry.kind == "step"]
        for before, again in pairwise(steps):
            if again.at > moment and again.name == before.name:
                return 1000 * (again.at - moment)
        assert time.monotonic() < deadline, "nobody takes over the step that was in flight"
        time.sleep(0.002)


@pytest.mark.engines("chromium")
def test_a_second_tab_takes_over_from_one_whose_process_crashed(browser: Browser, ledger: Ledger) -> None:
    taken = []
    worker = browser.tab()
    worker.connect(ledger.url)
    for _ in range(ROUNDS):
        run_id = worker.trigger("chain", {"ledger": ledger.url, "steps": ENDLESS, "seconds": 0.1})
        other = browser.tab()
        other.connect(ledger.url)
        steps = len(step_times(ledger))
        first_step_after(ledger, 0, steps)
        at = browser.crash(worker)
        taken.append(first_repetition_after(ledger, at))
        other.js("id => durably.cancel(id)", run_id)
        worker = other
    report("take-over by another tab, from the crash to the next step", taken, 150)


@pytest.mark.engines("chromium", "firefox")
def test_a_run_goes_on_after_a_reload_as_soon_as_the_engine_is_up(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    gone_on = []
    for _ in range(ROUNDS):
        run_id = tab.trigger("chain", {"ledger": ledger.url, "steps": ENDLESS, "seconds": 0.02})
        first_step_after(ledger, 0, len(step_times(ledger)))
        browser.reload(tab)
        reloaded_at = tab.js("Date.now()")
        tab.connect(ledger.url)
        connected_at = tab.js("connectedAt")
        first_step_after(ledger, 0, len(step_times(ledger)) + 1)
        begun = tab.js("async id => (await durably.getSteps(id)).map(step => Date.parse(step.startedAt))", run_id)
        gone_on.append(min(at for at in begun if at >= reloaded_at) - connected_at)
        tab.js("id => durably.cancel(id)", run_id)
    report(
        f"{browser.engine.name}: after a reload, from the end of connect() to the next step",
        gone_on,
        50 * DEARER[browser.engine.name],
    )


@pytest.fixture
def two_ledgers(server: Server) -> tuple[Ledger, Ledger]:
    return server.new_ledger(), server.new_ledger()


@pytest.mark.engines("chromium", "firefox")
def test_a_trigger_in_a_tab_without_room_starts_at_once_in_another(
    browser: Browser, two_ledgers: tuple[Ledger, Ledger]
) -> None:
    busy, ledger = two_ledgers
    first, second = browser.tab(), browser.tab()
    first.connect()
    second.connect()
    first.trigger("chain", {"ledger": busy.url, "steps": ENDLESS, "seconds": 0.1})
    busy.wait_for("step", "step-01")
    second.js("() => { window.started = []; durably.on('run:start', event => started.push(event)) }")
    started = []
    for _ in range(ROUNDS):
        asked, run_id = first.js(
            """async ledger => {
                const asked = Date.now()
                return [asked, (await durably.trigger('chain', { ledger, steps: 1, seconds: 0 })).id]
            }""",
            ledger.url,
        )
        assert second.follow(run_id)["status"] == "completed"
        [at] = second.js(
            "id => started.filter(event => event.runId === id).map(event => Date.parse(event.timestamp))", run_id
        )
        started.append(at - asked)
    report(
        f"{browser.engine.name}: from a trigger in one tab to the start in another",
        started,
        20 * DEARER[browser.engine.name],
    )


@pytest.mark.engines("chromium", "firefox")
def test_an_event_of_one_tab_is_heard_at_once_in_another(browser: Browser, ledger: Ledger) -> None:
    first, second = browser.tab(), browser.tab()
    first.connect()
    second.connect()
    for tab in (first, second):
        tab.js("() => { window.at = {}; durably.on('step:complete', e => at[e.runId + e.stepName] ??= Date.now()) }")
    run_id = first.trigger("chain", {"ledger": ledger.url, "steps": 4 * ROUNDS, "seconds": 0.02})
    assert second.follow(run_id)["status"] == "completed"
    for tab in (first, second):
        tab.page.wait_for_function("count => Object.keys(at).length === count", arg=4 * ROUNDS)
    heard, there = first.js("at"), second.js("at")
    delays = [abs(there[key] - heard[key]) for key in heard]
    report(f"{browser.engine.name}: between the two tabs' hearing of an event", [float(delay) for delay in delays], 20)
