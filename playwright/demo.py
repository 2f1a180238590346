"""Drive the demo page without a window: start the import, reload the page in the middle, watch it go on.

Run as `demo.py URL` by `build.py demo --headless`. Prints live progress, then the page's report and what the
resumed run replayed and executed. The exit code is 0 only if the import was really resumed and the page
reported no error of any kind; otherwise the last line is a sentence with the reason. It takes 180 seconds at
the most.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from typing import Final

from playwright.sync_api import BrowserContext, Error, sync_playwright

LIMIT_S: Final = 180.0
RELOAD_AT: Final = 0.4
"""The share of all batches that is done when the page is reloaded."""
IDLE_AFTER_RELOAD_S: Final = 10.0
"""A page that still waits for a click this long after the reload has not found its unfinished import."""
FLAGS: Final = [
    "--no-sandbox",  # root cannot start it otherwise; it only ever sees our own page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class DemoError(Exception):
    """The demo did not do what it promises. The text says what was seen instead."""


class Progress:
    """What the page is doing: one line rewritten on a terminal, elsewhere a line at each change worth one."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last = ""

    def show(self, state: str, done: int, total: int) -> None:
        percent = 100 * done // total if total else 0
        if self._terminal:
            bar = "#" * (percent * 30 // 100)
            print(f"\r{state:<8} [{bar:<30}] {done} of {total} batches  ", end="", flush=True)
        elif self._last != (line := f"{state} {percent // 10 * 10} %"):
            self._last = line
            print(f"{state}: {done} of {total} batches" if total else state, flush=True)

    def line(self, text: str) -> None:
        """Print a line of its own, after what was shown so far."""
        print(f"\n{text}" if self._terminal else text, flush=True)


class Demo:
    """The demo page in one browser profile."""

    def __init__(self, context: BrowserContext) -> None:
        self.page = context.pages[0]
        self.problems: list[str] = []
        self._progress = Progress()
        self._deadline = time.monotonic() + LIMIT_S
        context.on("console", lambda message: self._note(message.type == "error", f"console: {message.text}"))
        context.on("weberror", lambda error: self._note(True, f"uncaught: {error.error}"))
        self.page.on("crash", lambda _: self._note(True, "the page crashed"))

    def _note(self, bad: bool, text: str) -> None:
        if bad:
            self.problems.append(text)

    def attribute(self, name: str) -> str:
        return self.page.locator("html").get_attribute(f"data-{name}") or ""

    def number(self, name: str) -> int:
        text = self.attribute(name)
        return int(text) if text.isdecimal() else 0

    def watch(self, *, until: str, share: float = 1.0, patience_s: float = LIMIT_S) -> None:
        """Show progress until the page's state is `until` and `share` of the batches are done.

        `DemoError` if the page failed, finished too early, sat idle for `patience_s`, or time ran out.
        """
        idle_since = time.monotonic()
        while True:
            state = self.attribute("state")
            done, total = self.number("batches-done"), self.number("batches-total")
            self._progress.show(state, done, total)
            if self.problems:
                raise DemoError(f"The page reported an error: {self.problems[0]}")
            if state == "failed":
                raise DemoError(f"The page says: {self.page.locator('#error').inner_text()}")
            if state == until and (until != "running" or (total and done >= share * total)):
                return
            if state == "done":
                raise DemoError("The import was over before the page could be reloaded in the middle of it.")
            if state != "ready":
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > patience_s:
                raise DemoError("After the reload, the page found no unfinished import to go on with.")
            if time.monotonic() > self._deadline:
                raise DemoError(f"After {LIMIT_S:.0f} seconds the page is still {state or 'blank'}.")
            self.page.wait_for_timeout(100)

    def play(self, url: str) -> None:
        """Import, reload in the middle, wait for the end, and print the outcome."""
        self.page.goto(url)
        self.watch(until="ready")
        self._progress.line("The page is ready: importing the sample.")
        self.page.locator("#full-speed").uncheck()
        self.page.locator("#import-sample").click()
        self.watch(until="running", share=RELOAD_AT)
        self._progress.line(f"Reloading the page after {self.number('batches-done')} batches.")
        self.page.reload()
        self.watch(until="done", patience_s=IDLE_AFTER_RELOAD_S)
        replayed, executed = self.number("replayed"), self.number("executed")
        self._progress.line(f"\n{self.page.locator('#report').inner_text()}\n")
        if self.problems:
            raise DemoError(f"The page reported an error: {self.problems[0]}")
        if not replayed or not executed:
            raise DemoError(f"Nothing was resumed: {replayed} steps replayed, {executed} executed.")
        print(f"resumed after reload: {replayed} steps replayed, {executed} executed", flush=True)


def give_up() -> None:
    """End the process: nothing gentler reaches a thread whose call to the browser does not return."""
    print(f"\nThe demo hung: the browser did not answer within {LIMIT_S:.0f} seconds.", flush=True)
    os._exit(1)


def main(url: str) -> int:
    watchdog = threading.Timer(LIMIT_S + 5, give_up)
    watchdog.daemon = True
    watchdog.start()
    with (
        tempfile.TemporaryDirectory(prefix="durably-demo-", ignore_cleanup_errors=True) as profile,
        sync_playwright() as playwright,
    ):
        try:
            context = playwright.chromium.launch_persistent_context(
                profile, executable_path=os.environ.get("DURABLY_CHROMIUM") or None, args=FLAGS
            )
        except Error as error:
            print(f"The browser does not start: {error.message}", flush=True)
            return 1
        try:
            Demo(context).play(url)
        except (DemoError, Error) as error:
            print(f"\n{str(error).splitlines()[0]}", flush=True)
            return 1
        finally:
            context.close()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo.py URL")
    sys.exit(main(sys.argv[1]))
