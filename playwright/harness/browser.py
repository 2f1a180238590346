"""A real browser on a profile that lasts, whose tabs can be reloaded, closed and crashed, and itself killed.

Chromium is driven by its own protocol, stock Firefox by WebDriver BiDi; a test cannot tell, but for what an `Engine`
says of it.

Every error that a page or worker reports, and every request to somewhere else, is kept as a problem; `check` fails
if there is one that the test did not expect.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demo import FLAGS
from playwright.sync_api import Browser as PlaywrightBrowser
from playwright.sync_api import BrowserContext, BrowserType, CDPSession, ConsoleMessage, Page, Response

from .server import Server

OTHER_HOST = "durably.test"
"""A name for the test server that browsers do not trust, unlike 127.0.0.1."""

# No name but these leads anywhere, so that nothing can be fetched from the network, by a worker neither.
HOSTS = f"--host-resolver-rules=MAP {OTHER_HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
WARNING = "console warning"
UNREAD = "Failed to load ‘’. A ServiceWorker intercepted the request and encountered an unexpected error."

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows the latter is as deadly


@dataclass(frozen=True)
class Engine:
    """A browser, and the way in which it is to run durably."""

    name: str
    """How the tests name it."""
    kind: str = "chromium"
    """Whose it is."""
    pages: str = "/t/"
    """Where its pages are: below `/coop/`, durably's worker finds that a file cannot be opened twice at once."""
    keeps_pages: bool = False
    """Whether Chromium keeps a page for the way back, as it does for its users; Playwright turns that off."""
    preferences: dict[str, str | float | bool] = field(default_factory=dict)
    """Firefox's, beside those of all."""


# Firefox is to fetch nothing, to look for nothing new, and to measure time as exactly as it can.
QUIET_FIREFOX: dict[str, str | float | bool] = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,  # where nobody listens; this machine itself is reached without a proxy
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.dns.localDomains": OTHER_HOST,
    "network.proxy.no_proxies_on": f"127.0.0.1, {OTHER_HOST}",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.normandy.enabled": False,
    "services.settings.server": "data:,#",
    "privacy.reduceTimerPrecision": False,
}
ENGINES = {
    engine.name: engine
    for engine in (
        Engine("chromium"),
        Engine("chromium-coop", pages="/coop/"),
        Engine("chromium-that-keeps-pages", keeps_pages=True),
        Engine("firefox", "firefox"),
        Engine(
            "firefox-without-jspi", "firefox", preferences={"javascript.options.wasm_js_promise_integration": False}
        ),
    )
}


class Tab:
    """A tab with a page that offers `durably` to the test, as `playwright/pages/job.html` does."""

    def __init__(self, page: Page, *, has_snapshot: bool = False) -> None:
        self.page = page
        self._has_snapshot = has_snapshot

    def js(self, expression: str, argument: Any = None) -> Any:
        """What an expression, or a function of `argument`, gives in the page; promises are awaited."""
        return self.page.evaluate(expression, argument)

    def connect(
        self,
        ledger_url: str | None = None,
        *,
        jobs: tuple[str, ...] = ("./jobs.py",),
        database: str = "test.sqlite3",
        snapshot: bool | None = None,
    ) -> None:
        """Connect to a database; the ledger is told of it, and of every checkpoint that the page hears of.

        By itself a page uses a snapshot of Python where its browser began with one. Elsewhere it would make one, and a
        second Python would be started for it beside the test.
        """
        options = {
            "database": database,
            "jobs": list(jobs),
            "snapshot": self._has_snapshot if snapshot is None else snapshot,
        }
        self.js("start", {"ledger": ledger_url, "options": options})

    def report_to(self, ledger_url: str) -> None:
        """Tell a ledger, from now on, of every checkpoint that the page hears of."""
        self.js("reportTo", ledger_url)

    def refusal(self, expression: str, argument: Any = None) -> dict[str, Any]:
        """The error that a call in the page throws: its `name`, `status` and `message`, and if it `isDurably`."""
        found: dict[str, Any] = self.js(f"async (argument) => refusal(({expression}), argument)", argument)
        return found

    def trigger(self, job: str, payload: Any, **options: Any) -> str:
        """Trigger a run; its id."""
        run = self.js("([job, payload, options]) => durably.trigger(job, payload, options)", [job, payload, options])
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.js("id => durably.getRun(id)", run_id)
        return found

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.js("id => durably.getSteps(id)", run_id)
        return found

    def follow(self, run_id: str) -> dict[str, Any]:
        """Subscribe to a run to its end; the run as it is then."""
        found: dict[str, Any] = self.js("follow", run_id)
        return found


