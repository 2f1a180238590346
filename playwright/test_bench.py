"""The bench works: in its quick mode it measures every figure of its table. How fast anything is, it does not judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

BENCH = Path(__file__).with_name("bench.py")
FIGURES = {
    "steps": ["peer", "raw commits"],
    "runs": ["peer"],
    "trigger": [None, "peer"],
    "replay": [None],
    "warm-boot": ["bare worker, warm"],
    "resume": ["our warm boot", "peer"],
    "first-visit": ["bare worker, first"],
    "claim": ["empty file", "empty file"],
    "long": ["at the start", "after 1,000 steps"],
    "cpython": ["raw sqlite3 commits", "DBOS Transact"],
    "size": [None, None],
}


def test_the_quick_bench_measures_every_figure_of_its_table(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH), "--quick", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text("utf-8"))

    against: dict[str, list[str | None]] = {}
    for row in found["figures"]:
        against.setdefault(row["figure"], []).append(row["versus"])
        assert row["title"] in done.stdout
        for side in (row["ours"], row["other"] or row["ours"]):
            assert side["min"] <= side["median"] <= side["max"], row
            # It is the difference of two: of 20 steps, once, chance may be the larger part.
            assert side["min"] > 0 or row["figure"] == "replay", row
            assert side["n"] >= 1
    assert against == FIGURES
    assert found["date"]
    assert all(found["method"])
    assert found["machine"]["cores"] > 0
    versions = found["versions"]
    peers = versions.pop("peers")
    sqlite = versions.pop("sqlite")
    assert versions.keys() == {"durably", "pyodide", "browser", "python"}
    assert {"@coji/durably", "sqlocal", "dbos"} <= peers.keys()
    assert sqlite.keys() == {"cpython", "browser", "peer"}
    assert all([*versions.values(), *peers.values(), *sqlite.values()])


def test_a_figure_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    command = [sys.executable, str(BENCH), "--only", "speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "speed" in done.stderr
    assert all(name in done.stderr for name in FIGURES)
