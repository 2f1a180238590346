"""`<durably-dashboard>` in a real browser, with a client that is none: 5,000 runs, and texts as bad as can be.

What the client really answers is tested elsewhere; here it is what a person sees, hears and does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.server import Server
from playwright.sync_api import Locator, Page, Playwright, expect

AXE = Path(__file__).resolve().parent.parent / "web" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = '<img src=x onerror="window.hacked = true">'
NEWEST = "01K000000000000000000004W7"

# From now on `touched()` tells the ids of the rows that were changed, made or taken away; `moved()` how many of the
# latter two there were.
WATCH = """() => {
  const rows = dashboard.shadowRoot.querySelector(".rows")
  const idOf = (node) => (node.closest ? node : node.parentElement)?.closest(".row")?.querySelector(".id").textContent
  const changed = ({ target, addedNodes, removedNodes }) =>
    target === rows ? [...addedNodes, ...removedNodes] : target.closest?.(".when, .took") ? [] : [target]
  const seen = []
  const observer = new MutationObserver((some) => seen.push(...some))
  observer.observe(rows, { subtree: true, childList: true, attributes: true, characterData: true })
  const all = () => (seen.push(...observer.takeRecords()), seen)
  window.touched = () => [...new Set(all().flatMap(changed).map(idOf))]
  window.moved = () => all().reduce((sum, { target, addedNodes: added, removedNodes: removed }) =>
    sum + (target === rows ? added.length + removed.length : 0), 0)
}"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def chromium(playwright: Playwright, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all: nothing of what these pages do outlives them."""
    browser = Browser(playwright.chromium, tmp_path_factory.mktemp("chromium") / "profile", server)
    yield browser
    browser.stop()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    tab = open_dashboard(chromium)
    yield tab.page
    assert_nothing_became_markup(tab.page)
    chromium.close(tab)
    chromium.check()


def open_dashboard(browser: Browser) -> Tab:
    tab = browser.tab("/t/dashboard.html")
    expect(rows(tab.page)).to_have_count(50)
    return tab


