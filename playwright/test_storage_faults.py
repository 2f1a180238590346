"""What can happen to the database's file in a browser: no space, damage, a sudden end, files taken away, a migration.

Whatever it is, nothing is lost quietly: there is an error that says what and where, or all goes on as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness.browser import Browser, Tab
from harness.server import Ledger, Server

everywhere = pytest.mark.engines("chromium", "chromium-coop", "firefox")
both_layers = pytest.mark.engines("chromium", "chromium-coop")

STORAGE = "/t/storage.html"
NAME = "test.sqlite3"
PAGE_SIZE = 4096
HEAP_SIZE = 2_000_000
"""Bytes, as in `pages/jobs.py`."""

ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
INSERT INTO marks SELECT hex(zeroblob(50)), i FROM n
"""
# More than SQLite keeps in memory, so that it begins to write into the file before the commit.
MANY_ROWS = ROWS.replace("2000", "60000")
INTEGRITY = "SELECT integrity_check FROM pragma_integrity_check"
COUNT = "SELECT count(*) FROM marks"
# Schema, as a newer durably would bring it further.
MIGRATION = (
    "ALTER TABLE durably_runs ADD COLUMN mood TEXT",
    "INSERT INTO durably_schema_versions SELECT max(version) + 1, 0 FROM durably_schema_versions",
)


def ask(tab: Tab, worker: int, *request: Any) -> Any:
    """What a worker without Python answers; it is started at the first question."""
    return tab.js("request => within(ask(...request))", [worker, *request])


def refusal(tab: Tab, worker: int, *request: Any) -> str:
    """The error that it answers with."""
    text = tab.js("request => within(ask(...request)).then(() => '', ({ message }) => message)", [worker, *request])
    assert text, "nothing was refused"
    return str(text)


def layer_complains(browser: Browser, text: str) -> None:
    """What wa-sqlite's layer writes to the console is expected, and what Python logs."""
    if browser.engine.name == "chromium":
        browser.expect_error(text)
    browser.check(with_log=False)


def storage_tab(browser: Browser) -> Tab:
    tab = browser.tab(STORAGE)
    tab.page.set_default_timeout(60_000)
    return tab


def filled(tab: Tab) -> None:
    """A database with rows, which worker 0 has open."""
    ask(tab, 0, "open", NAME, {})
    ask(tab, 0, "execute", "write", "CREATE TABLE marks (writer, number)")
    ask(tab, 0, "execute", "write", ROWS)


def assert_sound(tab: Tab, worker: int) -> None:
    assert ask(tab, worker, "execute", "read", INTEGRITY) == [["ok"]]


# --- flushing -------------------------------------------------------------------------------------


@everywhere
def test_a_relaxed_commit_is_not_flushed(browser: Browser) -> None:
    tab = storage_tab(browser)
    ask(tab, 0, "open", NAME, {"durability": "relaxed"})
    ask(tab, 0, "execute", "write", "CREATE TABLE marks (writer, number)")
    assert ask(tab, 0, "callsOf", 10)["flushes"] == 0


# --- a sudden end ---------------------------------------------------------------------------------


