"""The figures of booting: first visits, second visits, and going on with an interrupted job.

In each round durably, the bare worker and the peer get an empty profile each, so that a first visit is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from harness.server import DIST
from harness.snapshots import wait_for_snapshot

from .pages import Machine, ask
from .samples import Samples

SNAPSHOT_SECONDS = 8.0
"""About as long a first visit of durably's lasts until it has kept a snapshot; the bare worker's lasts as long."""

FIGURES = {"warm-boot", "resume", "first-visit"}


def packages() -> list[str]:
    """What the bare worker has Pyodide load: what durably's own worker does."""
    found: list[str] = json.loads((DIST / "durably" / "manifest.json").read_text("utf-8"))["packages"]
    return found


def measure(machine: Machine, samples: Samples, chosen: set[str], rounds: int, rest_seconds: float) -> None:
    """`rest_seconds` is for how long a page is left alone before it is closed, as a reader leaves it."""
    turns: list[Callable[[Machine, Samples, set[str], float], None]] = [_ours, _bare, _peer]
    for number in range(rounds):
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn(machine, samples, chosen, rest_seconds)


def _ours(machine: Machine, samples: Samples, chosen: set[str], rest_seconds: float) -> None:
    with machine.profile() as browser:
        with machine.page(browser, "/bench/ours.html") as tab:
            samples.add("first-visit.ours", ask(tab, "connected"))
            wait_for_snapshot(tab)
            tab.page.wait_for_timeout(1000 * rest_seconds)
        with machine.page(browser, "/bench/ours.html") as tab:
            samples.add("warm-boot.ours", ask(tab, "connected"))
            if "resume" not in chosen:
                return
            ask(tab, "begin")
            tab.page.wait_for_timeout(1000 * rest_seconds)
            browser.reload(tab, until="window.firstStep")
            samples.add("resume.ours", ask(tab, "firstStep"))
            samples.add("resume.connected", ask(tab, "connected"))


def _bare(machine: Machine, samples: Samples, chosen: set[str], rest_seconds: float) -> None:
    if not chosen & {"warm-boot", "first-visit"}:
        return
    with machine.profile() as browser:
        with machine.page(browser, "/bench/bare.html", package=packages()) as tab:
            samples.add("first-visit.bare", ask(tab, "connected"))
            tab.page.wait_for_timeout(1000 * (SNAPSHOT_SECONDS + rest_seconds))
        with machine.page(browser, "/bench/bare.html", package=packages()) as tab:
            samples.add("warm-boot.bare", ask(tab, "connected"))


def _peer(machine: Machine, samples: Samples, chosen: set[str], rest_seconds: float) -> None:
    if "resume" not in chosen:
        return
    with machine.profile() as browser, machine.page(browser, "/peer/peer.html") as tab:
        samples.add("first-visit.peer", ask(tab, "connected"))
        ask(tab, "begin")
        tab.page.wait_for_timeout(1000 * rest_seconds)
        browser.reload(tab, until="window.firstStep")
        samples.add("resume.peer", ask(tab, "firstStep"))
        samples.add("warm-boot.peer", ask(tab, "connected"))