def assert_nothing_became_markup(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def rows(page: Page) -> Locator:
    return page.locator(".rows .row")


def focused(page: Page) -> str:
    """The text or the label of what has the focus."""
    found: str = page.evaluate(
        "(({ activeElement: it }) => it ? it.getAttribute('aria-label') ?? it.textContent : '')(dashboard.shadowRoot)"
    )
    return found.strip()


def open_newest(page: Page) -> None:
    page.get_by_role("button", name="import-birdstrikes").first.press("Enter")
    expect(page.get_by_role("heading", name="import-birdstrikes")).to_be_focused()
    expect(page.locator(".bars li").first).to_be_visible()


def said(page: Page) -> Locator:
    return page.get_by_role("status").last


def test_the_list_finds_runs_among_thousands_a_page_at_a_time(page: Page) -> None:
    """All of them at once would stop the page; so no more than a page of them is ever asked for or shown."""
    first = rows(page).first
    expect(first).to_contain_text("Running")
    expect(first.get_by_role("progressbar", name="Progress of import-birdstrikes")).to_have_attribute(
        "aria-valuenow", "12"
    )
    expect(rows(page).nth(1)).to_contain_text("for the signal approved")
    assert page.evaluate("fake.asked.every(([call, , , limit]) => call !== 'getRuns' || limit <= 51)")

    meter = page.get_by_role("meter", name="Storage used")
    expect(meter).to_have_attribute("aria-valuetext", "3.4 MB of 1.1 GB")
    expect(page.get_by_text("The browser keeps them for good.")).to_be_visible()

    page.get_by_role("button", name="Older").click()
    expect(page.get_by_text("Runs 51 to 100, and older ones")).to_be_visible()
    page.evaluate("fake.add({ jobName: 'index-pages' })")
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_text("Runs 101 to 150")).to_be_visible()
    # What was triggered meanwhile has pushed all others down: nobody is shown twice, and none left out.
    assert page.evaluate("fake.asked.at(-1).at(-1)") == 101
    expect(rows(page).first).to_contain_text("01K000000000000000000004S3")

    page.get_by_role("button", name="Failed").click()
    expect(page.get_by_text("Runs 1 to 50")).to_be_visible()
    expect(rows(page).get_by_text("Failed", exact=True)).to_have_count(50)
    page.get_by_role("combobox", name="Job").select_option("resize-images")
    search = page.get_by_role("searchbox", name="Search runs")
    search.fill("site-3 day=wed")
    expect(rows(page).first.locator(".labels")).to_have_text("sitesite-3daywed")
    assert set(rows(page).locator(".job span").first.all_inner_texts()) == {"resize-images"}
    search.fill(NEWEST)
    expect(page.get_by_text("No run fits these filters.")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(search).to_be_focused()
    search.fill(NEWEST.lower())
    expect(rows(page)).to_have_count(1)


def test_what_happens_changes_the_rows_that_it_happens_to_and_nothing_else(page: Page) -> None:
    """Thousands of events a second must neither make the page stutter nor take the focus from anybody."""
    second = page.get_by_role("button", name="expense-approval")
    second.focus()
    page.evaluate(WATCH)
    page.evaluate("for (let at = 13; at < 40; at++) fake.complete(`batch-${at}`, at, at)")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("touched()") == [NEWEST]
    expect(rows(page).first).to_contain_text("39 of 53 · parsing batch 39")

    page.evaluate("for (let at = 0; at < 2000; at++) fake.add({ jobName: 'index-pages' })")
    page.evaluate(TWO_FRAMES)
    expect(rows(page)).to_have_count(50)
    expect(rows(page).first).to_contain_text("index-pages")
    # A page of rows went and another came: of all the others that came and went in that frame, none was ever drawn.
    assert page.evaluate("moved()") == 100
    # The row that had the focus has been pushed to the next page; the one in its place has it now.
    assert focused(page) == "index-pages"
    page.get_by_role("button", name="index-pages").nth(3).focus()
    page.keyboard.press("ArrowDown")
    page.evaluate(
        "fake.client.deleteRun(dashboard.shadowRoot.activeElement.closest('.row').querySelector('.id').textContent)"
    )
    expect(rows(page)).to_have_count(49)
    assert focused(page) == "index-pages"


@pytest.mark.engines("firefox")  # the other tests show it in Chromium
def test_a_runs_page_shows_its_steps_on_an_axis_of_time_and_follows_it(browser: Browser) -> None:
    page = open_dashboard(browser).page
    open_newest(page)
    page.evaluate("fake.resume()")
    page.evaluate("fake.begin('batch-10', 16)")
    steps = page.locator(".bars li")
    expect(steps).to_have_count(17)
    words = dict(line.split("\n")[:2] for line in steps.all_inner_texts())
    expected = {
        "open-file": "Replayed",
        "rate-limit": "Completed",
        "batch-8": "Retried",
        "look-up-species": "Cancelled",
    }
    expected |= {"notify": "Waiting", "batch-10": "Running", f"check {HOSTILE}": "Failed"}
    assert {name: words[name] for name in expected} == expected
    spans = page.locator(".track .bar").evaluate_all(
        "bars => bars.map(({ style }) => ['--from', '--to'].map(name => Number(style.getPropertyValue(name))))"
    )
    assert spans[0] == [0, 3000]
    assert spans[1:3] == [[3000, 14000], [14000, 18000]]

    steps.first.get_by_role("button").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("tooltip")).to_contain_text("attempt 3")
    expect(page.get_by_role("tooltip")).to_contain_text('"rows": 100')
    page.keyboard.press("Enter")
    expect(page.get_by_role("tooltip")).to_be_hidden()
    expect(steps.nth(1).locator(".facts")).to_contain_text("attempt 3")

    page.evaluate("fake.complete('batch-10', 16, 13); fake.log('a line')")
    expect(steps.last).to_contain_text("Completed")
    expect(page.get_by_text("13 of 53 · parsing batch 13")).to_be_visible()
    expect(page.locator(".lines li").last).to_contain_text("a line")
    assert focused(page).startswith("fetch-codes"), "what happens takes the focus from nobody"
    expect(page.get_by_role("region", name="Payload")).to_contain_text('"html": "<img src=x onerror=')
    expect(page.locator(".lines")).to_contain_text(f"no date {HOSTILE}")

    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="import-birdstrikes").first).to_be_focused()
    assert_nothing_became_markup(page)