@everywhere
def test_what_was_committed_is_there_when_the_browser_is_killed_in_the_middle_of_a_transaction(
    browser: Browser,
) -> None:
    """The log, or the journal, that is left beside the file is played back."""
    tab = storage_tab(browser)
    filled(tab)
    ask(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('last', 1)")
    ask(tab, 0, "execute", "bare", "BEGIN IMMEDIATE", MANY_ROWS)

    browser.kill()
    browser.start()

    tab = storage_tab(browser)
    assert ask(tab, 0, "open", NAME, {}) == {"setAside": "", "checked": True}
    assert ask(tab, 0, "execute", "read", COUNT) == [[2001]]
    assert_sound(tab, 0)


@both_layers
def test_only_the_first_to_open_the_database_looks_at_it_and_only_in_doubt(browser: Browser) -> None:
    tab = storage_tab(browser)
    assert ask(tab, 0, "open", NAME, {})["checked"]
    assert not ask(tab, 1, "open", NAME, {})["checked"]
    ask(tab, 1, "close")
    ask(tab, 0, "close")
    assert not ask(tab, 1, "open", NAME, {"doubt": False})["checked"]


def use_marks(tab: Tab) -> int:
    return int(tab.js("Object.keys(localStorage).filter(name => name.startsWith('durably:uses:')).length"))


def test_a_page_knows_an_unclean_end_from_a_reload(browser: Browser) -> None:
    """So a reload does not wait until a large file is read."""
    tab = browser.tab()
    tab.connect()
    assert use_marks(tab) == 1
    browser.reload(tab)
    assert use_marks(tab) == 0
    tab.connect()
    browser.crash(tab)

    tab = browser.tab()
    assert use_marks(tab) == 1
    tab.connect()
    assert use_marks(tab) == 1, "the dead page's mark was taken away when the file was found sound"


# --- damage ---------------------------------------------------------------------------------------


SPOILT = 4 * PAGE_SIZE, 8 * PAGE_SIZE
"""Some pages after the schema's: where they begin, and how many bytes they are."""


def damage(tab: Tab) -> None:
    """Close the database that worker 0 has open, and spoil it."""
    ask(tab, 0, "execute", "bare", "PRAGMA wal_checkpoint(TRUNCATE)")
    ask(tab, 0, "close")
    # What is in a log is read from there, and is not spoilt: it has checksums.
    tab.js("Promise.all(['-wa0', '-wa1'].map(log => remove(`test.sqlite3${log}`)))")
    ask(tab, 0, "flip", NAME, *SPOILT)


@everywhere
def test_a_damaged_database_is_set_aside_whole_and_a_new_one_is_begun(browser: Browser) -> None:
    tab = storage_tab(browser)
    filled(tab)
    damage(tab)

    opened = ask(tab, 1, "open", NAME, {})

    aside = opened["setAside"]
    assert aside.startswith(f"{NAME}.corrupt-2")
    assert {NAME, aside} <= set(tab.js("names()"))
    assert opened["checked"]
    assert ask(tab, 1, "execute", "read", "SELECT count(*) FROM sqlite_schema") == [[0]]
    ask(tab, 1, "execute", "write", "CREATE TABLE marks (writer, number)")
    assert_sound(tab, 1)
    assert ask(tab, 1, "open", NAME, {})["setAside"] == ""
    # What was set aside is as it was: repaired, it has everything.
    ask(tab, 2, "flip", aside, *SPOILT)
    assert ask(tab, 2, "open", aside, {}) == {"setAside": "", "checked": True}
    assert ask(tab, 2, "execute", "read", COUNT) == [[2000]]


@both_layers
def test_a_page_works_with_a_new_database_and_says_what_became_of_the_damaged_one(browser: Browser) -> None:
    tab = browser.tab()
    tab.connect()
    run_id = tab.trigger("chain", {"ledger": "data:,", "steps": 0})
    assert tab.follow(run_id)["status"] == "completed"
    assert tab.js("durably.storageInfo()")["state"] in ("best-effort", "persistent")
    other = storage_tab(browser)
    browser.crash(tab)
    ask(other, 0, "open", NAME, {})
    damage(other)

    browser.expect_error("was damaged; it was set aside as")
    tab = browser.tab()
    tab.connect()

    info = tab.js("durably.storageInfo()")
    assert info["state"].startswith(f"corrupt: set aside as {NAME}.corrupt-")
    assert info["state"].removeprefix("corrupt: set aside as ") in other.js("names()")
    assert info["kind"] == "opfs"
    assert info["bytesUsed"] > 0
    assert tab.js("durably.getRuns()") == []
    again = tab.trigger("chain", {"ledger": "data:,", "steps": 0})
    assert tab.follow(again)["status"] == "completed"


@both_layers
def test_a_page_that_waits_for_another_tab_says_so(browser: Browser) -> None:
    tab = browser.tab()
    tab.connect()
    other = storage_tab(browser)
    ask(other, 0, "open", NAME, {})
    ask(other, 0, "execute", "bare", "BEGIN IMMEDIATE")
    tab.js("() => { window.triggered = durably.trigger('chain', { ledger: 'data:,', steps: 0 }) }")

    tab.page.wait_for_function("durably.storageInfo().then(({ state }) => state === 'waiting for another tab')")

    ask(other, 0, "execute", "bare", "COMMIT")
    assert tab.follow(tab.js("triggered.then(({ id }) => id)"))["status"] == "completed"
    assert tab.js("durably.storageInfo()")["state"] in ("best-effort", "persistent")


# --- no space -------------------------------------------------------------------------------------


@contextmanager
def no_space(tab: Tab, server: Server) -> Iterator[None]:
    """While the block runs the browser gives this site not a byte more."""
    devtools = tab.page.context.new_cdp_session(tab.page)
    # Smaller than what is used: a file that has room inside must not grow, either.
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": server.origin, "quotaSize": 1000})
    yield
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": server.origin})


@both_layers
def test_without_space_there_is_an_error_and_with_space_the_run_goes_on_by_itself(
    browser: Browser, server: Server, ledger: Ledger
) -> None:
    tab = browser.tab()
    tab.connect(ledger.url)
    tab.js("() => { window.errors = []; durably.on('worker:error', ({ error }) => errors.push(error)) }")
    ledger.hold("step", "heap-2")
    run_id = tab.trigger("hoard", {"ledger": ledger.url, "steps": 4})
    ledger.wait_for("step", "heap-2")
    with no_space(tab, server):
        ledger.let_go()
        tab.page.wait_for_function("errors.length > 0")
        refused = tab.refusal("() => durably.trigger('chain', { ledger: 'x'.repeat(5_000_000) })")
        assert (refused["name"], refused["status"]) == ("StorageFullError", 507), refused["message"]
        assert "no more space" in refused["message"]
        assert tab.run(run_id)["status"] in ("running", "pending"), "reading goes on, and it is not the run's failure"
        assert tab.js("durably.storageInfo()")["state"] == "full"

    run = tab.follow(run_id)

    assert (run["status"], run["output"]) == ("completed", 4 * HEAP_SIZE)
    assert ledger.names().count("heap-0") == 1
    assert "no more space" in tab.js("errors[0]")
    tab.page.wait_for_function("durably.storageInfo().then(({ state }) => state === 'best-effort')")
    assert len(tab.js("durably.getRuns()")) == 1, "what was refused was not stored"
    other = storage_tab(browser)
    ask(other, 0, "open", NAME, {})
    assert_sound(other, 0)
    layer_complains(browser, "QuotaExceededError")


# --- files that are taken away --------------------------------------------------------------------


@both_layers
def test_with_its_handles_lost_a_connection_says_so_and_another_finds_everything(browser: Browser) -> None:
    tab = storage_tab(browser)
    filled(tab)
    ask(tab, 0, "loseHandles")
    assert "disk I/O error" in refusal(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('x', 1)")
    ask(tab, 0, "close")
    ask(tab, 0, "open", NAME, {})
    ask(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('x', 1)")
    assert ask(tab, 0, "execute", "read", COUNT) == [[2001]]
    assert_sound(tab, 0)
    layer_complains(browser, "already closed")


@both_layers
def test_a_worker_that_loses_the_files_opens_them_anew_and_its_run_goes_on(browser: Browser) -> None:
    tab = browser.tab()
    tab.connect(jobs=("./losing_jobs.py",))
    run_id = tab.trigger("loses", 2)
    run = tab.follow(run_id)
    assert (run["status"], run["output"]) == ("completed", 1)
    layer_complains(browser, "already closed")


def delete_data(tab: Tab, server: Server) -> None:
    """As a person does in the browser's settings."""
    devtools = tab.page.context.new_cdp_session(tab.page)
    devtools.send("Storage.clearDataForOrigin", {"origin": server.origin, "storageTypes": "all"})


@both_layers
def test_when_the_sites_data_is_deleted_open_pages_say_so_and_a_new_one_begins_anew(
    browser: Browser, server: Server
) -> None:
    """The browser would let them go on with files that nobody will ever find again."""
    tab = storage_tab(browser)
    filled(tab)
    delete_data(tab, server)

    told = tab.js(
        """
        async () => {
          for (const end = Date.now() + 10_000; Date.now() < end; ) {
            try {
              await within(ask(0, "execute", "read", "SELECT count(*) FROM marks"))
            } catch (error) {
              return error.message
            }
            await new Promise((resolve) => setTimeout(resolve, 50))
          }
        }
        """
    )

    assert "somebody has deleted this site's data; reload the page" in told
    ask(tab, 1, "open", NAME, {})
    assert ask(tab, 1, "execute", "read", "SELECT count(*) FROM sqlite_schema") == [[0]]
    ask(tab, 1, "execute", "write", "CREATE TABLE marks (writer, number)")
    assert "reload the page" in refusal(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('x', 1)")
    ask(tab, 0, "close")
    ask(tab, 1, "execute", "write", ROWS)
    assert_sound(tab, 1)


@both_layers
def test_a_page_hears_at_once_that_another_has_found_no_file_and_made_a_new_one(
    browser: Browser, server: Server
) -> None:
    tab = storage_tab(browser)
    filled(tab)
    delete_data(tab, server)
    ask(tab, 1, "open", NAME, {})
    ask(tab, 1, "execute", "write", "CREATE TABLE marks (writer, number)")
    assert "reload the page" in refusal(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('x', 1)")
    assert ask(tab, 1, "execute", "read", COUNT) == [[0]]


# --- another version ------------------------------------------------------------------------------


@both_layers
def test_a_tab_whose_file_another_has_migrated_stops_and_says_reload(browser: Browser, ledger: Ledger) -> None:
    """The migration itself goes through while the first tab is at work."""
    tab = browser.tab()
    tab.connect(ledger.url)
    tab.js("() => { window.errors = []; durably.on('worker:error', ({ error }) => errors.push(error)) }")
    run_id = tab.trigger("chain", {"ledger": ledger.url, "steps": 100})
    ledger.wait_for("step", "step-05")

    newer = storage_tab(browser)
    ask(newer, 0, "open", NAME, {})
    ask(newer, 0, "execute", "write", *MIGRATION)
    tab.page.wait_for_function("errors.length > 0")

    assert "reload" in tab.js("errors[0]")
    refused = tab.refusal("() => durably.trigger('chain', { ledger: 'data:,' })")
    assert (refused["name"], refused["status"]) == ("SchemaVersionError", 503)
    assert "reload" in refused["message"]
    newer.page.wait_for_function(
        "() => ask(0, 'execute', 'read', 'SELECT status, worker_id, crash_count FROM durably_runs')"
        ".then(rows => JSON.stringify(rows) === JSON.stringify([['pending', null, 0]]))"
    )
    steps = ask(newer, 0, "execute", "read", "SELECT count(*) FROM durably_steps")
    assert tab.run(run_id)["completedStepCount"] == steps[0][0] >= 4
    assert_sound(newer, 0)

    browser.reload(tab)
    refused = tab.refusal("() => start({ options: { database: 'test.sqlite3', jobs: ['./jobs.py'] } })")
    assert refused["name"] == "SchemaVersionError"
    browser.check(with_log=False)
