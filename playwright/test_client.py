"""The client in JavaScript: one walk through all that it can do, with a worker in the page and with a server."""

from __future__ import annotations

import base64
import importlib.util
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from harness.api import Api
from harness.browser import Browser, Tab
from harness.server import PAGES, Server
from playwright.sync_api import expect

from durably import JobDefinition
from durably.events import EVENT_TYPES
from durably.http import Auth

JOBS = PAGES / "client_jobs.py"


@pytest.fixture
def api(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Api]:
    """Its guard is the parameter, if there is one."""
    module = module_of(JOBS)
    jobs = [value for value in vars(module).values() if isinstance(value, JobDefinition)]
    with Api(tmp_path / "app.sqlite3", jobs, getattr(request, "param", None)) as api:
        server.api = api
        yield api
        server.api = None


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_client_does_with_its_own_worker_what_it_says(browser: Browser) -> None:
    tab = browser.tab()
    tab.connect(jobs=(f"./{JOBS.name}",))
    walk(tab)
    assert tab.js("durably.storageInfo()")["kind"] == "opfs"


def test_the_client_does_with_a_server_what_it_says(browser: Browser, api: Api) -> None:
    """And goes on where it was when the connection to the server is lost, but not when it is closed."""
    browser.expect_error("/api/")  # a browser logs every refusal, and every connection that breaks
    tab = browser.tab()
    tab.js("start", {"options": {"url": "/api/"}})
    walk(tab)
    assert tab.js("durably.storageInfo()")["kind"] == "file"

    api.wait_for_streams(0)  # whatever was ended by its reader has been ended here
    asking = tab.js("async () => { window.asking = await durably.trigger('asks', 'why?'); return asking.id }")
    tab.js("() => { window.all = []; durably.on('*', (event) => all.push(event.type)) }")
    tab.js(
        "() => { window.types = []; window.ended = (async () => {"
        "  for await (const { type } of durably.subscribe(asking.id)) types.push(type)"
        "})() }"
    )
    tab.page.wait_for_function("types.length > 0")
    api.wait_for_streams(2)
    told = tab.js("types.length")

    api.drop()
    api.wait_for_streams(2)
    tab.js("id => durably.signal(id, 'answer', 'because')", asking)
    tab.js("within(ended)")

    types = tab.js("types")
    assert types[told] in ("run:trigger", "run:start"), "it is told the present state again"
    assert types[-1] == "run:complete"
    tab.page.wait_for_function("all.includes('run:complete')")

    pending = tab.trigger("asks", "still there?")
    tab.js("id => { window.waiting = durably.waitForRun(id); waiting.catch(() => {}) }", pending)
    api.wait_for_streams(2)
    tab.js("durably.close()")
    for call in ("() => waiting", "() => durably.getRuns()"):
        refused = tab.refusal(call)
        assert (refused["name"], refused["isDurably"]) == ("ConnectionClosedError", True)
    api.wait_for_streams(0)


@pytest.mark.parametrize("api", [Auth(on_run_access=lambda *_: False)], indirect=True)
def test_who_may_trigger_a_run_and_not_read_it_is_told_so(browser: Browser, api: Api) -> None:
    browser.expect_error("/api/")
    tab = browser.tab()
    tab.js("start", {"options": {"url": "/api/"}})
    refused = tab.refusal("() => durably.trigger('add', { numbers: [] })")
    assert (refused["name"], refused["status"], refused["message"]) == ("HTTPError", 403, "Forbidden")
    assert [run["jobName"] for run in tab.js("durably.getRuns()")] == ["add"]
    api.wait_for_streams(0)


def test_the_client_does_with_another_tabs_worker_what_it_says(browser: Browser, server: Server) -> None:
    """By way of the site's service worker, as it would with a server."""
    browser.expect_error("/api/durably/")  # a browser logs every refusal
    server.put("/t/sw.js", 'importScripts("./durably/durably-sw.js")')
    engine = browser.tab()
    options = {"database": "app.sqlite3", "jobs": [f"./{JOBS.name}"], "serviceWorker": "./sw.js"}
    engine.js("start", {"options": options})
    tab = browser.tab()
    tab.js("start", {"options": {"url": "/api/durably"}})
    walk(tab)
    assert tab.js("durably.storageInfo()")["kind"] == "opfs"


