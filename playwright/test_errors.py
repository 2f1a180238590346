"""What goes wrong on a page is a `DurablyError` with a sentence that a person understands, and nothing is lost."""

from __future__ import annotations

import re
from typing import Any

from harness.browser import OTHER_HOST, Browser
from harness.checks import assert_survived, chain_names, chain_output
from harness.server import Ledger, Server

OPFS = """
const folder = () => navigator.storage.getDirectory()
const names = async () => (await Array.fromAsync((await folder()).keys())).sort()
const read = async (name) => (await (await (await folder()).getFileHandle(name)).getFile()).text()
const write = async (name, text) => {
  const writable = await (await (await folder()).getFileHandle(name, { create: true })).createWritable()
  await writable.write(text)
  await writable.close()
}
Object.assign(window, { names, read, write })
"""


def assert_error(error: dict[str, Any], name: str, status: int, *facts: str) -> None:
    """It is durably's own error, and its sentence has these facts and nothing of the machinery."""
    assert error["isDurably"], error
    assert (error["name"], error["status"]) == (name, status), error
    for fact in facts:
        assert fact in error["message"], error
    for inside in ("Traceback", 'File "', "[object", "undefined", "PythonError"):
        assert inside not in error["message"], error
    assert re.search(r"\w+ \w+", error["message"]), error


FAULTY: dict[str, tuple[str, list[str]]] = {
    "syntax.py": ("from durably import job\n\ndef f(:\n    pass\n", ["syntax.py, line 3", "def f(:"]),
    "imports.py": ("import json\nimport not_there\n", ["imports.py, line 2", "not_there"]),
    "raises.py": ("limit = 3\n\nassert limit > 3, 'too low'\n", ["raises.py, line 3", "too low"]),
}


def test_a_job_file_that_cannot_be_loaded_is_refused_with_its_name_and_line(browser: Browser, server: Server) -> None:
    for file, (source, _) in FAULTY.items():
        server.put(f"/t/{file}", source)
    tab = browser.tab()
    refusals = "files => Promise.all(files.map(file => refusal(() => connect({ jobs: [file] }))))"
    for error, (_, facts) in zip(tab.js(refusals, list(FAULTY)), FAULTY.values(), strict=True):
        assert_error(error, "ValidationError", 400, *facts)


def test_job_files_that_are_no_list_are_refused_and_one_that_is_listed_twice_is_loaded_once(browser: Browser) -> None:
    tab = browser.tab()
    error = tab.refusal("() => connect({ jobs: './jobs.py' })")
    assert_error(error, "ValidationError", 400, "jobs must be a list", '"./jobs.py"')
    names = "async () => (await durably.jobs()).map(({ name }) => name)"
    tab.connect()
    once = tab.js(names)
    tab.js("durably.close()")
    tab.connect(jobs=("./jobs.py", "jobs.py"))
    assert tab.js(names) == once


def test_a_page_can_connect_without_a_word(browser: Browser) -> None:
    """Every option has a default, and so have all of them."""
    tab = browser.tab()
    tab.js("async () => { window.durably = await within(connect()) }")
    assert tab.js("durably.jobs()") == []
    tab.js(OPFS)
    assert "durably.sqlite3" in tab.js("names()")


def test_a_job_file_that_is_not_there_is_named(browser: Browser) -> None:
    browser.expect_error("404")
    error = browser.tab().refusal("() => connect({ jobs: ['./nowhere.py'] })")
    assert_error(error, "NotFoundError", 404, "/t/nowhere.py")


def test_calls_that_are_refused_store_nothing(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect()

    unknown = tab.refusal("() => durably.trigger('sing', {})")
    assert_error(unknown, "NotFoundError", 404, "sing", "chain", "keep-rows", "think")
    missing = tab.refusal("() => durably.trigger('chain', {})")
    assert_error(missing, "ValidationError", 400, "chain", "ledger")
    wrong = tab.refusal("(ledger) => durably.trigger('chain', { ledger, steps: 'many' })", ledger.url)
    assert_error(wrong, "ValidationError", 400, "chain", "steps")
    lost = tab.refusal("() => durably.cancel('no-such-run')")
    assert_error(lost, "NotFoundError", 404, "no-such-run")

    assert tab.js("durably.getRuns()") == []
    assert tab.js("durably.getRun('no-such-run')") is None
    assert ledger.entries == []


def test_a_file_that_is_no_database_is_left_as_it_is_and_so_is_every_other(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.js(OPFS)
    tab.connect(database="good.sqlite3")
    run_id = tab.trigger("chain", {"ledger": ledger.url, "steps": 2})
    tab.follow(run_id)
    tab.js("durably.close()")
    letter = "Dear reader, this is a letter. " * 200
    tab.js("(text) => write('letter.txt', text)", letter)
    files = tab.js("names()")

    error = tab.refusal("() => connect({ database: 'letter.txt', jobs: ['./jobs.py'] })")

    assert_error(error, "StorageError", 503, "letter.txt", "not a SQLite database")
    assert tab.js("read('letter.txt')") == letter
    assert set(tab.js("names()")) >= set(files)
    tab.connect(database="good.sqlite3")
    assert tab.run(run_id)["output"] == chain_output(2)


def test_a_page_in_an_insecure_context_is_told_so(browser: Browser) -> None:
    tab = browser.tab(host=OTHER_HOST)
    assert tab.js("isSecureContext") is False
    error = tab.refusal("() => connect({ jobs: ['./jobs.py'] })")
    assert_error(error, "StorageError", 503, "secure context", "https", "localhost")


def test_a_page_may_connect_twice(browser: Browser, ledger: Ledger) -> None:
    tab = browser.tab()
    tab.connect()
    tab.js("window.other = durably")
    tab.connect()
    run_id = tab.trigger("chain", {"ledger": ledger.url})

    assert tab.follow(run_id)["output"] == chain_output()
    assert tab.js("id => other.getRun(id)", run_id)["output"] == chain_output()
    assert_survived(ledger, chain_names(), interruptions=0)
