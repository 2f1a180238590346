"""A brief torture of each browser; `build.py torture` has a long one. And that its verdict can be one of guilty."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from harness.browser import Browser
from harness.server import Server
from harness.verdict import Tables, judge
from harness.walks import WalkLedger
from torture import torture

SEED = 4
SECONDS = {"chromium": 45, "firefox": 15}
"""Beside the time in which what is left comes to its end."""

LEAST = {"chromium": (5, 2, 20), "firefox": (0, 0, 0)}
"""Runs, kills and commits that there must be more of. On two cores Firefox boots a tab in up to 20 seconds."""


@pytest.mark.alone
@pytest.mark.engines("chromium", "firefox")
def test_nothing_is_lost_or_done_twice_whatever_ends_tabs_workers_and_the_browser(
    browser: Browser, server: Server
) -> None:
    verdict, report = torture(browser, server, seed=SEED, seconds=SECONDS[browser.engine.kind])

    print(report)
    assert not verdict.problems, "the report says what is wrong"
    runs, kills, committed = LEAST[browser.engine.kind]
    assert verdict.figures.runs > runs, "there was work"
    assert verdict.figures.kills > kills, "there were deaths"
    assert verdict.figures.committed > committed, "the tabs hear of each other's steps"


# --- the verdict itself ---------------------------------------------------------------------------


@pytest.fixture
def ledger() -> WalkLedger:
    """A run of one step, executed and committed."""
    ledger = WalkLedger("")
    execute(ledger, "A")
    ledger.write("committed", run="R", step="01-row")
    return ledger


def tables() -> Tables:
    """What the database holds after that run."""
    payload = json.dumps({"ledger": "", "ops": [{"kind": "row"}], "value": 1})
    return {
        "integrity": [["ok"]],
        "runs": [["R", "completed", None, payload, "32", None, 1]],
        "steps": [["R", "01-row", "completed"]],
        "kept": [["R", "01-row"]],
        "signals": [],
    }


def execute(ledger: WalkLedger, worker: str, *, step: str = "01-row", heap: int = 1) -> None:
    execution = str(sum(fact.kind == "step" for fact in ledger))
    told = {"kind": "step", "run": "R", "step": step, "worker": worker, "heap": str(heap), "fails": "0"}
    ledger.hear([*told.items(), ("id", execution)])


def test_a_run_that_went_well_is_acquitted(ledger: WalkLedger) -> None:
    verdict = judge(ledger.since(0), tables())
    assert not verdict.problems
    assert (verdict.figures.runs, verdict.figures.executions, verdict.figures.lost) == (1, 1, 0)


def test_a_step_cut_off_by_the_end_of_its_worker_may_be_executed_again_once() -> None:
    ledger = WalkLedger("")
    ledger.write("fault", what="crash", workers="1")
    execute(ledger, "A")
    execute(ledger, "B")
    verdict = judge(ledger.since(0), tables())
    assert not verdict.problems
    assert verdict.figures.again == 1

    execute(ledger, "B")
    execute(ledger, "B")
    assert judge(ledger.since(0), tables()).problems


def test_a_tab_that_closed_its_connection_may_be_refused_what_was_under_way(ledger: WalkLedger) -> None:
    ledger.write("fault", what="restart", tab="1", workers="1")
    ledger.write("refused", what="retry", run="R", name="ConnectionClosedError", tab="1")
    assert not judge(ledger.since(0), tables()).problems


def test_one_execution_of_which_the_answer_got_lost_is_told_twice_and_counted_once() -> None:
    ledger = WalkLedger("")
    told = {"kind": "step", "run": "R", "step": "01-row", "worker": "A", "heap": "1", "fails": "1", "id": "x"}
    assert [ledger.hear([*told.items()]), ledger.hear([*told.items()])] == ["fail", "fail"]
    assert len(ledger.since(0)) == 1
    assert ledger.hear([*(told | {"id": "y"}).items()]) == "go"


Crime = Callable[[WalkLedger, Tables], None]

CRIMES: dict[str, tuple[Crime, str]] = {
    "a committed step is executed again": (lambda facts, _: execute(facts, "B"), "although it was committed"),
    "a committed step is not there": (lambda _, there: there["steps"].clear(), "committed and is not there"),
    "a triggered run is not there": (
        lambda facts, _: facts.write("did", what="trigger", run="S"),
        "triggered and is not there",
    ),
    "a signal is not there": (
        lambda facts, _: facts.write("did", what="signal", run="R", detail="7"),
        "signal 7 of run R is there 0 times",
    ),
    "a row is there twice": (lambda _, there: there["kept"].append(["R", "01-row"]), "2 rows of step"),
    "the output is wrong": (lambda _, there: there["runs"][0].__setitem__(4, "33"), "gave 33, and not 32"),
    "a run has not ended": (lambda _, there: there["runs"][0].__setitem__(1, "running"), "is running"),
    "the file is damaged": (lambda _, there: there["integrity"].append(["row 1 missing"]), "integrity_check"),
    "a tab hears of a locked database": (
        lambda facts, _: facts.write("problem", text="database is locked"),
        "database is locked",
    ),
    "a connection that nobody closed is closed": (
        lambda facts, _: facts.write("refused", what="retry", run="R", name="ConnectionClosedError", tab="1"),
        "ConnectionClosedError",
    ),
    "a later signal is delivered first": (
        lambda _, there: there["signals"].extend([["R", "1", None, None], ["R", "2", "01-row", 0]]),
        "were delivered to",
    ),
    "memory grows": (lambda facts, _: execute(facts, "A", step="02-row", heap=2**30), "memory of worker A grew"),
}


@pytest.mark.parametrize("crime", CRIMES)
def test_a_crime_is_found_out(ledger: WalkLedger, crime: str) -> None:
    commit, sentence = CRIMES[crime]
    there = tables()
    commit(ledger, there)
    found = judge(ledger.since(0), there).problems
    assert any(sentence in problem.text for problem in found), found
