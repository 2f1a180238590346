"""Processes that are killed at any moment: no checkpoint is lost, none is executed again, all runs complete.

`DURABLY_KILL_ROUNDS=200` kills ten times as often as a usual test run does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from forks import Forks
from killed_program import MAKE_TABLE

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("killed_program.py")
ROUNDS = int(os.environ.get("DURABLY_KILL_ROUNDS", "20"))
STEPS = 12
SLOTS = 2


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@dataclass
class Place:
    """A database and a ledger, and what is in them."""

    database: Path
    ledger: Path

    def query(self, sql: str) -> list[Any]:
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
            return connection.execute(sql).fetchall() if "durably_steps" in tables else []

    def committed(self) -> dict[str, tuple[Any, int]]:
        """By "RUN STEP" the output and the moment of each completed step."""
        rows = self.query("SELECT run_id, name, output, completed_at FROM durably_steps WHERE status = 'completed'")
        return {f"{run_id} {name}": (output, at) for run_id, name, output, at in rows}

    def appended(self) -> Counter[str]:
        return Counter(f"{run_id} {name}" for run_id, name in self.query("SELECT run_id, step FROM appended"))

    def executions(self) -> dict[str, list[int]]:
        """By "RUN STEP" the moments at which it was executed. A line that was cut off by a kill there is none."""
        found: dict[str, list[int]] = {}
        for line in self.ledger.read_text("utf-8").splitlines() if self.ledger.exists() else ():
            run_id, step, moment = line.split()
            found.setdefault(f"{run_id} {step}", []).append(int(moment))
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(MAKE_TABLE)
    return Place(tmp_path / "jobs.sqlite3", tmp_path / "ledger.txt")


def both_or_neither(place: Place) -> None:
    """What a transaction wrote is there with its checkpoint, once, or not at all."""
    expected = {name for step in place.committed() for name in (step, f"{step} again")}
    assert place.appended() == Counter(expected)


def all_is_well(place: Place, runs: int, kills: int) -> None:
    """After the end: every run completed, every step was executed, and not more often than kills explain."""
    stored = place.query("SELECT id, status, output, generation, completed_step_count, job_name FROM durably_runs")
    assert len(stored) == runs
    executions, committed = place.executions(), place.committed()
    for run_id, status, output, generation, count, job_name in stored:
        assert status == "completed"
        assert output == str(sum(n * n for n in range(STEPS)) if job_name == "squares" else STEPS)
        assert count == STEPS, "a checkpoint was written twice"
        names = [f"{run_id} step-{n}" for n in range(STEPS)]
        assert all(name in committed for name in names)
        again = [len(executions[name]) - 1 for name in names]
        assert max(again) <= kills
        assert sum(again) <= generation - 1, "a step was executed again without a new claim"
        for name in names:
            assert max(executions[name]) <= committed[name][1], f"{name} was executed after its checkpoint"
    assert len(executions) == runs * STEPS
    assert place.query("PRAGMA integrity_check") == [("ok",)]


# --- at random moments ----------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["squares", "rows"])
def test_a_process_is_killed_at_random_moments(forks: Forks, place: Place, job: str) -> None:
    randomness = random.Random(job)
    kills, before = 0, place.committed()
    for number in range(ROUNDS):
        frozen = {name: len(moments) for name, moments in place.executions().items() if name in before}
        pid = forks.start("work", str(place.database), str(place.ledger), job, 1 + number, STEPS, {})
        time.sleep(randomness.uniform(0, 0.12))
        os.kill(pid, signal.SIGKILL)
        kills += forks.wait(pid) == -signal.SIGKILL

        now = place.committed()
        assert {name: now.get(name) for name in before} == before, "a checkpoint was lost or changed"
        after = place.executions()
        assert {name: len(after[name]) for name in frozen} == frozen, "a committed step was executed again"
        if job == "rows":
            both_or_neither(place)
        before = now

    last = forks.start("work", str(place.database), str(place.ledger), job, ROUNDS, STEPS, {"max_concurrent_runs": 4})
    assert forks.wait(last) == 0
    assert kills > ROUNDS / 2, "there was too little to do"
    all_is_well(place, ROUNDS, kills)
    if job == "rows":
        both_or_neither(place)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_on_one_file_are_killed_at_random_moments(forks: Forks, place: Place, count: int) -> None:
    """Whoever is late here is not dead, so the leases are longer, and a dead one's runs wait two seconds."""
    randomness = random.Random(count)
    options = {"heartbeat_interval": 0.2, "stale_threshold": 2.0, "max_concurrent_runs": SLOTS}
    kills, runs, job = 0, 10, ["squares", "rows"][count // 4]

    def start() -> int:
        return forks.start("work", str(place.database), str(place.ledger), job, runs, STEPS, options)

    pids = [start() for _ in range(count)]
    for number in range(ROUNDS):
        time.sleep(randomness.uniform(0.02, 0.1))
        victim = pids.pop(randomness.randrange(count))
        os.kill(victim, signal.SIGKILL)
        kills += forks.wait(victim) == -signal.SIGKILL
        runs = 10 + number
        pids.append(start())
    assert [forks.wait(pid) for pid in pids] == [0] * count
    assert kills > ROUNDS / 2, "there was too little to do"
    all_is_well(place, runs, kills)
    if job == "rows":
        both_or_neither(place)


# --- at every statement ---------------------------------------------------------------------------


def test_a_process_is_killed_after_each_statement_of_a_run(forks: Forks, place: Place) -> None:
    """The run has transactions; after every kill both the rows and the checkpoint are there, or neither."""
    parameters = (str(place.database), str(place.ledger))
    # One run is stored and not executed: the first claim is killed as well.
    assert forks.wait(forks.start("trigger_one", *parameters, "rows", 2)) == 0
    deadly, seen = 0, set()
    while True:
        deadly += 1
        copy = Place(place.database.with_name("copy.sqlite3"), place.ledger.with_name("copy.txt"))
        for leftover in place.database.parent.glob("copy*"):
            leftover.unlink()
        shutil.copy(place.database, copy.database)
        status = forks.wait(forks.start("execute_one", str(copy.database), str(copy.ledger), deadly))
        both_or_neither(copy)
        seen.add(len(copy.committed()))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert forks.wait(forks.start("execute_one", str(copy.database), str(copy.ledger), 0)) == 0
        both_or_neither(copy)
        assert [status for (status,) in copy.query("SELECT status FROM durably_runs")] == ["completed"]
        assert len(copy.committed()) == 2
    assert deadly > 15
    assert seen == {0, 1, 2}


def test_a_process_is_killed_after_each_statement_of_a_migration(forks: Forks, tmp_path: Path) -> None:
    """After every kill the schema is there as a whole, or not at all, and the next start has it."""
    deadly, schemas = 0, Counter[int]()
    while True:
        deadly += 1
        database = tmp_path / f"{deadly}.sqlite3"
        status = forks.wait(forks.start("migrate", str(database), str(tmp_path / "ledger.txt"), deadly))
        with closing(sqlite3.connect(database)) as connection:
            [size] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        schemas[size] += 1
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert deadly > 15
    assert set(schemas) == {0, size}
    assert schemas[size] <= 3, "the commit is the last of what a migration does"


# --- a program that is started anew ---------------------------------------------------------------


def test_a_program_that_was_killed_goes_on_when_it_is_started_again(place: Place) -> None:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(PROGRAM), str(place.database), str(place.ledger), str(STEPS)])

    process = start()
    deadline = time.monotonic() + 20
    while len(place.executions()) < 3:
        assert not process.poll(), f"the program ended with {process.returncode}"
        assert time.monotonic() < deadline, "the program does nothing"
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert start().wait(timeout=30) == 0
    all_is_well(place, runs=1, kills=1)