def test_the_dashboard_shows_the_runs_of_a_server(browser: Browser, server: Server, api: Api) -> None:
    """With the attribute `url` alone, and live: what it begins goes on over there."""
    element = '<link rel="icon" href="data:,"><durably-dashboard url="/api/"></durably-dashboard>'
    server.put("/t/of-a-server.html", f'{element}<script type="module" src="./durably/dashboard.js"></script>')
    tab = browser.tab("/t/of-a-server.html", until="document.body")
    page = tab.page
    page.get_by_role("button", name="Run a job").first.click()
    page.get_by_label("Job", exact=True).select_option("fails")
    page.get_by_label("Input").fill("on purpose")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("heading", name="fails")).to_be_visible()
    expect(page.get_by_text("Failed").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".rows .row")).to_contain_text(["on purpose"])
    browser.close(tab)
    api.wait_for_streams(0)


def walk(tab: Tab) -> None:
    """All that the client can do, but for what depends on where the jobs are run."""
    look_at_jobs(tab)
    trigger_what_blocks(tab)
    run_to_the_end(tab)
    listen_twice(tab)
    listen_in_vain(tab)
    hear_much_at_once(tab)
    trigger_several(tab)
    wait_in_vain(tab)
    end_a_subscription(tab)
    abort(tab)
    repeat_and_delete(tab)
    take_a_copy(tab)


def look_at_jobs(tab: Tab) -> None:
    jobs = {job["name"]: job["schema"] for job in tab.js("durably.jobs()")}
    assert sorted(jobs) == ["add", "asks", "blocks", "chats", "fails"]
    assert jobs["add"]["properties"]["numbers"]["items"] == {"type": "integer"}
    assert jobs["asks"] == {"type": "string"}


def trigger_what_blocks(tab: Tab) -> None:
    """A run is there as soon as it is stored, whatever its first step does: else there were no id to cancel it by."""
    triggered = "async () => [await durably.trigger('blocks', 2), (await durably.batchTrigger('blocks', [0]))[0]]"
    alone, of_several = tab.js(triggered)
    assert (alone["status"], alone["disposition"]) == ("pending", "created"), "asked for later it would be running"
    assert alone.keys() == of_several.keys()
    assert tab.follow(alone["id"])["status"] == tab.follow(of_several["id"])["status"] == "completed"

    refused = tab.refusal("() => durably.trigger('add', { numbers: ['a word'] })")
    assert (refused["name"], refused["status"]) == ("ValidationError", 400)
    assert "item" not in refused["message"]
    unknown = tab.refusal("() => durably.trigger('sing', 1)")
    assert (unknown["name"], unknown["status"]) == ("NotFoundError", 404)
    assert unknown["message"].startswith("no job named 'sing'")


def run_to_the_end(tab: Tab) -> None:
    """A run, and what is to be seen of it meanwhile and afterwards; nothing of it is missed, however quick it is."""
    seen = tab.js(
        """async () => {
          const seen = { heard: [], progress: [], logs: [] }
          const stop = durably.on("*", ({ type }) => seen.heard.push(type))
          let stopWaiting
          const completed = new Promise((resolve) => (stopWaiting = durably.on("run:complete", resolve)))
          seen.run = await within(durably.triggerAndWait("add", { numbers: [1, 2, 3] }, {
            labels: { kind: "sum" },
            onProgress: (progress) => seen.progress.push(progress.current),
            onLog: ({ level, message, data }) => seen.logs.push([level, message, data]),
            timeout: 60,
          }))
          await within(completed)
          stop()
          stopWaiting()
          return seen
        }"""
    )
    run = seen["run"]
    assert (run["status"], run["output"], run["labels"]) == ("completed", 6, {"kind": "sum"})
    assert seen["progress"] == [1, 2, 3]
    assert seen["logs"] == [["info", "added", {"total": 6}]]
    assert seen["heard"][0] == "run:trigger"
    assert seen["heard"].count("step:complete") == 3

    assert tab.run(run["id"]) == run
    assert [step["output"] for step in tab.steps(run["id"])] == [1, 3, 6]
    [line] = tab.js("id => durably.getLogs(id)", run["id"])
    assert line.pop("createdAt") <= run["completedAt"]
    assert line == {"id": 1, "stepName": None, "level": "info", "message": "added", "data": {"total": 6}}
    assert tab.js("durably.getRuns({ jobName: ['add', 'fails'], status: 'completed', labels: { kind: 'sum' } })") == [
        run
    ]
    assert tab.js("durably.getRuns({ jobName: 'add', status: [] })") == []
    assert tab.js("durably.getRuns({ jobName: [] })") == []


