"""The PyScript example, with PyScript's own package: load, run, reload in the middle, go on, a second tab."""

from __future__ import annotations

import re
from pathlib import Path

from harness.browser import Browser, Tab
from harness.server import Server

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
[README_PAGE] = [block for block in re.findall(r"```html\n(.*?)```", README, re.DOTALL) if 'type="py"' in block]
LOCAL_PYTHON = '"interpreter": "../durably/pyodide/pyodide.mjs", "packages"'
"""Without it PyScript would fetch Pyodide from where it is published."""

PAGE = "/pyscript/index.html"
READY = "document.documentElement.dataset.state == 'ready'"
RUNNING = "document.documentElement.dataset.state == 'running'"
DONE = "document.documentElement.dataset.state == 'done'"


def counted(at_least: int) -> str:
    return f"Number(document.documentElement.dataset.blocks) >= {at_least}"


def open_page(browser: Browser, until: str) -> Tab:
    """It boots two Pythons and installs packages: on a busy machine that takes its time."""
    tab = browser.tab(PAGE, until="document.documentElement.dataset.state")
    tab.page.set_default_timeout(60_000)
    tab.page.wait_for_function(until)
    return tab


def test_a_pyscript_page_counts_on_after_a_reload_and_shows_it_in_both_of_two_tabs(browser: Browser) -> None:
    """No header is set, so there is no SharedArrayBuffer; nothing is asked of another site; the cache is kept."""
    tab = open_page(browser, READY)
    assert tab.js("crossOriginIsolated") is False
    tab.page.set_viewport_size({"width": 320, "height": 700})
    tab.page.click("#count")
    tab.page.wait_for_function(counted(10))
    assert tab.js("document.documentElement.scrollWidth > innerWidth") is False, "it does not fit a phone"

    browser.reload(tab, until=RUNNING)
    resumed = tab.page.locator("#resumed").inner_text()
    assert int(resumed.split()[0]) >= 10
    second = open_page(browser, f"{RUNNING} || {DONE}")
    for each in (tab, second):
        each.page.wait_for_function(DONE)
        assert each.page.locator("#primes").inner_text() == "5,761,455"
        assert each.page.locator("#blocks").inner_text() == "50 of 50"
    assert tab.page.locator("#chart .stored").count() == int(resumed.split()[0])


def test_the_readmes_page_for_pyscript_prints_what_it_says_with_the_wheel_alone(
    browser: Browser, server: Server
) -> None:
    """Nothing is named in its configuration but the wheel; PyScript warns that there is no SharedArrayBuffer."""
    page = README_PAGE.replace('"packages"', LOCAL_PYTHON).replace('"./durably-', '"../durably/durably-')
    server.put("/pyscript/readme.html", f'<link rel="icon" href="data:,">{page}')
    browser.expect_error("SharedArrayBuffer")
    tab = browser.tab("/pyscript/readme.html", until="document.body")
    [said] = re.findall(r"print\(.*\)  +# (.+)$", README_PAGE, re.MULTILINE)
    with tab.page.expect_console_message(lambda message: message.text.strip() == said, timeout=60_000):
        pass
