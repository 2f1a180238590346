"""The examples, used as a visitor uses them: each is begun, its page reloaded in the middle, and it goes on."""

from __future__ import annotations

import importlib.util
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.server import ROOT, Server
from playwright.sync_api import FilePayload, expect

EXAMPLES = ROOT / "web" / "examples"
NAMES = ("api", "approval", "images", "pipeline")
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth"
PHONE = {"width": 320, "height": 640}


def state_is(*states: str) -> str:
    return f"{list(states)}.includes(document.documentElement.dataset.state)"


def open_example(browser: Browser, address: str) -> Tab:
    tab = browser.tab(f"/examples/{address}", until=state_is("ready", "failed"))
    tab.page.set_viewport_size(PHONE)
    return tab


def wait_for_steps(tab: Tab, count: int) -> None:
    tab.page.wait_for_function("count => Number(document.documentElement.dataset.done) >= count", arg=count)


def wait_for_result(tab: Tab) -> None:
    tab.page.wait_for_function(state_is("done", "failed"), timeout=60_000)
    assert tab.page.locator("html").get_attribute("data-state") == "done", tab.page.locator("#error").inner_text()
    assert tab.js(TOO_WIDE) is False


def reload_in_the_middle(browser: Browser, tab: Tab) -> None:
    """For a run that cannot end before the test lets it."""
    browser.reload(tab, until=state_is("running"))
    expect(tab.page.locator("#resumed")).to_be_visible()
    assert tab.js(TOO_WIDE) is False


def resumed(tab: Tab) -> tuple[int, int]:
    """How many steps were in the store when the page was opened anew, and how many came after."""
    root = tab.page.locator("html")
    replayed, executed = (int(root.get_attribute(f"data-{name}") or 0) for name in ("replayed", "executed"))
    return replayed, executed


def figures(tab: Tab) -> dict[str, str]:
    pairs = tab.page.locator("#result dl.figures > div").all()
    return {pair.locator("dt").inner_text(): pair.locator("dd").inner_text() for pair in pairs}


# --- an API that the test holds back --------------------------------------------------------------


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("durably_build_for_examples", ROOT / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build: Any = load_build()


class WatchedApi(build.OrdersApi):  # type: ignore[misc]  # build.py is no module of a package
    """The API of `build.py serve`, whose second is over when it has refused somebody: no test depends on the time."""

    def __init__(self, held_from: int) -> None:
        self.answers: list[tuple[int, int]] = []
        self.may_go_on = threading.Event()
        self._held_from = held_from
        super().__init__(clock=lambda: float(self.statuses[429]))

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for _, status in self.answers)

    def answer(self, order: str) -> tuple[int, dict[str, Any]]:
        if int(order) >= self._held_from:
            assert self.may_go_on.wait(60)
        status, content = super().answer(order)
        self.answers.append((int(order), status))
        return status, content


@contextmanager
def serving(server: Server, api: WatchedApi) -> Iterator[WatchedApi]:
    server.api = api
    try:
        yield api
    finally:
        api.may_go_on.set()
        server.api = None


# --- the examples ---------------------------------------------------------------------------------


def test_orders_are_fetched_from_a_busy_api_and_none_that_was_answered_is_asked_for_again(
    browser: Browser, server: Server
) -> None:
    """What an API has answered is a checkpoint, whatever it refuses in between and whatever happens to the page."""
    orders = 30
    browser.expect_error("answered 503")
    browser.expect_error("answered 429")
    browser.expect_error("answered 404")
    tab = open_example(browser, f"api/?orders={orders}")
    tab.page.locator("#begin").click()
    expect(tab.page.get_by_role("alert")).to_have_text("There is no API of orders here: it answered 404.")
    with serving(server, WatchedApi(held_from=10)) as api:
        tab.page.get_by_role("button", name="Try again").click()
        wait_for_steps(tab, 9)
        reload_in_the_middle(browser, tab)
        expect(tab.page.locator("#tally")).to_contain_text("9 of 30 orders")
        api.may_go_on.set()
        wait_for_result(tab)

    assert resumed(tab) == (9, orders - 9)
    assert api.statuses[503] >= 2
    assert api.statuses[429] >= 1
    answered = Counter(number for number, status in api.answers if status == 200)
    assert all(answered[number] == 1 for number in range(1, 10)), "an order that was stored was asked for again"
    assert set(answered) == set(range(1, orders + 1))
    cents = sum(number * 7919 % 20_000 for number in range(1, orders + 1))
    assert figures(tab) == {"Orders": "30", "In all": f"{cents / 100:,.2f} €"}


