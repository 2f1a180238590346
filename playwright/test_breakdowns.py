"""A worker that is blocked, broken or put aside: what the page does about it."""

from __future__ import annotations

import pytest
from harness.browser import Browser
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import Ledger, Server

TRIES = 3
CANCEL = "async id => { const start = performance.now(); await durably.cancel(id); return performance.now() - start }"


@pytest.mark.alone
def test_a_step_that_never_ends_is_cancelled_within_a_second(browser: Browser, server: Server) -> None:
    """Python is interrupted in the middle of its loop, and nothing else in the worker is disturbed.

    At the best of a few times: on a machine that has no time for it the worker is rightly ended.
    """
    tab = browser.tab()
    tab.connect()
    was_interrupted = False
    for _ in range(TRIES):
        endless, other = server.new_ledger(), server.new_ledger()
        run_id = tab.trigger("never-ends", {"ledger": endless.url})
        endless.wait_for("step", "loop")

        tab.js("window.worker = durably.worker")
        took = tab.js(CANCEL, run_id)
        is_same = tab.js("durably.worker === window.worker")

        print(f"an endless step was cancelled in {took:.0f} ms, {'without' if is_same else 'with'} its worker's end")
        assert tab.run(run_id)["status"] == "cancelled"
        assert endless.names() == ["before", "loop"]
        again = tab.trigger("chain", {"ledger": other.url, "steps": 5})
        assert tab.follow(again)["output"] == chain_output(5)
        was_interrupted = took < 1000 and is_same
        if was_interrupted:
            break
    assert was_interrupted, "it was never interrupted within a second, with nothing else disturbed"


@pytest.mark.alone
def test_a_step_that_cannot_be_interrupted_is_ended_with_its_worker(browser: Browser, ledger: Ledger) -> None:
    """Python is deep in C code there, and the browser gives a worker two seconds to end.

    Whoever waits for another run, since its very trigger, goes on waiting.
    """
    tab = browser.tab()
    tab.connect(ledger.url)
    tab.js("window.worker = durably.worker")
    tab.js("ledger => void (window.waited = within(durably.triggerAndWait('asks', { ledger })))", ledger.url)
    ledger.wait_for("step", "asks")
    run_id = tab.trigger("never-ends", {"ledger": ledger.url, "in_c": True})
    ledger.wait_for("step", "loop")

    took = tab.js(CANCEL, run_id)

    print(f"a step that cannot be interrupted was cancelled in {took:.0f} ms")
    assert tab.js("durably.worker !== window.worker")
    assert tab.run(run_id)["status"] == "cancelled"
    tab.js("async () => durably.signal((await durably.getRuns({ jobName: 'asks' }))[0].id, 'answer', 'yes')")
    assert tab.js("waited")["output"] == "yes"
    again = tab.trigger("chain", {"ledger": ledger.url, "steps": 1})
    assert tab.follow(again)["output"] == chain_output(1)


@pytest.mark.alone
def test_another_tab_can_cancel_a_step_that_never_ends(browser: Browser, server: Server) -> None:
    endless, other = server.new_ledger(), server.new_ledger()
    first, second = browser.tab(), browser.tab()
    first.connect(other.url)
    run_id = first.trigger("never-ends", {"ledger": endless.url})
    endless.wait_for("step", "loop")
    second.connect()  # the blocked worker cannot even hear of it

    second.js("id => durably.cancel(id)", run_id)

    again = first.trigger("chain", {"ledger": other.url, "steps": 2})
    assert first.follow(again)["output"] == chain_output(2)
    assert first.run(run_id)["status"] == "cancelled"
    assert endless.names() == ["before", "loop"]


@pytest.mark.alone
def test_a_step_that_does_not_let_itself_be_cancelled_is_ended_with_its_worker(
    browser: Browser, ledger: Ledger
) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    tab.js("window.worker = durably.worker")
    run_id = tab.trigger("is-stubborn", {"ledger": ledger.url})
    ledger.wait_for("step", "stays")

    tab.js(CANCEL, run_id)

    assert tab.run(run_id)["status"] == "cancelled"
    tab.page.wait_for_function("durably.worker !== window.worker", timeout=20_000)
    again = tab.trigger("chain", {"ledger": ledger.url, "steps": 1})
    assert tab.follow(again)["output"] == chain_output(1)