def test_the_address_names_the_run_that_is_shown_if_it_is_asked_to(page: Page) -> None:
    """So that a run can be bookmarked, and the browser's own way back works. Else the address is the page's."""
    open_newest(page)
    assert "#" not in page.url
    page.evaluate("dashboard.setAttribute('routing', ''); dashboard.durably = fake.client")
    open_newest(page)
    assert page.url.endswith(f"#run={NEWEST}")
    page.go_back()
    expect(page.get_by_role("button", name="import-birdstrikes").first).to_be_focused()
    page.evaluate("location.hash = '#run=nobody'")
    expect(page.get_by_text("There is no such run")).to_be_visible()
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(50)
    assert "#" not in page.url
    # Taken out of the page it follows nothing; put in again it does.
    page.evaluate("[fake.add({ jobName: 'one' }), dashboard.remove(), fake.add({ jobName: 'two' })]")
    assert page.evaluate("fake.listening()") == 0
    page.evaluate("document.querySelector('main').append(dashboard)")
    expect(rows(page).first).to_contain_text("two")


def test_what_can_be_done_to_a_run_is_offered_done_and_told(page: Page) -> None:
    open_newest(page)
    page.get_by_role("button", name="Cancel", exact=True).press("Enter")
    expect(said(page)).to_have_text("Cancelled.")
    # The button that had the focus is gone, so that the heading has it.
    expect(page.get_by_role("heading", name="import-birdstrikes")).to_be_focused()
    page.get_by_role("button", name="Retry").click()
    expect(said(page)).to_contain_text("pending again")
    expect(page.locator(".title .badge")).to_have_text("Pending")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".title .badge")).to_have_text("Cancelled")
    page.get_by_role("button", name="Run again").click()
    expect(page.locator(".title .badge")).to_have_text("Pending")
    expect(page.get_by_text("01K0000000000000000000", exact=False).first).not_to_have_text(NEWEST)

    page.get_by_role("button", name="All runs").click()
    page.get_by_role("button", name="Failed").click()
    page.get_by_role("button", name="resize-images").first.click()
    gone = page.locator(".run .id").inner_text()
    page.get_by_role("button", name="Delete").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("group", name="Delete this run?").get_by_role("button", name="Delete").click()
    expect(said(page)).to_have_text("The run is deleted.")
    expect(page.get_by_text(gone)).to_have_count(0)

    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="expense-approval").click()
    payload = page.get_by_label("Payload of the signal, as JSON")
    payload.fill("{")
    page.get_by_role("button", name="Send the signal").click()
    expect(said(page)).to_contain_text("The payload is no JSON")
    payload.fill('{"by": "me"}')
    page.get_by_role("button", name="Send the signal").click()
    expect(said(page)).to_have_text("The signal approved is sent.")
    assert page.evaluate("fake.asked.findLast(([call]) => call === 'signal').slice(2)") == ["approved", {"by": "me"}]
    expect(page.get_by_role("form", name="Signal")).to_be_hidden()

    with page.expect_download() as download:
        page.get_by_role("button", name="Export the database").click()
    assert download.value.path().read_bytes() == b"SQLite format 3\0"


