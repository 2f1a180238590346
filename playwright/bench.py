"""The bench: every figure of `web/BENCH.md`, measured in one run beside its limit or its peer.

`build.py bench` runs it; `--help` says what else it can do. Nothing here decides whether a test passes: a figure that
misses its reach is shown as what it is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measures import boots, cpython, peers, report, sessions, volumes
from measures.figures import NAMES, rows
from measures.method import method
from measures.pages import machine
from measures.recording import record
from measures.samples import Samples


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    sizes: sessions.Sizes = field(default_factory=sessions.Sizes)
    rounds: int = 5
    rest_seconds: float = 5.0
    claims: int = 20
    finished: int = 100_000
    long: int = 10_000


QUICK = Effort(
    sessions.Sizes(steps=20, runs=5, triggers=2, replayed=20, replays=1, warm_up=5),
    rounds=1,
    rest_seconds=0.5,
    claims=2,
    finished=1000,
    long=200,
)


def measure(samples: Samples, chosen: set[str], effort: Effort) -> str:
    """Measure; the name and version of the browser."""
    sizes = effort.sizes
    recording = record(sizes.warm_up + sizes.steps)  # before Playwright has an event loop
    if chosen & {"cpython", "claim"}:
        report.show("On CPython")
    if "cpython" in chosen:
        cpython.measure_steps(samples, effort.rounds, recording, sizes.warm_up)
    if "claim" in chosen:
        cpython.measure_claims(samples, effort.claims, effort.finished)
    with machine() as here:
        if chosen & sessions.FIGURES:
            report.show("In the browser: steps, runs, triggers, replay")
            sessions.measure(here, samples, chosen, effort.rounds, sizes, recording)
        if chosen & boots.FIGURES:
            report.show("In the browser: visits")
            boots.measure(here, samples, chosen, effort.rounds, effort.rest_seconds)
        if "claim" in chosen:
            report.show("In the browser: claims")
            volumes.measure_claims(here, samples, effort.claims, effort.finished)
        if "long" in chosen:
            report.show("In the browser: a long run")
            volumes.measure_long(here, samples, effort.rounds, effort.long)
        if "size" in chosen:
            volumes.measure_size(here, samples)
        return here.browser_version


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build.py bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each, to see that it works")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"these figures: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="default: %(default)s")
    parser.add_argument("--json", type=Path, default=peers.FOLDER / "figures.json", help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into web/BENCH.md")
    return parser.parse_args()


def main() -> int:
    options = command_line()
    chosen = set(options.only or NAMES)
    if options.write and (options.quick or options.only):
        sys.exit("--write is for all figures, in full.")
    effort = QUICK if options.quick else Effort(rounds=options.rounds)
    peers.peer_site()
    about: dict[str, Any] = {
        "date": report.today(),
        "machine": report.machine(),
        "quick": options.quick,
        "rounds": effort.rounds,
    }
    samples = Samples()
    browser = measure(samples, chosen, effort)
    about["machine"]["load"].append(report.load())
    found_rows = rows(samples, chosen)
    sizes = effort.sizes
    about["method"] = method(
        chosen,
        steps=sizes.steps,
        warm_up=sizes.warm_up,
        runs=sizes.runs,
        replayed=sizes.replayed,
        rest=effort.rest_seconds,
        finished=effort.finished,
        long=effort.long,
    )
    found = report.document(found_rows, samples, browser, about)
    report.write(options.json, found)
    report.show(f"\n{report.table(found_rows)}\n\nAll of it, with the method: {options.json}")
    if options.write:
        report.BENCH_MD.write_text(report.markdown(found, found_rows), "utf-8")
        report.show(f"Written: {report.BENCH_MD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
