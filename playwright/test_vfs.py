"""The two file layers below SQLite, with several connections to one file, in workers without Python."""

from __future__ import annotations

from typing import Any

import pytest
from harness.browser import Browser, Tab

NOT_A_DATABASE = 26
ROUNDS = 30
WRITERS, ROWS = 4, 8
BUSY_MS = 5000

# More than SQLite keeps in memory, so that it begins to write into the file before the commit.
MANY_ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 60000)
INSERT INTO marks SELECT hex(randomblob(100)), i FROM n
"""

both_layers = pytest.mark.engines("chromium", "chromium-coop", "firefox")
PAGE = "/t/storage.html"


def open_page(browser: Browser) -> Tab:
    tab = browser.tab(PAGE)
    tab.page.set_default_timeout(60_000)
    return tab


def ask(tab: Tab, worker: int, *request: Any) -> Any:
    """What a worker of the page answers; it is started at the first question."""
    return tab.js("request => within(ask(...request))", [worker, *request])


def open_both(tab: Tab) -> None:
    """Two workers with one database open, each of which knows of the other."""
    ask(tab, 0, "open", "shared.sqlite3", {})
    tables = ("CREATE TABLE marks (writer, number)", "CREATE TABLE schema_version (version)")
    ask(tab, 0, "execute", "write", *tables)
    ask(tab, 1, "open", "shared.sqlite3", {})


FRESH_FILE = """
async ([name, writers, rows]) => {
  const numbers = [...Array(writers).keys()]
  await within(Promise.all(numbers.map((number) => ask(number, "begin", name, {}, number, rows))))
  await within(ask(0, "open", name, {}))
  const [[count]] = await ask(0, "execute", "read", "SELECT count(*) FROM marks")
  const [[sound]] = await ask(0, "execute", "read", "SELECT integrity_check FROM pragma_integrity_check")
  await ask(0, "close")
  return [count, sound]
}
"""


@both_layers
def test_four_workers_that_begin_with_a_fresh_file_all_get_their_work_done(browser: Browser) -> None:
    """As shipped, the cooperative layer hangs here in most rounds, and what it has opened stays open."""
    tab = open_page(browser)
    for number in range(ROUNDS):
        assert tab.js(FRESH_FILE, [f"fresh-{number}.sqlite3", WRITERS, ROWS]) == [WRITERS * ROWS, "ok"]
    left = tab.js("leftovers", WRITERS)
    assert left["handles"] == [0] * WRITERS
    assert [name for name in left["locks"] if "fresh-" in name] == []


@both_layers
def test_a_worker_that_is_busy_keeps_nobody_from_reading_and_writing(browser: Browser) -> None:
    tab = open_page(browser)
    open_both(tab)
    milliseconds, was_busy = tab.js(
        """
        async (milliseconds) => {
          let isBusy = true
          const done = ask(0, "writeAndBeBusy", milliseconds).then(() => (isBusy = false))
          await hand(0).busy
          const start = performance.now()
          await ask(1, "execute", "read", "SELECT count(*) FROM marks")
          await ask(1, "execute", "write", "INSERT INTO marks VALUES ('other', 1)")
          await ask(1, "execute", "bare", "PRAGMA wal_checkpoint(PASSIVE)")
          await ask(1, "execute", "bare", "BEGIN IMMEDIATE", "INSERT INTO marks VALUES ('other', 2)", "COMMIT")
          const found = [performance.now() - start, isBusy]
          await done
          return found
        }
        """,
        BUSY_MS,
    )
    print(f"{browser.engine.name}: {milliseconds:.0f} ms to read, write, checkpoint and write again")
    assert was_busy, "the other had to wait until the first had time again"
    assert ask(tab, 0, "execute", "read", "SELECT writer, number FROM marks ORDER BY rowid") == [
        ["busy", 1],
        ["other", 1],
        ["other", 2],
    ]


@both_layers
def test_a_read_sees_what_another_connection_committed_a_moment_ago(browser: Browser) -> None:
    """Also where the reader has had no turn of its event loop to hear of the commit."""
    tab = open_page(browser)
    open_both(tab)
    ask(tab, 1, "execute", "write", "INSERT INTO marks VALUES ('first', 1)")
    counted = tab.js(
        """
        async (milliseconds) => {
          const counted = ask(0, "beBusyAndCount", milliseconds)
          await hand(0).busy
          await ask(1, "execute", "write", "INSERT INTO marks VALUES ('second', 2)")
          return await within(counted)
        }
        """,
        BUSY_MS,
    )
    assert counted == [[2]]


@both_layers
def test_a_transaction_that_fails_lets_others_go_on_at_once(browser: Browser) -> None:
    """With the lock kept, all the others would wait, and no error would say so."""
    tab = open_page(browser)
    open_both(tab)
    write = ("write", "INSERT INTO marks VALUES ('lost', 1)", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(Exception, match="no such table: nowhere"):
        ask(tab, 0, "execute", *write)
    ask(tab, 1, "execute", "write", "INSERT INTO marks VALUES ('kept', 1)")
    assert ask(tab, 0, "execute", "read", "SELECT writer FROM marks") == [["kept"]]


@both_layers
def test_an_open_transaction_keeps_others_out_until_it_ends(browser: Browser) -> None:
    tab = open_page(browser)
    open_both(tab)
    ask(tab, 0, "execute", "bare", "BEGIN IMMEDIATE", "INSERT INTO marks VALUES ('first', 1)")
    tab.js("void (window.waiting = ask(1, 'execute', 'write', \"INSERT INTO marks VALUES ('second', 2)\"))")
    ask(tab, 0, "execute", "bare", "INSERT INTO marks VALUES ('first', 3)")
    ask(tab, 0, "execute", "bare", "COMMIT")
    tab.js("within(waiting)")
    order = ask(tab, 0, "execute", "read", "SELECT number FROM marks ORDER BY rowid")
    assert order == [[1], [3], [2]]


@both_layers
def test_every_commit_is_flushed(browser: Browser) -> None:
    tab = open_page(browser)
    open_both(tab)
    assert ask(tab, 0, "execute", "read", "SELECT synchronous FROM pragma_synchronous") == [[2]]
    assert ask(tab, 0, "callsOf", 10)["flushes"] >= 10


@pytest.mark.engines("chromium")
def test_a_commit_is_one_write_and_one_flush(browser: Browser) -> None:
    """However many pages it has."""
    tab = open_page(browser)
    open_both(tab)
    ask(tab, 0, "execute", "write", "CREATE INDEX marks_by_number ON marks (number, writer)")
    ask(tab, 0, "callsOf", 5)
    assert ask(tab, 0, "callsOf", 50) == {"writes": 50, "flushes": 50}


@pytest.mark.engines("chromium")
def test_a_commit_that_fills_a_log_is_flushed_before_the_next_log_is_used(browser: Browser) -> None:
    """The layer flushes the log that it goes on with; the commit is in the other one."""
    tab = open_page(browser)
    open_both(tab)
    unflushed = ask(tab, 0, "commitsLeftUnflushed", 2500)
    assert unflushed == 0


@both_layers
def test_a_database_opens_again_while_the_page_before_it_still_has_its_handles(browser: Browser) -> None:
    tab = open_page(browser)
    open_both(tab)
    ask(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('before', 1)")
    tab.js("end(0), end(1)")
    started = tab.js("performance.now()")
    ask(tab, 2, "open", "shared.sqlite3", {})
    print(f"{browser.engine.name}: open again after {tab.js('performance.now()') - started:.0f} ms")
    assert ask(tab, 2, "execute", "read", "SELECT writer FROM marks") == [["before"]]


@both_layers
def test_a_transaction_cut_off_by_death_leaves_nothing_behind(browser: Browser) -> None:
    tab = open_page(browser)
    open_both(tab)
    ask(tab, 0, "execute", "write", "INSERT INTO marks VALUES ('before', 1)")
    ask(tab, 0, "execute", "bare", "BEGIN IMMEDIATE", MANY_ROWS)
    tab.js("end(0)")
    assert ask(tab, 1, "execute", "read", "SELECT writer FROM marks") == [["before"]]
    sound = ask(tab, 1, "execute", "read", "SELECT integrity_check FROM pragma_integrity_check")
    assert sound == [["ok"]]


@both_layers
def test_a_file_that_is_no_database_is_refused_and_nothing_is_put_beside_it(browser: Browser) -> None:
    tab = open_page(browser)
    tab.js("write('letter.txt', 'Dear reader, this is a letter. '.repeat(200))")
    error = tab.js("ask(0, 'open', 'letter.txt', {}).then(() => null, ({ name, code }) => [name, code])")
    assert error == ["SQLiteError", NOT_A_DATABASE]
    assert [name for name in tab.js("names()") if name.startswith("letter")] == ["letter.txt"]


@pytest.mark.engines("chromium")
def test_changes_that_the_other_layer_has_not_written_back_are_not_lost(browser: Browser) -> None:
    tab = open_page(browser)
    ask(tab, 0, "open", "shared.sqlite3", {"vfs": "write-ahead"})
    ask(tab, 0, "execute", "write", "CREATE TABLE marks (writer, number)")
    ask(tab, 0, "close")
    refused = tab.js("ask(1, 'open', 'shared.sqlite3', { vfs: 'coop' }).then(() => '', ({ message }) => message)")
    assert "has changes in a form" in refused
    ask(tab, 2, "open", "shared.sqlite3", {})
    assert ask(tab, 2, "execute", "read", "SELECT count(*) FROM marks") == [[0]]
