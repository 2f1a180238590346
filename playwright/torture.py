"""Torture: up to four tabs on one database, and everything that can happen to them, at moments drawn by chance.

`build.py torture` runs it for as long as you like; `test_torture.py` briefly. A machine triggers walks
(`harness/walks.py`) and signals, cancels and retries them, while it reloads, closes and crashes tabs, ends workers,
takes the network away and kills the whole browser. Then it lets what is left come to an end, and `harness/verdict.py`
judges. Every choice comes from one seed; the moments at which the browser comes to it do not, so a seed repeats the
choices, and not each interleaving.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from harness.browser import ENGINES, Browser, Engine, Tab
from harness.server import Server
from harness.verdict import KEPT_TABLE, QUERIES, Problem, Tables, Verdict, judge
from harness.walks import Op, WalkLedger, draw_ops, one_of_each
from playwright.sync_api import sync_playwright

MOST_TABS = {"chromium": 4, "firefox": 2}
"""Firefox takes long to start Python, and longer for several tabs at once."""
MOST_ACTIVE = 10
"""So many runs at once are work enough."""
CONNECT_SECONDS = 60
CALM_SECONDS = 90
"""After the last fault everything is to come to its end within so long."""
MOST_OFFLINE_SECONDS = 1.0
MOVES = {"trigger": 10, "signal": 5, "cancel": 2, "retry": 4, "fault": 4, "open": 3}
FAULTS = ["reload"] * 3 + ["close"] * 2 + ["crash"] * 2 + ["terminate"] * 2 + ["restart", "offline", "kill"]
"""A bag out of which they are drawn; when it is empty it is filled again, so that none is left out for long."""
AT_WORK = 0.8
"""The share of faults that fall on a worker which executes runs; the others fall on one that may be booting."""
TOLERATED = re.compile(
    r"ERR_INTERNET_DISCONNECTED|NetworkError|wasm streaming compile failed: TypeError: Failed to fetch"
    r"|falling back to ArrayBuffer instantiation|died \d+ times"
)
"""What a page may say of a network that is gone, and of a run that is parked."""


@dataclass
class Seat:
    """A tab, and since when it has to connect."""

    tab: Tab
    number: int
    since: float
    connected: bool = False


class Torture:
    """Tortures one browser."""

    def __init__(self, browser: Browser, ledger: WalkLedger, seed: int) -> None:
        self._browser = browser
        self._ledger = ledger
        self._chance = Random(seed)
        self._seats: list[Seat] = []
        self._opened = 0
        self._asked = 0
        self._bag: list[str] = []
        self._read_facts = 0
        self._active: dict[str, None] = {}
        self._failed: dict[str, None] = {}

    def run(self, seconds: float) -> Verdict:
        """Torture it for so long, let it rest, and judge."""
        self._open()
        self._wait_until_connected()
        self._trigger(one_of_each(self._chance))
        while self._ledger.seconds < seconds:
            self._move()
            self._pause(self._chance.uniform(0.02, 0.3))
        problems = self._calm()
        tables = self._look()
        self._read()
        verdict = judge(self._ledger.since(0), tables)
        return Verdict(verdict.figures, [*verdict.problems, *problems])

    # -- moves -----------------------------------------------------------------------------------------

    def _move(self) -> None:
        self._read()
        match self._chance.choices(list(MOVES), list(MOVES.values()))[0]:
            case "trigger" if len(self._active) < MOST_ACTIVE:
                self._trigger(draw_ops(self._chance))
            case "signal":
                self._signal_one()
            case "cancel" if self._active:
                self._ask("cancel", self._chance.choice(list(self._active)))
            case "retry" if self._failed:
                self._ask("retry", self._chance.choice(list(self._failed)))
            case "fault" if 2 * sum(seat.connected for seat in self._seats) >= len(self._seats):
                self._fault()
            case "open" if len(self._seats) < MOST_TABS[self._browser.engine.kind]:
                self._open()

    def _trigger(self, ops: list[Op]) -> None:
        self._asked += 1
        payload = {"ledger": self._ledger.url, "ops": ops}
        self._ask("trigger", "walk", payload, {"idempotencyKey": f"walk-{self._asked}"})

    def _signal_one(self) -> None:
        self._asked += 1
        if (seat := self._connected_seat()) is not None:
            seat.tab.js("([share, number]) => void signalOne(share, number)", [self._chance.random(), self._asked])

    def _ask(self, what: str, *arguments: object) -> None:
        """Ask one of the tabs; what comes of it is in the ledger."""
        if (seat := self._connected_seat()) is not None:
            about = {} if what == "trigger" else {"run": str(arguments[0])}
            self._ledger.write("asked", what=what, tab=str(seat.number), **about)
            seat.tab.js("([what, ...args]) => void act(what, ...args)", [what, *arguments])

    # -- faults ----------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if not self._seats:
            self._open()
            return
        if not self._bag:
            is_chromium = self._browser.engine.kind == "chromium"
            self._bag = [fault for fault in FAULTS if is_chromium or fault not in ("crash", "offline")]
            self._chance.shuffle(self._bag)
        if self._bag[-1] == "offline" and not all(seat.connected for seat in self._seats):
            return  # a page that is loading would never be there
        fault = self._bag.pop()
        at_work = [seat for seat in self._seats if seat.connected]
        seat = self._chance.choice(at_work if at_work and self._chance.random() < AT_WORK else self._seats)
        ended = {"offline": 0, "kill": len(self._seats)}.get(fault, 1)
        self._ledger.write("fault", what=fault, tab=str(seat.number), workers=str(ended))
        match fault:
            case "reload":
                self._begin_anew(seat)
                self._browser.reload(seat.tab, until="true")
            case "close":
                self._close(seat)
            case "crash":
                self._seats.remove(seat)
                self._browser.crash(seat.tab)
                seat.tab.page.close()
            case "terminate":
                self._begin_anew(seat)
                seat.tab.js("() => { window.durably?.worker.terminate(); void begin() }")
            case "restart":
                self._begin_anew(seat)
                seat.tab.js("() => { window.durably?.close(); void begin() }")
            case "offline":
                self._browser.set_offline(True)
                self._pause(self._chance.uniform(0.2, MOST_OFFLINE_SECONDS))
                self._browser.set_offline(False)
            case "kill":
                self._browser.kill()
                self._seats.clear()
                self._browser.start()
                self._open()
        self._ledger.write("note", text=f"{fault} done")

    def _open(self) -> None:
        self._opened += 1
        query = urlencode({"ledger": self._ledger.url, "tab": self._opened})
        self._ledger.write("note", text=f"tab {self._opened} is opened")
        since = self._ledger.seconds
        tab = self._browser.tab(f"/t/torture.html?{query}", until="true")
        self._seats.append(Seat(tab, self._opened, since))

    def _close(self, seat: Seat) -> None:
        self._seats.remove(seat)
        self._browser.close(seat.tab)

    def _begin_anew(self, seat: Seat) -> None:
        seat.connected = False
        seat.since = self._ledger.seconds

    # -- the end ---------------------------------------------------------------------------------------

    def _calm(self) -> list[Problem]:
        """Leave one or two tabs, and wait for the end of every run; what has not come to its end."""
        while len(self._seats) > self._chance.randint(1, 2):
            self._ledger.write("fault", what="close", tab=str(self._seats[0].number), workers="1")
            self._close(self._seats[0])
        if not self._seats:
            self._open()
        self._wait_until_connected()
        self._ledger.write("note", text="calm")
        end = time.monotonic() + CALM_SECONDS
        active: list[str] = ["everything"]
        while active and time.monotonic() < end:
            self._read()
            self._signal_one()
            self._pause(0.2)
            active = self._seats[0].tab.js("stillActive()")
        self._pause(1)  # the last facts are on their way
        unanswered = [about for seat in self._seats for about in seat.tab.js("stillAsked()")]
        return [
            *(Problem(f"run {run} is still active", run) for run in active),
            *(Problem(f"never answered: {about}") for about in unanswered),
            *(Problem(f"a page grew by {grown} bytes") for seat in self._seats if (grown := seat.tab.js("grown()"))),
        ]

    def _look(self) -> Tables:
        # A brief walk may not have come to its first transaction.
        _, *rows = self._seats[0].tab.js("look", [KEPT_TABLE, *QUERIES.values()])
        return dict(zip(QUERIES, rows, strict=True))

    # -- what is known ---------------------------------------------------------------------------------

    def _read(self) -> None:
        for text in self._browser.take_problems():
            self._ledger.write("tolerated" if TOLERATED.search(text) else "problem", text=text)
        facts = self._ledger.since(self._read_facts)
        self._read_facts += len(facts)
        for fact in facts:
            if fact.kind == "connected":
                for seat in self._seats:
                    # The word of what was there before may come after the beginning of what is there now.
                    if str(seat.number) == fact.about["tab"] and seat.tab.js("window.began") == fact.about["began"]:
                        seat.connected = True
            elif fact.kind == "did" and fact.about["what"] == "trigger":
                self._active[fact.run] = None
            elif fact.kind == "event" and fact.about["type"] == "run:retry":
                self._failed.pop(fact.run, None)
                self._active[fact.run] = None
            elif fact.kind == "event" and fact.about["type"] != "run:stale":
                self._active.pop(fact.run, None)
                if fact.about["type"] != "run:complete":
                    self._failed[fact.run] = None
        late = [
            seat for seat in self._seats if not seat.connected and self._ledger.seconds > seat.since + CONNECT_SECONDS
        ]
        assert not late, f"tabs {[seat.number for seat in late]} do not connect"

    def _connected_seat(self) -> Seat | None:
        connected = [seat for seat in self._seats if seat.connected]
        return self._chance.choice(connected) if connected else None

    def _wait_until_connected(self) -> None:
        while not all(seat.connected for seat in self._seats):
            self._pause(0.1)
            self._read()

    def _pause(self, seconds: float) -> None:
        """Time in which the browser's messages are heard."""
        if self._seats:
            self._seats[0].tab.page.wait_for_timeout(1000 * seconds)
        else:
            time.sleep(seconds)