def test_dropped_pictures_outlive_the_page_and_each_is_made_small_once(browser: Browser) -> None:
    """The page is told of a file only once, so it has to keep a copy before the job begins."""
    colours = ["#ff0000", "#00ff00", "#0000ff", "#804020", "#102030", "#c0ffee"]
    files: list[FilePayload] = [
        {"name": f"plain-{colour[1:]}.png", "mimeType": "image/png", "buffer": png(640, 480, colour)}
        for colour in colours
    ]
    attack = "<img src=x onerror=document.title='owned'>.png"
    files.append({"name": attack, "mimeType": "image/png", "buffer": b"this is no picture"})
    tab = open_example(browser, "images/?pause=1")
    tab.page.locator("#files").set_input_files(files)
    wait_for_steps(tab, 2)
    browser.reload(tab, until=state_is("running", "done"))
    wait_for_result(tab)

    replayed, executed = resumed(tab)
    assert replayed >= 2
    assert executed >= 1
    assert replayed + executed == len(files)
    shown = tab.page.locator("#result .thumbnails li").all_inner_texts()
    assert len(shown) == len(files)
    for text, colour in zip(shown, colours, strict=False):
        assert f"plain-{colour[1:]}.png" in text
        assert "640 × 480" in text
        assert colour in text
    assert attack in shown[-1]
    assert "not a picture" in shown[-1]
    assert tab.page.title() != "owned"
    sizes = "[...document.querySelectorAll('#result img')].map(each => [each.naturalWidth, each.naturalHeight])"
    assert tab.js(sizes) == [[320, 240]] * len(colours)
    left = """async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("pictures")
      return (await Array.fromAsync(folder.keys())).length
    }"""
    assert tab.js(left) == 0, "the copies are removed when the job is over"


def test_no_row_of_the_pipeline_is_missing_or_there_twice_after_a_reload(browser: Browser) -> None:
    """Rows and checkpoint are one commit: the table itself would take a row twice."""
    rows = 200_000
    tab = open_example(browser, f"pipeline/?rows={rows}&pause=0.3")
    tab.page.locator("#begin").click()
    wait_for_steps(tab, 2)
    browser.reload(tab, until=state_is("running", "done"))
    wait_for_result(tab)

    replayed, executed = resumed(tab)
    assert replayed >= 2
    assert executed >= 1
    assert replayed + executed == rows // 10_000 + 1
    assert figures(tab) == {
        "Rows expected": "200,000",
        "Rows in the table": "200,000",
        "Missing": "0",
        "There twice": "0",
    }
    values = [(number * 7919 % 4001 - 1000) / 100 for number in range(12, rows + 1, 12)]
    first = tab.page.locator("#result tbody tr").first.locator("td").all_inner_texts()
    mean = sum(values) / len(values)
    assert first == [f"{len(values):,}", f"{min(values):,.2f}", f"{mean:,.2f}", f"{max(values):,.2f}"]


def test_an_expense_waits_for_a_decision_over_a_reload(browser: Browser) -> None:
    """The question and the buttons are there again, and one answer or the deadline ends it."""
    tab = open_example(browser, "approval/")
    page = tab.page
    page.get_by_label("What for").fill("a <b>bold</b> cat")
    page.get_by_label("Euros").fill("1234.5")
    page.get_by_role("button", name="Ask").click()
    question = "May 1,234.50 € be spent on a <b>bold</b> cat?"
    expect(page.locator("#question")).to_have_text(question)
    until = page.locator("#until").inner_text()

    reload_in_the_middle(browser, tab)
    expect(page.locator("#question")).to_have_text(question)
    expect(page.locator("#until")).to_have_text(until)
    page.get_by_role("button", name="Approve").click()
    wait_for_result(tab)
    expect(page.locator("#result")).to_contain_text("1,234.50 € are set aside for a <b>bold</b> cat.")

    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Reject").click()
    expect(page.locator("#result")).to_contain_text("Nothing is spent on a window seat for the cat.")

    tab.js("history.replaceState(null, '', '?patience=0.2')")  # the form itself offers nothing so short
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#result")).to_contain_text("Nobody answered in time")


def test_the_gallery_leads_to_each_example(browser: Browser) -> None:
    page = browser.tab("/examples/index.html", until="true").page
    page.set_viewport_size(PHONE)
    assert page.evaluate(TOO_WIDE) is False
    links = page.locator(".gallery a").all()
    assert sorted(link.get_attribute("href") or "" for link in links) == [f"{name}/" for name in NAMES]
    for link in links:
        lines = len((EXAMPLES / (link.get_attribute("href") or "") / "jobs.py").read_text("utf-8").splitlines())
        card = page.locator(".card").filter(has_text=link.inner_text())
        expect(card.locator(".uses")).to_contain_text(f"{lines} lines")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_one_file_of_less_than_60_lines(name: str) -> None:
    """They are to be read at one sitting."""
    [jobs] = (EXAMPLES / name).glob("*.py")
    lines = jobs.read_text("utf-8").splitlines()
    assert 0 < len(lines) < 60
    assert max(map(len, lines)) <= 120


def png(width: int, height: int, colour: str) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + bytes.fromhex(colour[1:]) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * height)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
