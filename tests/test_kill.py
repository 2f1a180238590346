"""A process that is killed in the middle of a job: the next one goes on from the last checkpoint."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from durably import Step, create_durably

PROGRAM = Path(__file__).with_name("killed_program.py")
STEPS = 40


def start(database: Path, ledger: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(PROGRAM), str(database), str(ledger), str(STEPS)])


def executions(ledger: Path) -> list[str]:
    return ledger.read_text("utf-8").split() if ledger.exists() else []


def wait_for_executions(ledger: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Killing must happen at a point of the work, not of the clock; so the ledger is watched."""
    deadline = time.monotonic() + 20
    while len(executions(ledger)) < count:
        assert process.poll() is None, f"the program ended early with {process.returncode}"
        assert time.monotonic() < deadline, "the program does nothing"
        time.sleep(0.001)


def committed(database: Path) -> list[Step]:
    async def read() -> list[Step]:
        durably = create_durably(str(database))
        [run] = await durably.get_runs()
        steps = await durably.get_steps(run.id)
        await durably.stop()
        return steps

    return asyncio.run(read())


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_no_checkpoint_and_repeats_none(tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    database, ledger = tmp_path / "jobs.sqlite3", tmp_path / "ledger.txt"
    done_before: set[str] = set()
    kills = 0
    for _ in range(3):
        process = start(database, ledger)
        wait_for_executions(ledger, len(executions(ledger)) + randomness.randint(1, 3), process)
        time.sleep(randomness.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        now_committed = {step.name for step in committed(database)}
        assert done_before <= now_committed, "a checkpoint was lost"
        before_restart = Counter(executions(ledger))
        done_before = now_committed
        # From here on none of these may run again.
        frozen = {name: before_restart[name] for name in done_before}
        process = start(database, ledger)
        wait_for_executions(ledger, sum(before_restart.values()) + 1, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        after = Counter(executions(ledger))
        assert {name: after[name] for name in frozen} == frozen, "a committed step ran again"

    last = start(database, ledger)
    assert last.wait(timeout=30) == 0
    counts = Counter(executions(ledger))
    assert set(counts) == {f"step-{n}" for n in range(STEPS)}
    assert sum(counts.values()) - STEPS <= kills, "each kill repeats at most the step in flight"
    steps = committed(database)
    assert [step.output for step in steps] == [n * n for n in range(STEPS)]


def test_the_run_completes_with_the_right_output(tmp_path: Path) -> None:
    database, ledger = tmp_path / "jobs.sqlite3", tmp_path / "ledger.txt"
    process = start(database, ledger)
    wait_for_executions(ledger, 5, process)
    process.kill()
    process.wait()
    assert start(database, ledger).wait(timeout=30) == 0

    async def read() -> tuple[str, int]:
        durably = create_durably(str(database))
        [run] = await durably.get_runs()
        await durably.stop()
        return run.status, run.output

    assert asyncio.run(read()) == ("completed", sum(n * n for n in range(STEPS)))
