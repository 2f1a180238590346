"""The figures of volume in the browser: a claim beside many finished runs, a run of many steps, what a page loads."""

from __future__ import annotations

import gzip

from harness.server import DIST

from .pages import Machine, ask
from .samples import Samples

PYDANTIC = ("pydantic-", "pydantic_core-", "annotated_types-", "typing_extensions-", "typing_inspection-")
"""What the wheels of pydantic, and of what it needs, begin with."""
PYODIDE = ("pyodide.", "pyodide-lock.json", "python_stdlib.zip", "package.json")


def measure_claims(machine: Machine, samples: Samples, times: int, finished: int) -> None:
    with machine.profile() as browser, machine.page(browser, "/bench/ours.html", database=machine.name()) as tab:
        found = ask(tab, "claim", finished, times)
        for name, values in found.items():
            samples.add(f"claim-browser.{name}", *values)


def measure_long(machine: Machine, samples: Samples, rounds: int, steps: int) -> None:
    with machine.profile() as browser:
        for _ in range(rounds):
            with machine.page(browser, "/bench/ours.html", database=machine.name()) as tab:
                ask(tab, "stepsPerSecond", 50)
                marks = ask(tab, "long", steps)
            times = [mark[0] for mark in marks]
            tenth = steps // 10
            samples.add("long.start", 1000 * (times[1] - times[0]) / tenth)
            samples.add("long.end", 1000 * (times[-1] - times[-2]) / tenth)
            samples.add("long.memory-start", marks[1][1] / 1e6)
            samples.add("long.memory-end", marks[-1][1] / 1e6)


def measure_size(machine: Machine, samples: Samples) -> None:
    [wheel] = (DIST / "durably").glob("durably-*.whl")
    samples.add("size.wheel", wheel.stat().st_size / 1e3)
    asked = machine.server.asked
    asked.clear()
    with machine.profile() as browser, machine.page(browser, "/bench/ours.html"):
        names = sorted({path.removeprefix("/bench/durably/") for path in asked if path.startswith("/bench/durably/")})
    sizes = {name: compressed(name) for name in names}
    samples.facts["loaded"] = {name: round(size / 1e3, 1) for name, size in sizes.items()}
    samples.add("size.page", (sum(sizes.values()) - size_of_theirs()) / 1e3)


def size_of_theirs() -> int:
    """What a page with Pyodide and pydantic would load without durably: the files as they are published."""
    files = sorted((DIST / "durably" / "pyodide").glob("*"))
    return sum(compressed(f"pyodide/{file.name}") for file in files if file.name.startswith((*PYODIDE, *PYDANTIC)))


def compressed(name: str) -> int:
    content = (DIST / "durably" / name).read_bytes()
    return min(len(content), len(gzip.compress(content, 9)))
