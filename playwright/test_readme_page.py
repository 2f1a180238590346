"""The page and the job of the README, as they stand there, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

from harness.browser import Browser
from harness.server import Server
from playwright.sync_api import expect

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
[PAGE] = re.findall(r"```html\n(.*?)```", README, re.DOTALL)
JOBS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
ICON = '<link rel="icon" href="data:,">'
"""Which a browser would ask for otherwise, and nobody has."""


def test_ten_lines_of_a_job_and_ten_of_a_page_do_what_the_readme_says(browser: Browser, server: Server) -> None:
    server.put("/readme/jobs.py", JOBS)
    server.put("/readme/page.html", ICON + PAGE)
    tab = browser.tab("/readme/page.html", until="document.querySelector('#status')")
    expect(tab.page.locator("#status")).to_have_text("done: 150 rows", timeout=30_000)
