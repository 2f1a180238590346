"""The figures of CPython: steps a second against raw commits and DBOS Transact, and claims. A process a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import peers
from .recording import Recording
from .samples import Samples

HERE = Path(__file__).resolve().parent


def ask(python: Path, *words: object) -> Any:
    """What a process prints last, as JSON."""
    command = [str(python), *map(str, words)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_steps(samples: Samples, rounds: int, recording: Recording, warm_up: int) -> None:
    """`recording` is of the steps that warm up and those that are timed together."""
    ours, dbos = Path(sys.executable), peers.dbos_python()
    steps = len(recording.steps) - warm_up
    with tempfile.TemporaryDirectory(dir=peers.FOLDER) as name:
        folder = Path(name)
        recorded = folder / "recording.json"
        recorded.write_text(recording.as_json(), "utf-8")
        turns: dict[str, Callable[[int], Any]] = {
            "ours": lambda at: ask(ours, "-m", "measures.on_cpython", "ours", folder / f"ours-{at}", warm_up, steps),
            "raw": lambda at: ask(ours, "-m", "measures.on_cpython", "raw", folder / f"raw-{at}", recorded, warm_up),
            "dbos": lambda at: ask(dbos, HERE / "on_dbos.py", folder / f"dbos-{at}", warm_up, steps),
        }
        for at in range(rounds):
            for turn in list(turns) if at % 2 == 0 else reversed(turns):
                samples.add(f"cpython.{turn}", turns[turn](at))


def measure_claims(samples: Samples, times: int, finished: int) -> None:
    with tempfile.TemporaryDirectory(dir=peers.FOLDER) as folder:
        found = ask(Path(sys.executable), "-m", "measures.on_cpython", "claims", folder, finished, times)
    for name, values in found.items():
        samples.add(f"claim-cpython.{name}", *values)
