"""Python from a snapshot of its memory: the next visit wakes it up, and nothing odd about it breaks a page."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.server import DIST, Server
from harness.snapshots import (
    HEADER_SIZE,
    change_snapshot,
    give_snapshot_back,
    headers,
    hold_snapshot,
    is_awake,
    keep_snapshot,
    wait_for_snapshot,
)

JOBS = ("./waking_jobs.py",)


def looked(tab: Tab, database: str) -> dict[str, Any]:
    """What `look` finds in the Python of this tab: no other has the database."""
    tab.connect(jobs=JOBS, database=database, snapshot=True)
    run = tab.follow(tab.trigger("look", None))
    output: dict[str, Any] = run["output"]
    return output


def assert_works(tab: Tab) -> None:
    tab.connect(jobs=JOBS, snapshot=True)
    assert_adds(tab)


def assert_adds(tab: Tab) -> None:
    assert tab.follow(tab.trigger("add", [1, 2, 3]))["output"] == 6


@pytest.mark.new_profile
@pytest.mark.engines("chromium", "firefox")
def test_the_next_visit_wakes_python_up_and_nothing_repeats(browser: Browser) -> None:
    first = browser.tab()
    seen = [looked(first, "1.sqlite3")]
    assert not is_awake(first)
    wait_for_snapshot(first)

    browser.reload(first)
    seen.append(looked(first, "2.sqlite3"))
    second = browser.tab()
    seen.append(looked(second, "3.sqlite3"))
    assert is_awake(first)
    assert is_awake(second)

    drawn = [value for each in seen for value in each["unique"]]
    assert len(set(drawn)) == len(drawn)
    names = [each["clock"][2:] for each in seen]
    assert names == [names[0]] * 3
    now, local = float(seen[2]["clock"][0]), datetime.fromisoformat(seen[2]["clock"][1])
    assert now == pytest.approx(time.time(), abs=30)
    assert local.timestamp() == pytest.approx(now, abs=5)
    offset = local.utcoffset()
    assert offset is not None
    assert offset.total_seconds() == -60 * second.js("new Date().getTimezoneOffset()")
    browser.close(first)
    browser.reload(second)
    assert_works(second)


def cut_short(tab: Tab) -> None:
    change_snapshot(tab, 0, size=HEADER_SIZE + 1_000_000)


def damage_a_byte(tab: Tab) -> None:
    change_snapshot(tab, 30_000_000, b"\x5a\xa5\x5a")


def empty(tab: Tab) -> None:
    change_snapshot(tab, 0, size=0)


def damage_the_header(tab: Tab) -> None:
    change_snapshot(tab, 0, b"\0" * 100)


def make_it_anothers(tab: Tab) -> None:
    [header] = headers(tab)
    assert header is not None
    other = header | {"made": header["made"].replace('["', '["other ')}
    change_snapshot(tab, 0, json.dumps(other).encode().ljust(HEADER_SIZE))


@pytest.mark.engines("chromium", "firefox")
def test_one_that_will_not_do_is_made_anew(browser: Browser) -> None:
    tab = keep_snapshot(browser)
    beside = browser.tab()
    hold_snapshot(beside)
    for spoil in (cut_short, damage_a_byte, empty, damage_the_header, make_it_anothers):
        give_snapshot_back(beside)
        spoil(tab)
        assert_works(tab)
        assert not is_awake(tab), spoil.__name__
        browser.reload(tab)
    [spoilt] = headers(tab)
    assert_works(tab)
    wait_for_snapshot(tab, spoilt)
    browser.reload(tab)
    assert_works(tab)
    assert is_awake(tab)


def test_one_that_python_cannot_start_from_is_the_last(browser: Browser) -> None:
    tab = keep_snapshot(browser)
    [header] = headers(tab)
    assert header is not None
    # What was written is what is read; it is no memory, though.
    body = b"\0" * HEADER_SIZE
    spoilt = header | {"packages": 0, "memory": HEADER_SIZE, "sums": [sum_of(b""), sum_of(body)]}
    change_snapshot(tab, 0, json.dumps(spoilt).encode().ljust(HEADER_SIZE) + body)

    browser.expect_error("snapshot could not be used")
    assert_works(tab)
    assert not is_awake(tab)
    assert wait_for_snapshot(tab, spoilt)["memory"] == 0
    browser.reload(tab)
    assert_works(tab)
    tab.page.wait_for_timeout(6000)
    [refused] = headers(tab)
    assert refused is not None
    assert refused["memory"] == 0


def sum_of(body: bytes) -> int:
    """Of zeros, by the definition in `web/snapshot.js`."""
    assert not any(body)
    lanes = []
    for start, factor in ((1, 31), (2, 37), (3, 41), (4, 43)):
        lanes.append(start * pow(factor, len(body) // 16, 2**32) % 2**32)
    a, b, c, d = lanes
    return a ^ (3 * b % 2**32) ^ (5 * c % 2**32) ^ (7 * d % 2**32)


@pytest.mark.new_profile
def test_two_tabs_make_one(browser: Browser) -> None:
    tabs = [browser.tab(), browser.tab()]
    for tab in tabs:
        tab.js("void start({ options: { database: 'test.sqlite3', jobs: ['./waking_jobs.py'] } })")
    for tab in tabs:
        tab.page.wait_for_function("window.durably")
        wait_for_snapshot(tab)
    for tab in tabs:
        browser.reload(tab)
        assert_works(tab)
        assert is_awake(tab)


@pytest.mark.engines("chromium", "firefox")
def test_one_that_is_deleted_is_missed_by_nobody(browser: Browser) -> None:
    tab = keep_snapshot(browser)
    tab.connect(jobs=JOBS, snapshot=True)
    assert is_awake(tab)
    tab.js(
        "async () => (await navigator.storage.getDirectory()).removeEntry('.durably-snapshots', { recursive: true })"
    )
    assert_adds(tab)
    browser.reload(tab)
    assert_works(tab)
    assert not is_awake(tab)


def test_after_an_upgrade_there_is_a_new_one_and_the_old_one_is_gone(browser: Browser, server: Server) -> None:
    tab = keep_snapshot(browser)
    [old] = headers(tab)
    manifest = json.loads((DIST / "durably" / "manifest.json").read_text("utf-8"))
    path = "/t/durably/manifest.json"
    server.put(path, json.dumps(manifest | {"build": "of another day"}))
    try:
        assert_works(tab)
        assert not is_awake(tab)
        new = wait_for_snapshot(tab, old)
        assert re.search("of another day", new["made"])
        browser.reload(tab)
        assert_works(tab)
        assert is_awake(tab)
    finally:
        del server.files[path]


@pytest.mark.new_profile
def test_without_room_none_is_kept(browser: Browser) -> None:
    tab = browser.tab()
    session = tab.page.context.new_cdp_session(tab.page)
    origin = tab.js("location.origin")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 60_000_000})
    with tab.page.expect_worker(lambda worker: "snapshot-maker" in worker.url) as maker:
        assert_works(tab)
    with maker.value.expect_event("close", timeout=60_000):
        pass
    assert headers(tab) == []
    browser.reload(tab)
    assert_works(tab)
    assert not is_awake(tab)


def test_a_page_may_have_it_without(browser: Browser) -> None:
    tab = keep_snapshot(browser)
    tab.connect(jobs=JOBS, snapshot=False)
    assert not is_awake(tab)
    assert_adds(tab)
