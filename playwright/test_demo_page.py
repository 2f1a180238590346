"""The demo page, used as a visitor uses it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence

from harness.browser import Browser, Tab
from harness.server import DIST
from playwright.sync_api import FilePayload, expect

BATCH_ROWS = 100
STEPS_AROUND_BATCHES = 3


def open_page(browser: Browser) -> Tab:
    return browser.tab("/", until=state_is("ready"))


def state_is(*states: str) -> str:
    return f"{list(states)}.includes(document.documentElement.dataset.state)"


def wait_for_report(tab: Tab) -> None:
    tab.page.wait_for_function(state_is("done", "failed"), timeout=60_000)
    assert tab.page.locator("html").get_attribute("data-state") == "done", tab.page.locator("#error").inner_text()


def figures(tab: Tab) -> dict[str, int]:
    """The whole numbers at the top of the report."""
    found = {}
    for pair in tab.page.locator("#report dl.figures > div").all():
        number = pair.locator("dd").inner_text().replace(",", "")
        if number.isdecimal():
            found[pair.locator("dt").inner_text()] = int(number)
    return found


def pick(tab: Tab, name: str, lines: Sequence[str]) -> None:
    file: FilePayload = {"name": name, "mimeType": "text/csv", "buffer": "\n".join(lines).encode()}
    tab.page.locator("#file").set_input_files(file)


def test_the_sample_is_imported_with_the_numbers_that_its_rows_have(browser: Browser) -> None:
    tab = open_page(browser)
    tab.page.locator("#full-speed").check()
    tab.page.locator("#import-sample").click()
    wait_for_report(tab)

    with (DIST / "birdstrikes.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    operator, phase = header.index("Aircraft Airline Operator"), header.index("Phase of flight")
    good = [row for row in dict.fromkeys(map(tuple, rows)) if row[operator] != "UNKNOWN"]
    numbers = {"Rows in the file": len(rows), "Stored": len(good), "Rejected": len(rows) - len(good)}
    assert figures(tab) == numbers
    groups = tab.page.locator("#report table.groups tbody tr").all()
    shown = {row.locator("th").inner_text(): row.locator("td").first.inner_text() for row in groups}
    assert shown == {name: f"{count:,}" for name, count in Counter(row[phase] for row in good).items()}


def test_a_paced_import_goes_on_after_a_reload_and_says_what_was_already_there(browser: Browser) -> None:
    batches = 14
    tab = open_page(browser)
    tab.page.locator("#full-speed").uncheck()
    pick(tab, "numbers.csv", ["id,half", *(f"{number},{number / 2}" for number in range(batches * BATCH_ROWS))])
    tab.page.wait_for_function("Number(document.documentElement.dataset.batchesDone) >= 4")
    browser.reload(tab, until=state_is("running"))
    expect(tab.page.locator("#resumed")).to_be_visible()
    expect(tab.page.locator("#log")).to_contain_text("batch-004 is in the store")
    wait_for_report(tab)

    root = tab.page.locator("html")
    replayed, executed = (int(root.get_attribute(f"data-{name}") or 0) for name in ("replayed", "executed"))
    assert replayed >= 2 + 4  # read, sniff, and the batches that were waited for
    assert executed > 0
    assert replayed + executed == batches + STEPS_AROUND_BATCHES
    expect(tab.page.locator("#report")).to_contain_text(f"{replayed} steps were already in the store")
    log = tab.page.locator("#log").text_content() or ""
    assert "Batch 14: 100 stored" in log
    assert "Batch 4: 100 stored" not in log, "a batch that was in the store was done again"
    rows = batches * BATCH_ROWS
    assert figures(tab) == {"Rows in the file": rows, "Stored": rows, "Rejected": 0}


def test_a_file_of_the_visitor_is_imported(browser: Browser) -> None:
    tab = open_page(browser)
    prices = [f"{number},thing {number},{number * 1.5}" for number in range(1, 251)]
    prices[10] = "11,thing 11,cheap"
    prices[20] = "21,thing 21"
    tab.page.locator("#full-speed").check()
    pick(tab, "prices.csv", ["id,name,price", *prices])
    wait_for_report(tab)

    assert figures(tab) == {"Rows in the file": 250, "Stored": 248, "Rejected": 2}
    report = tab.page.locator("#report")
    expect(report).to_contain_text("prices.csv is imported")
    expect(report).to_contain_text("price: 'cheap' is not a number")
    expect(report).to_contain_text("2 cells instead of 3")


def test_what_looks_like_html_in_a_file_is_shown_as_text(browser: Browser) -> None:
    tab = open_page(browser)
    attack = "<img src=x onerror=document.title='owned'>"
    rows = [f"{number},{'red' if number % 2 else attack}" for number in range(1, 40)]
    tab.page.locator("#full-speed").check()
    pick(tab, f"{attack}.csv", [f"id,{attack}", *rows, f"{attack},red"])
    wait_for_report(tab)

    report = tab.page.locator("#report")
    expect(report).to_contain_text(attack)
    expect(report.locator("table.groups")).to_contain_text(attack)
    expect(report).to_contain_text(f"id: '{attack[:39]}")
    assert tab.page.locator("img").count() == 0
    assert tab.page.title() != "owned"


def test_the_page_fits_a_phone_in_every_state(browser: Browser) -> None:
    tab = open_page(browser)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    too_wide = "document.documentElement.scrollWidth > innerWidth"
    assert tab.js(too_wide) is False
    tab.page.locator("#import-sample").click()
    tab.page.wait_for_function("Number(document.documentElement.dataset.batchesDone) >= 1")
    assert tab.js(too_wide) is False
    tab.page.locator("#cancel").click()
    tab.page.wait_for_function(state_is("ready"))
    tab.page.locator("#full-speed").check()
    pick(tab, f"{'long-name-' * 12}.csv", ["id,name", *(f"{number},{'x' * 90}" for number in range(30)), "y,z"])
    wait_for_report(tab)
    assert tab.js(too_wide) is False