def test_a_job_is_triggered_with_a_form_made_from_its_schema(page: Page) -> None:
    page.get_by_role("button", name="Run a job").click()
    expect(page.get_by_role("combobox", name="Job")).to_be_focused()
    page.get_by_label("File").fill("birds.csv")
    page.get_by_label("Rows").fill("many")
    page.get_by_label("Url").fill("https://example.org")
    page.get_by_label("Strict").uncheck()
    page.get_by_label("Format").select_option("parquet")
    page.get_by_role("button", name="Add one").click()
    page.keyboard.type("state")
    page.get_by_role("button", name="Remove Columns, item 1").click()
    page.get_by_label("Note (optional)").check()
    page.get_by_label("Note", exact=True).fill(HOSTILE)
    page.get_by_text("Labels and key").click()
    page.get_by_label("Labels, one a line").fill("site=a\nday = mon")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_text("This has to be a whole number.")).to_be_visible()
    expect(page.get_by_label("Rows")).to_be_focused()

    page.get_by_label("Rows").fill("0")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("alert")).to_contain_text("Input should be greater than or equal to 1 <img")
    page.get_by_label("Rows").fill("7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="import-birdstrikes")).to_be_focused()
    sent: list[Any] = page.evaluate("fake.asked.findLast(([call]) => call === 'trigger').slice(2)")
    assert sent == [
        {
            "file": "birds.csv",
            "rows": 7,
            "share": 0.5,
            "strict": False,
            "format": "parquet",
            "source": {"url": "https://example.org", "retries": 3},
            "columns": ["species", "state"],
            "note": HOSTILE,
            "extra": {"a": 1},
        },
        {"labels": {"site": "a", "day": "mon"}},
    ]

    page.keyboard.press("Escape")
    page.get_by_role("button", name="Run a job").click()
    page.get_by_role("combobox", name="Job").select_option("send-newsletter")
    page.get_by_label("Input (JSON)").fill('["a@example.org"]')
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("heading", name="send-newsletter")).to_be_focused()
    assert page.evaluate("fake.asked.findLast(([call]) => call === 'trigger')[2]") == ["a@example.org"]


def test_nobody_is_kept_from_using_it(page: Page) -> None:
    """axe-core finds nothing serious in any view, in the light and in the dark, and nothing sticks out of a phone."""
    page.add_script_tag(path=AXE)

    def check(view: str) -> None:
        for scheme, width in (("light", 1280), ("dark", 320)):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size({"width": width, "height": 900})
            found = page.evaluate("async () => (await axe.run(document)).violations")
            serious = [
                (each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"])
                for each in found
                if each["impact"] in {"serious", "critical"}
            ]
            assert not serious, (view, scheme)
            assert page.evaluate("document.documentElement.scrollWidth") == width, (view, width)

    check("list")
    open_newest(page)
    page.evaluate("fake.resume(); fake.begin('batch-10', 16)")
    page.locator(".bars button").nth(9).click()
    check("run")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="expense-approval").click()
    expect(page.get_by_role("form", name="Signal")).to_be_visible()
    check("signal")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Run a job").click()
    page.get_by_label("Rows").fill("0")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check("trigger")


def test_a_page_that_connects_and_has_the_element_shows_its_runs(browser: Browser, server: Server) -> None:
    """With the real engine, and nothing said but what the first page of the API says."""
    server.put(
        "/t/with-dashboard.html",
        """<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Two lines</title>
        <durably-dashboard></durably-dashboard>
        <script type="module">
          import { connect } from "./durably/durably.js"
          window.durably = await connect({ database: "app.sqlite3", jobs: ["./jobs.py"] })
          window.ready = true
        </script>""",
    )
    ledger = server.new_ledger()
    tab = browser.tab("/t/with-dashboard.html")
    page = tab.page
    expect(page.get_by_text("No runs yet")).to_be_visible()
    ledger.hold("step", "step-04")
    run_id = tab.trigger("chain", {"ledger": ledger.url, "steps": 6}, labels={"who": HOSTILE})
    expect(rows(page).first).to_contain_text(run_id)
    ledger.wait_for("step", "step-04")

    browser.reload(tab)

    expect(rows(page).first).to_contain_text("Completed", timeout=20_000)
    rows(page).first.get_by_role("button", name="chain").press("Enter")
    expect(page.locator(".bars li")).to_have_count(6)
    expect(page.locator(".bars li").first).to_contain_text("Replayed")
    expect(page.locator(".bars li").last).to_contain_text("Completed")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text(run_id)).to_have_count(0)
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(2)
    assert_nothing_became_markup(page)