def listen_twice(tab: Tab) -> None:
    """A function that listens twice is two listeners, and each way to stop one stops that one alone."""
    heard = tab.js(
        """async () => {
          const heard = []
          let count = 0
          const listener = () => count++
          const complete = async () => {
            count = 0
            let stop
            // Registered last, and so called last.
            const told = new Promise((resolve) => (stop = durably.on("run:complete", resolve)))
            await durably.trigger("add", { numbers: [] })
            await within(told)
            stop()
            heard.push(count)
          }
          const stops = [1, 2].map(() => durably.on("run:complete", listener))
          await complete()
          stops[0]()
          stops[0]()
          await complete()
          stops.push(durably.on("run:complete", listener))
          stops[1]()
          stops[1]()
          await complete()
          stops[2]()
          await complete()
          return heard
        }"""
    )
    assert heard == [2, 1, 1, 0]


def listen_in_vain(tab: Tab) -> None:
    """To what is never told, or with what cannot be called: that is said at once, and not to the first event."""
    types = sorted(EVENT_TYPES)
    tab.js("types => types.map((type) => durably.on(type, () => {})).forEach((stop) => stop())", ["*", *types])
    unknown = tab.refusal("async () => durably.on('run:completed', () => {})")
    assert (unknown["name"], unknown["status"], unknown["isDurably"]) == ("ValidationError", 400, True)
    assert unknown["message"] == f"no event has the type 'run:completed'; known: *, {', '.join(types)}"
    for listener in ("undefined", "null", "{}", "'a word'"):
        refused = tab.refusal(f"async () => durably.on('run:start', {listener})")
        assert refused["name"] == "TypeError"
        assert "a listener is a function" in refused["message"]


def hear_much_at_once(tab: Tab) -> None:
    """More than a client may be behind: one that reads is not cut off for it, and misses nothing."""
    heard = tab.js(
        """async () => {
          const heard = { ofRun: [], ofAll: [] }
          const stop = durably.on("log:write", ({ message }) => heard.ofAll.push(message))
          let stopWaiting
          const completed = new Promise((resolve) => (stopWaiting = durably.on("run:complete", resolve)))
          await within(durably.triggerAndWait("chats", 2500, { onLog: ({ message }) => heard.ofRun.push(message) }))
          await within(completed)
          stop()
          stopWaiting()
          return heard
        }"""
    )
    lines = [f"line {number}" for number in range(2500)]
    assert heard == {"ofRun": lines, "ofAll": lines}


def trigger_several(tab: Tab) -> None:
    several = """async ([...inputs]) => {
      const { Trigger } = await import("./durably/durably.js")
      return durably.batchTrigger("add", inputs.map((input) =>
        Array.isArray(input) ? { numbers: input } : new Trigger(input.input, input.options)))
    }"""
    keyed = {"input": {"numbers": []}, "options": {"idempotencyKey": "once", "labels": {"of": "several"}}}
    runs = tab.js(several, [[1], keyed, keyed])
    assert [run["disposition"] for run in runs] == ["created", "created", "idempotent"]
    assert [run["labels"] for run in runs] == [{}, {"of": "several"}, {"of": "several"}]
    assert tab.follow(runs[0]["id"])["output"] == 1

    known = len(tab.js("durably.getRuns()"))
    refused = tab.refusal(several, [[1], ["a word"]])
    assert (refused["name"], refused["status"]) == ("ValidationError", 400)
    assert "item 1" in refused["message"]
    assert len(tab.js("durably.getRuns()")) == known

    skipping = "durably.trigger('add', { numbers: [] }, { concurrencyKey: 'c', coalesce: 'all' })"
    assert "coalesce" in tab.refusal(f"() => {skipping}")["message"]


def wait_in_vain(tab: Tab) -> None:
    """For a run that fails, for one that takes longer, and for one that is cancelled."""
    failed = tab.refusal(
        "() => durably.triggerAndWait('fails', 'no luck').catch((error) => { window.failed = error.run; throw error })"
    )
    assert (failed["name"], failed["isDurably"]) == ("RunFailedError", True)
    assert "no luck" in failed["message"]
    assert tab.js("failed.status") == "failed"
    assert tab.refusal("async () => { await durably.retry(failed.id); await durably.waitForRun(failed.id) }") == failed

    late = tab.refusal("() => durably.triggerAndWait('asks', 'who?', { labels: { is: 'late' }, timeout: 3 })")
    assert (late["name"], late["isDurably"]) == ("TimeoutError", True)
    [run] = tab.js("durably.getRuns({ labels: { is: 'late' } })")
    assert run["isActive"]
    answered = """async (id) => {
      const ended = durably.waitForRun(id)
      await durably.signal(id, "answer", "me")
      return await within(ended)
    }"""
    assert tab.js(answered, run["id"])["output"] == "me"

    assert tab.js("durably.triggerAndWait('add', { numbers: [] }, { timeout: null })")["status"] == "completed"
    for timeout in ("NaN", "-1", "'soon'"):
        senseless = tab.refusal(
            f"() => durably.triggerAndWait('asks', 'when?', {{ labels: {{ is: 'never' }}, timeout: {timeout} }})"
        )
        assert (senseless["name"], senseless["status"]) == ("ValidationError", 400)
        assert senseless["message"].startswith("timeout must be a number of seconds from 0 on, got ")
    assert tab.js("durably.getRuns({ labels: { is: 'never' } })") == []

    cancelled = tab.refusal(
        """async () => {
          const { id } = await durably.trigger("asks", "how?")
          const ended = durably.waitForRun(id)
          ended.catch(() => {})
          await durably.cancel(id)
          await ended
        }"""
    )
    assert (cancelled["name"], cancelled["status"]) == ("RunCancelledError", 409)


