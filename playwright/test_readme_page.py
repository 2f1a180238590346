"""The page and the job of the README, as they stand there, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

from harness.browser import Browser
from harness.server import Server
from playwright.sync_api import expect

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
[PAGE, _] = re.findall(r"```html\n(.*?)```", README, re.DOTALL)  # the other is tested in test_pyscript.py
JOBS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
[SERVICE_WORKER, CLIENT] = re.findall(r"```js\n(.*?)```", README, re.DOTALL)
[SCRIPT] = re.findall(r"`(importScripts\(.*?\))`", README)
ICON = '<link rel="icon" href="data:,">'
"""Which a browser would ask for otherwise, and nobody has."""
LISTEN = "<script>window.said = []; console.log = (...words) => said.push(words.join(' '))</script>"


def test_ten_lines_of_a_job_and_ten_of_a_page_do_what_the_readme_says(browser: Browser, server: Server) -> None:
    server.put("/readme/jobs.py", JOBS)
    server.put("/readme/page.html", ICON + PAGE)
    tab = browser.tab("/readme/page.html", until="document.querySelector('#status')")
    expect(tab.page.locator("#status")).to_have_text("done: 150 rows", timeout=30_000)


def test_the_example_of_the_client_says_what_the_readme_says(browser: Browser, server: Server) -> None:
    assert_says(browser, server, CLIENT)


def test_the_example_of_the_service_worker_says_what_the_readme_says(browser: Browser, server: Server) -> None:
    server.put("/readme/sw.js", SCRIPT)
    assert_says(browser, server, SERVICE_WORKER)


def assert_says(browser: Browser, server: Server, script: str) -> None:
    """A page with this script says what the comments behind its lines say that it does."""
    server.put("/readme/jobs.py", JOBS)
    server.put("/readme/page.html", f'{ICON}{LISTEN}<script type="module">{script}; window.finished = true</script>')
    expected = re.findall(r"console\.log\(.*\)  +// (.+)$", script, re.MULTILINE)
    assert expected
    tab = browser.tab("/readme/page.html", until=f"window.finished && said.length >= {len(expected)}")
    # A listener's events come by another stream than the answers to calls.
    assert sorted(tab.js("said")) == sorted(expected)
