"""Any page of a site can fetch durably's API: its service worker has the answers from a tab that has an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from harness.browser import OTHER_HOST, Browser, Tab
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import Ledger, Server
from playwright.sync_api import expect

SCRIPT = 'importScripts("./durably/durably-sw.js")\n'
in_both = pytest.mark.engines("chromium", "firefox")


@pytest.fixture(autouse=True)
def site(server: Server) -> None:
    server.put("/t/sw.js", SCRIPT)


def engine_tab(
    browser: Browser, *, script: str = "./sw.js", jobs: str = "./jobs.py", database: str = "app.sqlite3"
) -> Tab:
    tab = browser.tab()
    start_engine(tab, script=script, jobs=jobs, database=database)
    return tab


def start_engine(tab: Tab, *, script: str = "./sw.js", jobs: str = "./jobs.py", database: str = "app.sqlite3") -> None:
    tab.js("start", {"options": {"database": database, "jobs": [jobs], "serviceWorker": script}})


def plain_tab(browser: Browser) -> Tab:
    return browser.tab("/t/plain.html")


def ask(tab: Tab, path: str, **init: Any) -> dict[str, Any]:
    answer: dict[str, Any] = tab.js("([path, init]) => ask(path, init)", [path, init])
    return answer


def trigger(tab: Tab, job: str, payload: Any) -> str:
    answer = ask(tab, "/trigger", json={"jobName": job, "input": payload})
    assert (answer["status"], answer["body"]["disposition"]) == (200, "created"), answer
    return str(answer["body"]["runId"])


def output_of(tab: Tab, run_id: str) -> Any:
    run = ask(tab, f"/run?runId={run_id}")["body"]
    assert run["status"] == "completed"
    return run["output"]


def wait_until_over(tab: Tab) -> list[str]:
    """What was seen of the run that is watched, once it has ended."""
    tab.page.wait_for_function("seen.isOver", timeout=60_000)
    types: list[str] = tab.js("seen.types")
    return types


def wait_for_answers(tab: Tab, count: int) -> None:
    """Return once so many requests are under way; the answers of those that nobody reads must end."""
    tab.page.wait_for_function(
        """async (count) => {
          const { held } = await navigator.locks.query()
          return held.filter(({ name }) => name.startsWith("durably:answers:")).length === count
        }""",
        arg=count,
    )


@in_both
def test_every_page_can_ask_from_the_first_load_on(browser: Browser, ledger: Ledger) -> None:
    """Even one that was there before there was a service worker: trigger, runs, steps, events, and what is refused."""
    browser.expect_error("404")
    browser.expect_error("405")
    browser.expect_error("400")
    plain = plain_tab(browser)
    engine = engine_tab(browser)
    assert engine.js("navigator.serviceWorker.controller !== null"), "`connect` resolves when the page is controlled"
    plain.page.wait_for_function("navigator.serviceWorker.controller")

    run_id = trigger(plain, "chain", {"ledger": ledger.url, "steps": 5})
    plain.js("watch", run_id)
    types = wait_until_over(plain)

    assert (types[0] in ("run:trigger", "run:start"), types[-1]) == (True, "run:complete")
    assert "run:progress" in types
    assert (plain.js("seen.opened"), plain.js("seen.lost")) == (1, 0)
    assert output_of(plain, run_id) == chain_output(5)
    runs = ask(plain, "/runs?limit=10")
    assert (runs["status"], [run["id"] for run in runs["body"]]) == (200, [run_id])
    assert runs["headers"]["content-type"] == "application/json"
    assert [step["name"] for step in ask(plain, f"/steps?runId={run_id}")["body"]] == chain_names(5)

    unknown = ask(plain, "/run?runId=nobody")
    assert (unknown["status"], unknown["headers"]["durably-error"]) == (404, "NotFoundError")
    assert unknown["body"] == {"error": "there is no run nobody"}
    wrong = ask(plain, "/trigger")
    assert (wrong["status"], wrong["headers"]["allow"]) == (405, "POST")
    broken = plain.js(
        "() => fetch('/api/durably/trigger', { method: 'POST', body: new Uint8Array([255]) }).then(r => r.status)"
    )
    assert broken == 400
    wait_for_answers(plain, 0)


@in_both
def test_a_stream_goes_on_in_another_tab_when_the_one_that_sent_it_is_closed(browser: Browser, ledger: Ledger) -> None:
    """The handler hears of it what a server would."""
    engine = engine_tab(browser)
    plain = plain_tab(browser)
    run_id = trigger(plain, "asks", {"ledger": ledger.url})
    plain.js("watch", run_id)
    plain.page.wait_for_function("seen.types.length > 0")
    other = engine_tab(browser)
    other.js(
        """() => {
          window.asked = []
          const { postMessage } = Worker.prototype
          Worker.prototype.postMessage = function (message, ...rest) {
            if (message.url) asked.push(message)
            return postMessage.call(this, message, ...rest)
          }
        }"""
    )
    told = plain.js("seen.lastId")
    browser.close(engine)

    plain.page.wait_for_function("seen.lost === 1 && seen.opened === 2")
    [again] = other.js("asked")
    assert (again["method"], again["url"]) == ("GET", f"/subscribe?runId={run_id}")
    assert again["headers"]["accept"] == "text/event-stream"
    # Chromium shows it to servers, but not to service workers.
    assert again["headers"].get("last-event-id") == (told if browser.engine.kind == "firefox" else None)
    assert ask(plain, f"/signal?runId={run_id}", json={"name": "answer", "payload": "yes"})["status"] == 200
    assert wait_until_over(plain)[-1] == "run:complete"
    assert output_of(plain, run_id) == "yes"
    wait_for_answers(plain, 0)


@in_both
def test_a_run_is_followed_across_a_reload_of_the_tab_that_executes_it(browser: Browser, ledger: Ledger) -> None:
    engine = engine_tab(browser)
    plain = plain_tab(browser)
    run_id = trigger(plain, "chain", {"ledger": ledger.url, "seconds": 0.2})
    plain.js("watch", run_id)
    ledger.wait_for("step", "step-05")
    browser.reload(engine)
    start_engine(engine)

    assert wait_until_over(plain)[-1] == "run:complete"
    assert plain.js("seen.lost") > 0
    assert output_of(plain, run_id) == chain_output()
    assert_survived(ledger, chain_names(), interruptions=1)


@in_both
def test_without_an_engine_a_fetch_is_refused_and_an_event_source_waits_for_one(
    browser: Browser, ledger: Ledger
) -> None:
    browser.expect_error("503")
    engine = engine_tab(browser)
    plain = plain_tab(browser)
    run_id = trigger(plain, "asks", {"ledger": ledger.url})
    browser.close(engine)

    refused = ask(plain, "/runs")
    assert (refused["status"], refused["headers"]["durably-error"]) == (503, "NoEngineError")
    assert "engine" in refused["body"]["error"]
    assert int(refused["headers"]["retry-after"]) > 0
    plain.js("watch", run_id)
    plain.page.wait_for_function("seen.lost >= 2")
    assert (plain.js("source.readyState"), plain.js("seen.types")) != (2, []), "it has not given up"

    # What is asked while an engine boots waits for it, however long that takes.
    booting = browser.tab()
    booting.js(
        """() => {
          const options = { database: "app.sqlite3", jobs: ["./jobs.py"], serviceWorker: "./sw.js" }
          window.started = start({ options })
        }"""
    )
    booting.page.wait_for_function("window.booting")
    assert ask(plain, f"/signal?runId={run_id}", json={"name": "answer", "payload": "now"})["status"] == 200
    booting.js("started")
    assert wait_until_over(plain)[-1] == "run:complete"


@in_both
def test_a_newer_service_worker_takes_over_at_once_and_streams_go_on(
    browser: Browser, server: Server, ledger: Ledger
) -> None:
    """A stream under way would keep the old one in office for minutes."""
    engine_tab(browser)
    plain = plain_tab(browser)
    run_id = trigger(plain, "asks", {"ledger": ledger.url})
    plain.js("watch", run_id)
    plain.page.wait_for_function("seen.types.length > 0")
    server.put("/t/sw.js", SCRIPT + "// a newer one")
    took_over = plain.js(
        """async () => {
          const registration = await navigator.serviceWorker.ready
          const took = new Promise((resolve) => (navigator.serviceWorker.oncontrollerchange = resolve))
          await registration.update()
          const began = performance.now()
          const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it does not take over")), 20_000))
          await Promise.race([took, late])
          return performance.now() - began
        }"""
    )
    print(f"the newer service worker took over within {took_over:.0f} ms")

    plain.page.wait_for_function("seen.opened >= 2")
    assert ask(plain, f"/signal?runId={run_id}", json={"name": "answer", "payload": "new"})["status"] == 200
    assert wait_until_over(plain)[-1] == "run:complete"
    wait_for_answers(plain, 0)


def test_a_service_worker_that_the_browser_ends_is_not_missed(browser: Browser, ledger: Ledger) -> None:
    """It keeps nothing that another one would need; and of what it had begun nothing is left in the engine's tab.

    The client goes on by itself. An `EventSource` does not: to it that is an error for good.
    """
    engine_tab(browser)
    tab = browser.tab()
    tab.js("start", {"options": {"url": "/api/durably", "serviceWorker": "./sw.js"}})
    run_id = tab.trigger("asks", {"ledger": ledger.url})
    tab.js("id => { window.followed = follow(id) }", run_id)
    tab.page.wait_for_function("heard.length > 0")
    told = tab.js("heard.length")
    devtools = tab.page.context.new_cdp_session(tab.page)
    devtools.send("ServiceWorker.enable")
    devtools.send("ServiceWorker.stopAllWorkers")

    tab.page.wait_for_function("told => heard.length > told", arg=told)
    wait_for_answers(tab, 1)
    tab.js("id => durably.signal(id, 'answer', 'again')", run_id)
    assert tab.js("followed")["output"] == "again"
    wait_for_answers(tab, 0)


@in_both
def test_what_nobody_reads_any_more_ends_in_the_engines_tab(browser: Browser, ledger: Ledger) -> None:
    """An `EventSource` that is closed, a fetch that is aborted, a tab that is closed."""
    engine = engine_tab(browser)
    plain, other = plain_tab(browser), plain_tab(browser)
    run_id = trigger(plain, "asks", {"ledger": ledger.url})
    abortable = """async () => {
      window.controller = new AbortController()
      const response = await fetch("/api/durably/runs/subscribe", { signal: controller.signal })
      window.reading = response.text().catch((error) => error.name)
    }"""
    plain.js("watch", run_id)
    plain.js(abortable)
    other.js(abortable)
    wait_for_answers(engine, 3)
    plain.js("source.close()")
    wait_for_answers(engine, 2)
    assert plain.js("() => { controller.abort(); return reading }") == "AbortError"
    wait_for_answers(engine, 1)
    browser.close(other)
    wait_for_answers(engine, 0)


@in_both
def test_a_request_whose_tab_goes_is_asked_of_another_one_if_it_only_reads(browser: Browser, ledger: Ledger) -> None:
    """Any other may have been done: it is refused with the error that says so."""
    browser.expect_error("503")
    engine = engine_tab(browser)
    plain = plain_tab(browser)
    trigger(plain, "thinks-at-once", {"ledger": ledger.url, "busy": 60})
    ledger.wait_for("step", "think")
    plain.js(
        """ledger => {
          window.reading = ask("/runs")
          window.changing = ask("/trigger", { json: { jobName: "asks", input: { ledger } } })
        }""",
        ledger.url,
    )
    wait_for_answers(plain, 2)
    browser.close(engine)
    changing = plain.js("changing")
    assert (changing["status"], changing["headers"]["durably-error"]) == (503, "ConnectionLostError")
    engine_tab(browser, jobs="./client_jobs.py")
    assert plain.js("reading")["status"] == 200


def test_a_run_that_blocks_the_engine_is_cancelled_by_any_page(browser: Browser, ledger: Ledger) -> None:
    browser.expect_error("409")
    engine_tab(browser)
    plain = plain_tab(browser)
    run_id = trigger(plain, "never-ends", {"ledger": ledger.url})
    ledger.wait_for("step", "loop")
    cancelled = ask(plain, f"/cancel?runId={run_id}", method="POST")
    assert (cancelled["status"], cancelled["body"]) == (200, {"success": True})
    assert ask(plain, f"/run?runId={run_id}")["body"]["status"] == "cancelled"
    again = ask(plain, f"/cancel?runId={run_id}", method="POST")
    assert (again["status"], again["headers"]["durably-error"]) == (409, "ConflictError")


@in_both
def test_links_lead_to_the_api_where_its_path_is_in_the_folder_of_the_service_worker(
    browser: Browser, server: Server
) -> None:
    """As for a site that is not at the root of its origin. A form can change nothing: another site could send it."""
    browser.expect_error("403")
    server.put("/favicon.ico", "")  # which a browser wants for a page that names none
    engine_tab(browser, script="./sw.js?base=api/durably")
    plain = plain_tab(browser)
    link = """() => {
      const link = document.body.appendChild(document.createElement("a"))
      link.textContent = "a copy"
      link.href = "api/durably/export"
    }"""
    plain.js(link)
    with plain.page.expect_download() as download:
        plain.page.get_by_text("a copy").click()
    assert Path(download.value.path()).read_bytes().startswith(b"SQLite format 3\0")

    plain.page.goto(plain.page.url.replace("plain.html", "api/durably/runs"))
    assert plain.page.evaluate("document.body.textContent") == "[]"
    form = """() => {
      const form = document.body.appendChild(document.createElement("form"))
      Object.assign(form, { method: "POST", action: "trigger", enctype: "text/plain" })
      form.submit()
    }"""
    with plain.page.expect_navigation() as navigation:
        plain.js(form)
    assert navigation.value.status == 403


def test_a_page_that_was_loaded_past_the_service_worker_is_controlled_all_the_same(browser: Browser) -> None:
    """A reload with the shift key pressed keeps a page out of its control."""
    tab = engine_tab(browser)
    devtools = tab.page.context.new_cdp_session(tab.page)
    with tab.page.expect_navigation():
        devtools.send("Page.reload", {"ignoreCache": True})
    tab.page.wait_for_function("window.ready")
    assert tab.js("navigator.serviceWorker.controller") is None
    start_engine(tab)
    assert tab.js("fetch('/api/durably/jobs').then(({ status }) => status)") == 200


@in_both
def test_a_service_worker_that_cannot_be_had_is_an_error_that_says_why(browser: Browser, server: Server) -> None:
    server.put("/t/empty.js", "")
    server.put("/t/root.js", SCRIPT)
    if browser.engine.kind == "chromium":
        browser.expect_error("404")
    tab = browser.tab()
    connect = "(script) => connect({ database: 'app.sqlite3', serviceWorker: script })"
    refused = {
        "./nowhere.js": "nowhere.js",
        "./durably/durably-sw.js": "/t/durably/",
        "./root.js?base=/": "root.js",
        "./empty.js": "durably-sw.js",
    }
    for script, fact in refused.items():
        error = tab.refusal(connect, script)
        assert (error["name"], error["status"], error["isDurably"]) == ("ServiceWorkerError", 503, True), error
        assert fact in error["message"]
    insecure = browser.tab(host=OTHER_HOST)
    error = insecure.refusal(connect, "./sw.js")
    assert error["name"] == "ServiceWorkerError"
    assert re.search(r"https.+localhost", error["message"])


def test_the_dashboard_of_a_page_without_an_engine(browser: Browser, server: Server) -> None:
    element = '<link rel="icon" href="data:,"><durably-dashboard url="/api/durably"></durably-dashboard>'
    server.put("/t/watching.html", f'{element}<script type="module" src="./durably/dashboard.js"></script>')
    engine_tab(browser, jobs="./client_jobs.py")
    page = browser.tab("/t/watching.html", until="document.body").page
    page.get_by_role("button", name="Run a job").first.click()
    page.get_by_label("Job", exact=True).select_option("fails")
    page.get_by_label("Input").fill("on purpose")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_text("Failed").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".rows .row")).to_contain_text(["on purpose"])