def report(verdict: Verdict, ledger: WalkLedger, seed: int) -> str:
    """The figures; and if something is wrong the seed, what is wrong, and what happened to the tabs and those runs."""
    if not verdict.problems:
        return f"seed {seed}, {ledger.seconds:.0f} s: {verdict.figures}"
    runs = {problem.run for problem in verdict.problems}
    told = [fact for fact in ledger if (fact.run in runs if fact.run else fact.kind not in ("asked", "did"))]
    lines = [
        f"TORTURE FAILED with seed {seed}",
        str(verdict.figures),
        "What happened to the tabs, and to the runs concerned:",
        *map(str, told),
        "What is wrong:",
        *(problem.text for problem in verdict.problems),
    ]
    return "\n".join(lines)


def torture(browser: Browser, server: Server, *, seed: int, seconds: float) -> tuple[Verdict, str]:
    """Torture a browser; the verdict, and the report of it. If it cannot even be judged, that is told, too."""
    ledger = server.new_ledger_of(WalkLedger)
    try:
        verdict = Torture(browser, ledger, seed).run(seconds)
    except BaseException:
        print(f"TORTURE BROKE OFF with seed {seed}", *ledger, sep="\n")
        raise
    return verdict, report(verdict, ledger, seed)


@contextmanager
def running_server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--engine", choices=list(ENGINES), default="chromium")
    return parser.parse_args()


def main() -> int:
    options = command_line()
    engine: Engine = ENGINES[options.engine]
    print(f"Torture of {engine.name} for {options.minutes:g} minutes, seed {options.seed}", flush=True)
    with running_server() as server, tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = Browser(getattr(playwright, engine.kind), Path(folder) / "profile", server, engine)
        try:
            verdict, text = torture(browser, server, seed=options.seed, seconds=60 * options.minutes)
        finally:
            browser.stop()
    print(text)
    return int(bool(verdict.problems))


if __name__ == "__main__":
    sys.exit(main())