def end_a_subscription(tab: Tab) -> None:
    """Its `return` ends it, even while somebody waits for what comes next."""
    done = tab.js(
        """async () => {
          const { id } = await durably.trigger("asks", "what?", { labels: { is: "watched" } })
          const events = durably.subscribe(id)
          let event = (await within(events.next())).value
          const waiting = (async () => { while (!event.done) event = await events.next() })()
          await within(events.return())
          await within(waiting)
          return [event.done, (await events.next()).done, (await durably.getRun(id)).isActive]
        }"""
    )
    assert done == [True, True, True]


def abort(tab: Tab) -> None:
    """What is aborted rejects with the signal's own reason, and leaves no listener on it."""
    found = tab.js(
        """async () => {
          const [{ id }] = await durably.getRuns({ labels: { is: "watched" } })
          const reason = new Error("changed my mind")
          const listeners = []
          const rejections = []
          const aborted = async (begin, { before = false, after = Promise.resolve() } = {}) => {
            const controller = new AbortController()
            const { signal } = controller
            const kept = new Set()
            const { addEventListener, removeEventListener } = EventTarget.prototype
            signal.addEventListener = (type, listener, ...rest) => {
              kept.add(listener)
              addEventListener.call(signal, type, listener, ...rest)
            }
            signal.removeEventListener = (type, listener) => {
              kept.delete(listener)
              removeEventListener.call(signal, type, listener)
            }
            if (before) controller.abort(reason)
            const answer = begin(signal).then(() => "done", (error) => error === reason)
            await after
            controller.abort(reason)
            rejections.push(await within(answer))
            listeners.push(kept.size)
          }
          const through = async (events) => { for await (const event of events) window.last = event }
          await aborted((signal) => durably.getRuns({ signal }), { before: true })
          await aborted((signal) => durably.getSteps(id, { signal }))
          await aborted((signal) => durably.waitForRun(id, { signal }))
          await aborted((signal) => through(durably.subscribe(id, { signal })))
          const watching = new Promise((resolve) => (window.watched = resolve))
          const wait = (signal) => durably.triggerAndWait("asks", "when?", { signal, onLog: watched })
          await aborted(wait, { after: within(watching) })
          const answered = new Promise((resolve) => (window.gotRuns = resolve))
          await aborted((signal) => durably.getRuns({ signal }).then(gotRuns), { after: within(answered) })
          return { rejections, listeners }
        }"""
    )
    assert found["rejections"] == [True, True, True, True, True, "done"]
    assert found["listeners"] == [0] * 6


def repeat_and_delete(tab: Tab) -> None:
    [run] = tab.js("durably.getRuns({ labels: { kind: 'sum' } })")
    again = tab.js("id => durably.retrigger(id)", run["id"])
    assert (again["id"] != run["id"], again["payload"], again["labels"]) == (True, run["payload"], run["labels"])
    assert tab.follow(again["id"])["output"] == 6
    tab.js("id => durably.deleteRun(id)", run["id"])
    assert tab.run(run["id"]) is None
    refused = tab.refusal("async () => durably.deleteRun((await durably.getRuns({ labels: { is: 'watched' } }))[0].id)")
    assert (refused["name"], refused["status"]) == ("ConflictError", 409)


def take_a_copy(tab: Tab) -> None:
    """The export is a database that SQLite opens, with every run in it."""
    copy: dict[str, Any] = tab.js(
        """async () => {
          const blob = await durably.export()
          const bytes = new Uint8Array(await blob.arrayBuffer())
          const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")
          return { type: blob.type, data: btoa(text), ids: (await durably.getRuns()).map(({ id }) => id) }
        }"""
    )
    assert copy["type"] == "application/vnd.sqlite3"
    database = sqlite3.connect(":memory:")
    database.deserialize(base64.b64decode(copy["data"]))
    assert [row[0] for row in database.execute("SELECT id FROM durably_runs ORDER BY id DESC")] == copy["ids"]
    database.close()