@dataclass(frozen=True)
class Process:
    id: int
    parent: int
    command: str


def end_process(process_id: int) -> None:
    with suppress(ProcessLookupError):  # it may have gone with its parent
        os.kill(process_id, KILL)


class Browser:
    """One profile of one browser. `stop` it, whatever happened to it before."""

    def __init__(
        self,
        browser_type: BrowserType,
        profile: Path,
        server: Server,
        engine: Engine = ENGINES["chromium"],
        *,
        scale: float = 1,
        has_snapshot: bool = False,
    ) -> None:
        """`scale` is how many pixels of the screen one of the page takes each way.

        `has_snapshot` says of the profile that it is one of `harness.profiles`.
        """
        self._type = browser_type
        self.engine = engine
        self._profile = profile
        self._server = server
        self._scale = scale
        self.has_snapshot = has_snapshot
        self._problems: list[str] = []
        self._expected: list[str] = []
        self._context: BrowserContext
        self.start()

    def start(self) -> None:
        """Start it, after `stop` or `kill` again."""
        self._context = self._launch()
        self._context.on("console", self._heard)
        self._context.on("weberror", lambda error: self._uncaught(str(error.error)))
        self._context.on("request", lambda request: self._requested(request.url))
        self._context.on("response", self._answered)

    def _launch(self) -> BrowserContext:
        if self.engine.kind == "firefox":
            return self._type.launch_persistent_context(
                self._profile,
                channel="moz-firefox",
                executable_path=os.environ.get("DURABLY_FIREFOX") or "firefox-esr",
                firefox_user_prefs=QUIET_FIREFOX | self.engine.preferences,
                env={**os.environ, "MOZ_HEADLESS": "1"},
            )
        return self._type.launch_persistent_context(
            self._profile,
            executable_path=os.environ.get("DURABLY_CHROMIUM") or None,
            args=[*FLAGS, HOSTS],
            device_scale_factor=self._scale,
            ignore_default_args=["--disable-back-forward-cache"] if self.engine.keeps_pages else None,
        )

    def tab(self, path: str = "/t/job.html", *, host: str = "127.0.0.1", until: str = "window.ready") -> Tab:
        """Open a page, and wait for it to be `until` (an expression of JavaScript)."""
        page = self._context.new_page()
        path = path.replace("/t/", self.engine.pages, 1)
        page.goto(f"http://{host}:{self._server.server_port}{path}")
        page.wait_for_function(until)
        return Tab(page, has_snapshot=self.has_snapshot)

    def reload(self, tab: Tab, *, until: str = "window.ready") -> None:
        tab.page.reload()
        tab.page.wait_for_function(until)

    def close(self, tab: Tab) -> None:
        tab.page.close()

    def crash(self, tab: Tab) -> float:
        """Let the process behind a tab of Chromium crash; when, by a ledger's clock. Its page is of no use then."""
        target = self._context.new_cdp_session(tab.page).send("Target.getTargetInfo")["targetInfo"]["targetId"]
        # Nobody answers "Page.crash", so it goes by a detour on which no answer is waited for.
        devtools = self._devtools()
        session = devtools.send("Target.attachToTarget", {"targetId": target, "flatten": False})["sessionId"]
        crash = json.dumps({"id": 1, "method": "Page.crash"})
        at = time.monotonic()
        with tab.page.expect_event("crash"):
            devtools.send("Target.sendMessageToTarget", {"sessionId": session, "message": crash})
        return at

    def renderer(self, tab: Tab) -> int:
        """The process behind a tab of Chromium: the one that works when its page is at work."""
        before = self._work_of_renderers()
        tab.js("() => { const end = performance.now() + 300; while (performance.now() < end); }")
        after = self._work_of_renderers()
        return max(after, key=lambda process_id: after[process_id] - before.get(process_id, 0))

    def _work_of_renderers(self) -> dict[int, float]:
        found = self._devtools().send("SystemInfo.getProcessInfo")["processInfo"]
        return {process["id"]: process["cpuTime"] for process in found if process["type"] == "renderer"}

    def kill(self) -> None:
        """End the browser's processes at once, as a power cut would end them."""
        if self.engine.kind == "firefox":
            ids = [process.id for process in self._processes()]
        else:
            found = self._devtools().send("SystemInfo.getProcessInfo")["processInfo"]
            ids = [process["id"] for process in sorted(found, key=lambda process: process["type"] != "browser")]
        with self._context.expect_event("close"):
            for process_id in ids:
                end_process(process_id)

    def _processes(self) -> list[Process]:
        """Those of this profile, the first of which has started the others."""
        listed = subprocess.run(["ps", "-axww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)  # noqa: S607 - where `ps` is differs
        lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
        everything = [Process(int(number), int(parent), " ".join(command)) for number, parent, *command in lines]
        ours = [process for process in everything if str(self._profile) in process.command.split()]
        for process in ours:
            ours += [child for child in everything if child.parent == process.id and child not in ours]
        return ours

    @property
    def version(self) -> str:
        return self._own().version

    def stop(self) -> None:
        self._context.close()

    def expect_error(self, text: str) -> None:
        """Allow errors with this text in them, and demand that there is one."""
        self._expected.append(text)

    def check(self, *, with_log: bool = True) -> None:
        """Fail with what went wrong since the last time; what was expected must have come.

        `with_log` counts what Python logs, too, which comes out as warnings of the console.
        """
        problems = [problem for problem in self.take_problems() if with_log or not problem.startswith(WARNING)]
        expected, self._expected = self._expected, []
        unexpected = [problem for problem in problems if not any(text in problem for text in expected)]
        assert not unexpected, "\n".join(["the browser reports:", *unexpected])
        missing = [text for text in expected if not any(text in problem for problem in problems)]
        assert not missing, f"expected, but not reported: {missing}"

    def take_problems(self) -> list[str]:
        """What went wrong since the last time, for a test that judges it itself."""
        problems, self._problems = self._problems, []
        return problems

    def set_offline(self, offline: bool) -> None:
        self._context.set_offline(offline)

    def _own(self) -> PlaywrightBrowser:
        browser = self._context.browser
        assert browser is not None, "a browser of our own"
        return browser

    def _devtools(self) -> CDPSession:
        return self._own().new_browser_cdp_session()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self._problems.append(f"console {message.type}: {message.text} ({message.location['url']})")

    def _uncaught(self, error: str) -> None:
        # Firefox now and then reports an error with nothing in it after a worker was terminated. Where it comes from
        # is not known; one that says anything at all is a problem. And it calls it an error of the service worker's
        # when a page that reads a stream of it goes, or wants no more.
        if not (self.engine.kind == "firefox" and (error == "undefined" or error == UNREAD)):
            self._problems.append(f"uncaught: {error}")

    def _requested(self, url: str) -> None:
        address = urlsplit(url)
        ours = address.hostname in ("127.0.0.1", OTHER_HOST) and address.port == self._server.server_port
        if address.scheme not in ("data", "blob") and not ours:
            self._problems.append(f"a request to another origin: {url}")

    def _answered(self, response: Response) -> None:
        # The console tells of it too, but not of a worker's.
        if response.status >= 400:
            self._problems.append(f"{response.url} answered {response.status}")
