"""Who lives, who is merely busy, who is suspended, and who has gone: what one tab does about another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.browser import Browser, Tab
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import Ledger, Server

STALE_SECONDS = 3.0
WORKER_LOCKS = """() => navigator.locks.query().then(({ held }) =>
  held.map(({ name }) => name).filter(name => name.startsWith("durably:worker:")))"""
IS_COMMITTING = """() => navigator.locks.query().then(({ held }) => held.some(({ name }) => name.endsWith("#write")))"""
SET_CLOCK = "seconds => new BroadcastChannel('the-clock').postMessage(seconds)"


@contextmanager
def suspended(process_id: int, other: Tab) -> Iterator[None]:
    """What a system does to a tab that it puts to sleep: nothing in it goes on, and nothing of it is taken away.

    Not in the middle of a commit, though, when nobody else can write before it has gone on: `other` can see that.
    """
    os.kill(process_id, signal.SIGSTOP)
    try:
        while other.js(IS_COMMITTING):
            os.kill(process_id, signal.SIGCONT)
            other.page.wait_for_timeout(17)
            os.kill(process_id, signal.SIGSTOP)
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def wait_until(tab: Tab, run_id: str, what: str) -> None:
    """Wait for a run to be as an expression says of it."""
    tab.page.wait_for_function(f"id => durably.getRun(id).then(run => {what})", arg=run_id)


@pytest.mark.alone
def test_a_suspended_tab_is_replaced_after_the_threshold_and_can_do_no_harm_when_it_wakes(
    browser: Browser, ledger: Ledger
) -> None:
    """It keeps its lock, as a suspended tab does for days; that it is silent in every way is all there is to see."""
    first = browser.tab()
    first.connect(ledger.url)
    process_id = browser.renderer(first)
    ledger.hold("step", "step-03")
    run_id = first.trigger("chain", {"ledger": ledger.url, "steps": 90, "seconds": 0.1})
    ledger.wait_for("step", "step-03")
    second = browser.tab()
    second.connect(ledger.url)
    assert browser.renderer(second) != process_id, "one process for both tabs: suspending it would stop the test"
    first.js("() => { window.all = []; durably.on('*', event => all.push(event)) }")
    ledger.let_go()
    ledger.wait_for("step", "step-05")

    with suspended(process_id, second):
        since = time.monotonic()
        before = len(ledger.names())
        ledger.wait_for("step", f"step-{before + 2:02}")
        too_soon = since + STALE_SECONDS - 0.5
        assert sum(entry.kind == "step" and entry.at < too_soon for entry in ledger.entries) <= before + 1
        steps = [entry.at for entry in ledger.entries if entry.kind == "step" and entry.at > since + 0.5]
        print(f"a suspended tab was replaced after {steps[0] - since:.2f} s")
        assert steps[0] - since < STALE_SECONDS + 2
        at_wake = len(ledger.names())
    second.page.wait_for_timeout(2000)
    assert second.follow(run_id)["output"] == chain_output(90)

    assert_survived(ledger, chain_names(90), interruptions=1)
    assert len(ledger.names()) > at_wake + 5, "it had ended before the first tab woke"
    [run] = first.js("durably.getRuns()")
    assert (run["status"], run["output"]) == ("completed", chain_output(90))
    again = first.trigger("chain", {"ledger": ledger.url, "steps": 1})
    assert first.follow(again)["status"] == "completed"


@pytest.mark.engines("chromium", "chromium-coop", "firefox")
def test_a_worker_that_is_busy_from_its_first_moment_on_keeps_its_run(browser: Browser, ledger: Ledger) -> None:
    """Its heartbeat is late, and there was no turn of the event loop in which a pulse could have come up."""
    first, second = browser.tab(), browser.tab()
    first.connect(ledger.url)
    second.connect(ledger.url)
    run_id = first.trigger("thinks-at-once", {"ledger": ledger.url, "busy": 5})
    ledger.wait_for("step", "think")
    executing = first if not second.js("durably.getRuns().then(() => false)") else second
    second.js("() => { window.stale = []; durably.on('run:stale', event => stale.push(event)) }")

    assert executing.follow(run_id)["status"] == "completed"
    assert ledger.names() == ["think"]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_loses_no_run_and_lets_none_be_executed_twice(
    browser: Browser, server: Server, hours: int
) -> None:
    ledgers = [server.new_ledger() for _ in range(4)]
    tabs = browser.tab(), browser.tab()
    for tab in tabs:
        tab.connect(jobs=("./jobs.py", "./jumping_jobs.py"))
    early = tabs[0].trigger("chain", {"ledger": ledgers[3].url, "steps": 1})
    assert tabs[1].follow(early)["status"] == "completed"
    runs = [tabs[0].trigger("chain", {"ledger": ledger.url, "steps": 20}) for ledger in ledgers[:3]]
    tabs[1].js("id => void (window.followed = follow(id))", runs[2])
    ledgers[0].wait_for("step", "step-05")

    tabs[0].js(SET_CLOCK, hours * 3600)

    for run_id, tab in zip(runs, [tabs[0], tabs[1], tabs[0]], strict=True):
        assert tab.follow(run_id)["output"] == chain_output()
    assert tabs[1].js("followed")["status"] == "completed"
    for ledger in ledgers[:3]:
        assert_survived(ledger, chain_names(), interruptions=0)
    late = tabs[1].trigger("chain", {"ledger": ledgers[3].url, "steps": 1})
    assert tabs[0].follow(late)["status"] == "completed"


@pytest.mark.alone
@pytest.mark.engines("chromium", "chromium-coop", "firefox")
def test_a_tab_that_is_closed_hands_over_what_it_does_and_all_that_waits_in_it(
    browser: Browser, server: Server
) -> None:
    working, napping, asking = server.new_ledger(), server.new_ledger(), server.new_ledger()
    first = browser.tab()
    first.connect(working.url)
    nap = first.trigger("naps", {"ledger": napping.url, "seconds": 20})
    wait_until(first, nap, "run.waitingFor === 'sleep:nap'")
    ask = first.trigger("asks", {"ledger": asking.url})
    wait_until(first, ask, "run.waitingFor === 'signal:answer'")
    working.hold("step", "step-02")
    chain = first.trigger("chain", {"ledger": working.url, "steps": 30, "seconds": 0.1})
    working.wait_for("step", "step-02")
    second = browser.tab()
    second.connect(working.url)

    browser.close(first)
    closed = time.monotonic()
    done = len(set(working.names()))
    working.wait_for("step", f"step-{done + 1:02}")
    went_on = next(entry.at for entry in working.entries if entry.kind == "step" and entry.at > closed)
    print(f"{1000 * (went_on - closed):.0f} ms after a tab was closed another went on with its run")
    assert went_on - closed < 1

    assert second.follow(chain)["output"] == chain_output(30)
    second.js("id => durably.signal(id, 'answer', 'yes')", ask)
    signalled = time.monotonic()
    assert second.follow(ask)["output"] == "yes"
    print(f"a run that waited in the closed tab took its signal within {1000 * (time.monotonic() - signalled):.0f} ms")
    assert time.monotonic() - signalled < 1
    run = second.follow(nap)
    assert run["output"] == "rested"
    assert_survived(working, chain_names(30), interruptions=1)


@pytest.mark.alone
@pytest.mark.engines("chromium", "firefox")
def test_a_tab_without_work_holds_no_workers_lock(browser: Browser, ledger: Ledger) -> None:
    """Else it would neither be put to sleep nor kept for the way back."""
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("chain", {"ledger": ledger.url, "steps": 2})
    assert len(tab.js(WORKER_LOCKS)) == 1
    assert tab.follow(run_id)["status"] == "completed"
    since = time.monotonic()
    while tab.js(WORKER_LOCKS):
        assert time.monotonic() - since < 5
        tab.page.wait_for_timeout(100)
    print(f"the lock was given back {time.monotonic() - since:.1f} s after the last run")


def test_a_subscriber_in_another_tab_hears_each_event_once_and_in_order(browser: Browser, server: Server) -> None:
    first, second = browser.tab(), browser.tab()
    first.connect()
    second.connect()
    for seconds in (0, 0.01, 0.15):
        ledger = server.new_ledger()
        ledger.hold("step", "step-03")
        run_id = first.trigger("chain", {"ledger": ledger.url, "steps": 12, "seconds": seconds}, labels={})
        ledger.wait_for("step", "step-03")
        second.js("id => { window.heard.length = 0; window.followed = follow(id); return durably.getRun(id) }", run_id)
        ledger.let_go()
        assert second.js("followed")["status"] == "completed"
        events = second.js("heard")
        told = [(event["type"], event.get("stepName")) for event in events if event["type"].startswith("step:")]
        assert len(told) == len(set(told))
        names = [name for kind, name in told if kind == "step:complete"]
        assert names == sorted(names)
        assert set(names) <= set(chain_names(12))
        assert names[-1] == "step-12", "the row was faster than the last messages"
        progress = [event["progress"]["current"] for event in events if event["type"] == "run:progress"]
        assert progress == sorted(progress)
        assert [event["type"] for event in events].count("run:complete") == 1
        assert events[-1]["type"] == "run:complete"


@pytest.mark.alone
def test_a_plain_step_that_blocks_is_ended_at_its_timeout(browser: Browser, server: Server) -> None:
    endless, other = server.new_ledger(), server.new_ledger()
    tab = browser.tab()
    tab.connect(other.url)
    tab.js("window.worker = durably.worker")
    tab.js("() => { window.retried = []; durably.on('step:retry', event => retried.push(event)) }")
    nap = tab.trigger("naps", {"ledger": other.url, "seconds": 1})
    wait_until(tab, nap, "run.waitingFor === 'sleep:nap' || run.status === 'completed'")
    run_id = tab.trigger("gives-up", {"ledger": endless.url})

    run = tab.follow(run_id)

    assert run["status"] == "completed"
    assert "0.5" in run["output"]
    assert endless.names() == ["loop", "loop"]
    assert [event["attempt"] for event in tab.js("retried")] == [1]
    steps = {step["name"]: step for step in tab.steps(run_id)}
    assert (steps["loop"]["status"], steps["loop"]["attempt"]) == ("failed", 2)
    assert tab.follow(nap)["output"] == "rested"
    assert tab.js("durably.worker === window.worker"), "nothing else was disturbed"
    times = [entry.at for entry in endless.entries]
    print(f"an endless step with a timeout of 500 ms was ended after {1000 * (times[1] - times[0]):.0f} ms")
    assert times[1] - times[0] < 3


@pytest.mark.alone
def test_a_plain_step_that_blocks_is_ended_with_its_jobs_timeout(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("is-given-up", {"ledger": ledger.url})

    run = tab.follow(run_id)

    assert run["status"] == "failed"
    assert "more than 1 s, the timeout of its job" in run["error"]
    assert ledger.names() == ["loop"]
    again = tab.trigger("chain", {"ledger": ledger.url, "steps": 1})
    assert tab.follow(again)["status"] == "completed"


@pytest.mark.alone
def test_two_runs_that_block_are_cancelled_at_once_and_one_worker_takes_the_place_of_the_old(
    browser: Browser, server: Server
) -> None:
    """Neither can be interrupted, so each cancel ends the worker; the second finds that done."""
    ledgers = server.new_ledger(), server.new_ledger()
    tab = browser.tab()
    tab.connect()
    runs = [tab.trigger("never-ends", {"ledger": ledger.url, "in_c": True}) for ledger in ledgers]
    ledgers[0].wait_for("step", "loop")
    tab.js(
        "() => { window.workers = 0; const Old = Worker; window.Worker = class extends Old {"
        " constructor(url, options) { super(url, options); if (options.name === 'durably') workers++ } } }"
    )

    cancelled = tab.js(
        "ids => Promise.allSettled([...ids, ...ids].map(id => durably.cancel(id)))"
        ".then(all => all.map(one => one.status === 'fulfilled' ? 'done' : one.reason.name))",
        runs,
    )

    assert sorted(cancelled) == ["ConflictError", "ConflictError", "done", "done"]
    assert tab.js("workers") == 1
    assert {tab.run(run_id)["status"] for run_id in runs} == {"cancelled"}
    again = tab.trigger("chain", {"ledger": ledgers[0].url, "steps": 1})
    assert tab.follow(again)["status"] == "completed"


@pytest.mark.alone
def test_a_job_file_that_breaks_python_is_refused(browser: Browser, server: Server) -> None:
    server.put("/t/breaking_jobs.py", "import json\njson.loads('[' * 100_000)\n")
    tab = browser.tab()
    browser.expect_error("fatal error")
    browser.expect_error("Maximum call stack")

    refused = tab.refusal("() => start({ options: { database: 'test.sqlite3', jobs: ['./breaking_jobs.py'] } })")

    assert refused["isDurably"]
    assert "broke down while it started" in refused["message"]


@pytest.mark.alone
def test_an_interruption_leaves_no_error_behind(browser: Browser, ledger: Ledger) -> None:
    """What the page starts in order to interrupt is ended as soon as that is done, and nobody waits for its answer."""
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("never-ends", {"ledger": ledger.url})
    ledger.wait_for("step", "loop")
    tab.js("id => durably.cancel(id)", run_id)
    tab.page.wait_for_timeout(5500)