@pytest.mark.alone
def test_cancelling_a_run_does_not_end_a_worker_that_is_busy_with_another(browser: Browser, server: Server) -> None:
    busy, other = server.new_ledger(), server.new_ledger()
    tab = browser.tab()
    tab.connect(busy.url)
    pending = tab.trigger("asks", {"ledger": other.url})
    other.wait_for("step", "asks")
    run_id = tab.trigger("think", {"ledger": busy.url, "busy": 2})
    busy.wait_for("step", "think")

    tab.js(CANCEL, pending)

    assert tab.follow(run_id)["status"] == "completed"
    assert tab.run(pending)["status"] == "cancelled"
    assert_survived(busy, ["before", "think", "after"], interruptions=0)


def test_listeners_and_subscribers_live_through_a_new_worker(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    tab.js("() => { window.all = []; durably.on('*', event => all.push(`${event.type} ${event.runId}`)) }")
    run_id = tab.trigger("never-ends", {"ledger": ledger.url})
    tab.js("id => void (window.followed = follow(id))", run_id)
    ledger.wait_for("step", "loop")

    tab.js(CANCEL, run_id)

    assert tab.js("followed")["status"] == "cancelled"
    assert tab.js("heard.at(-1).type") == "run:cancel"
    again = tab.trigger("chain", {"ledger": ledger.url, "steps": 1})
    assert tab.follow(again)["status"] == "completed"
    heard = tab.js("all")
    assert f"run:cancel {run_id}" in heard
    assert f"run:complete {again}" in heard


@pytest.mark.alone
def test_a_job_that_breaks_python_is_parked_after_three_times_and_the_page_still_works(
    browser: Browser, ledger: Ledger
) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    browser.expect_error("fatal error")
    browser.expect_error("Maximum call stack")
    browser.expect_error("died 3 times")
    run_id = tab.trigger("breaks-its-tab", {"ledger": ledger.url})

    run = tab.follow(run_id)

    assert run["status"] == "failed"
    assert "died 3 times in step 'break'" in run["error"]
    assert ledger.names() == ["before", "break", "break", "break"]
    again = tab.trigger("chain", {"ledger": ledger.url, "steps": 2})
    assert tab.follow(again)["output"] == chain_output(2)


def test_a_job_that_crashes_its_tab_is_parked_after_three_times(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("think", {"ledger": ledger.url, "busy": 600})
    for times in range(1, 4):
        ledger.wait_for("step", "think", times=times)
        browser.crash(tab)
        tab = browser.tab()
        tab.connect()

    browser.expect_error("died 3 times")
    run = tab.follow(run_id)

    assert run["status"] == "failed"
    assert "died 3 times in step 'think'" in run["error"]


def test_reloads_in_the_middle_of_a_long_step_are_nobodys_fault(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("never-ends", {"ledger": ledger.url})
    for times in range(1, 5):
        ledger.wait_for("step", "loop", times=times)
        browser.reload(tab)
        tab.connect()

    # Its worker is blocked once more: what has failed could not be cancelled.
    ledger.wait_for("step", "loop", times=5)
    tab.js(CANCEL, run_id)
    assert tab.run(run_id)["status"] == "cancelled"


@pytest.mark.engines("chromium", "chromium-that-keeps-pages", "firefox")
def test_a_page_that_comes_back_from_the_cache_of_pages_works_again(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    run_id = tab.trigger("chain", {"ledger": ledger.url})
    ledger.wait_for("step", "step-05")

    tab.js("window.isTheSamePage = true")
    tab.page.goto(tab.page.url.replace("job.html", "storage.html"))
    tab.page.go_back(wait_until="commit")
    tab.page.wait_for_function("window.ready")
    was_kept = tab.js("window.isTheSamePage === true")
    print(f"the browser {'kept the page' if was_kept else 'loaded the page again'}")
    assert was_kept or not browser.engine.keeps_pages
    if not was_kept:
        tab.connect()

    assert tab.follow(run_id)["output"] == chain_output()
    assert_survived(ledger, chain_names(), interruptions=1)
