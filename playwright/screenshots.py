"""The README's pictures, taken of the real pages while they are at work: `build.py screenshots`."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from harness.browser import Browser, Tab
from harness.server import Server
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "web" / "screenshots"
DASHBOARD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Runs</title><link rel="icon" href="data:,">
<style>body { margin: 0 }</style><durably-dashboard></durably-dashboard>
<script type="module">
  import { connect } from "./durably/durably.js"
  await connect({ database: "demo.sqlite3" })
  window.ready = true
</script>"""


def state_is(state: str) -> str:
    return f"document.documentElement.dataset.state === '{state}'"


def shoot(tab: Tab, name: str) -> None:
    tab.page.screenshot(path=FOLDER / name, animations="disabled")
    print(f"web/screenshots/{name}")


def import_that_was_reloaded(browser: Browser) -> None:
    tab = browser.tab("/", until=state_is("ready"))
    tab.page.set_viewport_size({"width": 780, "height": 720})
    tab.page.locator("#import-sample").click()
    tab.page.wait_for_function("Number(document.querySelector('#batches')?.textContent.split(' ')[0]) >= 20")
    browser.reload(tab, until=state_is("running"))
    tab.page.wait_for_function("Number(document.querySelector('#batches')?.textContent.split(' ')[0]) >= 31")
    shoot(tab, "import.png")
    tab.page.wait_for_function(state_is("done"))
    browser.close(tab)


def its_run_in_the_dashboard(browser: Browser, server: Server) -> None:
    server.put("/runs.html", DASHBOARD)
    tab = browser.tab("/runs.html")
    tab.page.set_viewport_size({"width": 900, "height": 720})
    tab.page.locator(".rows .row button").first.click()
    tab.page.locator(".bars li").nth(20).wait_for()
    shoot(tab, "dashboard.png")


def main() -> None:
    with Server() as server, sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = Browser(playwright.chromium, Path(profile), server, scale=2)
        import_that_was_reloaded(browser)
        its_run_in_the_dashboard(browser, server)
        browser.stop()
        server.shutdown()


if __name__ == "__main__":
    main()
