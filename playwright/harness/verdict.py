"""What must hold once a torture is over, judged from its ledger and from what is in the database."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .walks import Fact, walk_output

CANCEL_SECONDS = 5.0
"""A cancellation that was asked for takes effect within so long."""
LATE_SECONDS = 0.5
"""So much later than it was sent a dead worker's last word may be heard."""
LOCKED = re.compile(r"SQLITE_BUSY|database (table )?is locked|\bbusy\b", re.IGNORECASE)
GROWTH_BYTES = 48 * 2**20
"""By so much Python's memory may grow from a worker's first step to its last."""
KNOWN_FAILURES = re.compile(r"stumbled on purpose|was cancelled|died \d+ times")
"""Why a run may have failed: by its own will, with its child, or because its tab was crashed again and again."""

KEPT_TABLE = "CREATE TABLE IF NOT EXISTS kept (run TEXT, step TEXT)"
QUERIES = {
    "integrity": "SELECT integrity_check FROM pragma_integrity_check",
    "runs": "SELECT id, status, error, payload, output, parent_id, completed_step_count FROM durably_runs ORDER BY id",
    "steps": "SELECT run_id, name, status FROM durably_steps",
    "kept": "SELECT run, step FROM kept",
    "signals": """SELECT signal.run_id, CAST(signal.payload AS TEXT), signal.consumed_by, step.step_index
      FROM durably_signals AS signal
      LEFT JOIN durably_steps AS step ON step.run_id = signal.run_id AND step.name = signal.consumed_by
      ORDER BY signal.run_id, signal.id""",
}
"""What is read from the database; each a table in `Tables`."""

Tables = dict[str, list[list[Any]]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be. `run` names the run whose history tells more."""

    text: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    runs: int
    outcomes: dict[str, int]
    executions: int
    committed: int
    faults: dict[str, int]
    kills: int
    """Workers that were ended."""
    again: int
    """Executions of steps that had been interrupted by the end of their worker."""
    lost: int

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {status}" for status, count in sorted(self.outcomes.items()))
        faults = ", ".join(f"{count} {what}" for what, count in sorted(self.faults.items()))
        return (
            f"runs: {self.runs} ({outcomes}); "
            f"steps: {self.executions} executed, {self.committed} heard of as committed; "
            f"kills: {self.kills} workers ({faults}); re-executions: {self.again}; lost: {self.lost}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    figures: Figures
    problems: list[Problem]


def judge(facts: Sequence[Fact], tables: Tables) -> Verdict:
    lost = [*lost_runs(facts, tables), *lost_signals(facts, tables), *lost_steps(facts, tables)]
    again, unexplained = re_executions(facts, tables)
    faults = Counter(fact.about["what"] for fact in facts if fact.kind == "fault")
    kills = sum(int(fact.about["workers"]) for fact in facts if fact.kind == "fault")
    figures = Figures(
        runs=len(tables["runs"]),
        outcomes=dict(Counter(run[1] for run in tables["runs"])),
        executions=sum(fact.kind == "step" for fact in facts),
        committed=len({(fact.run, fact.step) for fact in facts if fact.kind == "committed"}),
        faults=dict(faults),
        kills=kills,
        again=again,
        lost=len(lost),
    )
    problems = [
        *lost,
        *unexplained,
        *([Problem(f"{again} re-executions after the end of {kills} workers")] if again > kills else []),
        *([] if tables["integrity"] == [["ok"]] else [Problem(f"integrity_check: {tables['integrity']}")]),
        *wrong_outcomes(tables),
        *wrong_rows(tables),
        *wrong_signals(tables),
        *executed_after_commit(facts),
        *what_was_said(facts),
        *grown(facts),
    ]
    return Verdict(figures, problems)


def wrong_outcomes(tables: Tables) -> Iterator[Problem]:
    for run_id, status, error, payload, output, _, _ in tables["runs"]:
        if status == "completed":
            walk = json.loads(payload)
            expected = walk_output(walk["ops"], walk["value"])
            if json.loads(output) != expected:
                yield Problem(f"run {run_id} gave {output}, and not {expected}", run_id)
        elif status == "failed":
            if not KNOWN_FAILURES.search(error) or LOCKED.search(error):
                yield Problem(f"run {run_id} failed: {error}", run_id)
        elif status != "cancelled":
            yield Problem(f"run {run_id} is {status}", run_id)
    completed = Counter(run_id for run_id, _, status in tables["steps"] if status == "completed")
    for run_id, status, _, payload, _, _, count in tables["runs"]:
        if count != completed[run_id] or (status == "completed" and count != len(json.loads(payload)["ops"])):
            yield Problem(f"run {run_id}, {status}: {count} steps counted, {completed[run_id]} there", run_id)


def wrong_rows(tables: Tables) -> Iterator[Problem]:
    """The rows of a transaction are there once if its step is completed, else not at all."""
    kept = Counter((run_id, step) for run_id, step in tables["kept"])
    completed = {(run_id, name) for run_id, name, status in tables["steps"] if status == "completed"}
    for place in kept.keys() | {place for place in completed if place[1].endswith("-row")}:
        if kept[place] != (place in completed):
            yield Problem(f"{kept[place]} rows of step {place[1]} of run {place[0]}", place[0])


def wrong_signals(tables: Tables) -> Iterator[Problem]:
    """Those that were delivered are the first ones, and in the order of the steps that took them."""
    of_run: dict[str, list[int | None]] = defaultdict(list)
    for run_id, _, consumed_by, step_index in tables["signals"]:
        of_run[run_id].append(step_index if consumed_by is not None else None)
    for run_id, takers in of_run.items():
        taken = [taker for taker in takers if taker is not None]
        if takers[: len(taken)] != sorted(taken):
            yield Problem(f"signals of run {run_id} were delivered to {takers}", run_id)


def lost_runs(facts: Iterable[Fact], tables: Tables) -> Iterator[Problem]:
    there = {run[0] for run in tables["runs"]}
    for fact in facts:
        if fact.kind == "did" and fact.about["what"] == "trigger" and fact.run not in there:
            yield Problem(f"run {fact.run} was triggered and is not there", fact.run)


def lost_signals(facts: Iterable[Fact], tables: Tables) -> Iterator[Problem]:
    there = Counter((run_id, payload) for run_id, payload, _, _ in tables["signals"])
    for fact in facts:
        if fact.kind == "did" and fact.about["what"] == "signal" and there[fact.run, fact.about["detail"]] != 1:
            count = there[fact.run, fact.about["detail"]]
            yield Problem(f"signal {fact.about['detail']} of run {fact.run} is there {count} times", fact.run)


def lost_steps(facts: Iterable[Fact], tables: Tables) -> Iterator[Problem]:
    there = {(run_id, name) for run_id, name, status in tables["steps"] if status == "completed"}
    for run_id, step in sorted({(fact.run, fact.step) for fact in facts if fact.kind == "committed"} - there):
        yield Problem(f"step {step} of run {run_id} was committed and is not there", run_id)


def executed_after_commit(facts: Iterable[Fact]) -> Iterator[Problem]:
    committed: set[tuple[str, str]] = set()
    for fact in facts:
        if fact.kind == "committed":
            committed.add((fact.run, fact.step))
        elif fact.kind == "step" and (fact.run, fact.step) in committed:
            yield Problem(f"step {fact.step} of run {fact.run} was executed although it was committed", fact.run)


def re_executions(facts: Sequence[Fact], tables: Tables) -> tuple[int, list[Problem]]:
    """How many executions were cut off by the end of their worker, and those that nothing explains.

    A worker executes one run at a time and that step by step, so its end can cut off one execution.
    """
    parents = {run[0]: run[5] for run in tables["runs"]}
    cancels: dict[str, list[float]] = defaultdict(list)
    last_word: dict[str, float] = {}
    executions: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.kind == "asked" and fact.about["what"] == "cancel":
            cancels[fact.run].append(fact.at)
        elif fact.kind == "step":
            last_word[fact.about["worker"]] = fact.at
            executions[fact.run, fact.step].append(fact)

    def was_cancelled(run: str | None, after: float, before: float) -> bool:
        if run is None:
            return False
        asked = any(after - CANCEL_SECONDS < at < before for at in cancels[run])
        return asked or was_cancelled(parents.get(run), after, before)

    cut_off: Counter[str] = Counter()
    problems = []
    for (run, step), attempts in executions.items():
        for cut, following in pairwise(attempts):
            worker = cut.about["worker"]
            if cut.about["told"] == "fail" or was_cancelled(run, cut.at, following.at):
                continue
            if last_word[worker] > following.at + LATE_SECONDS or cut_off[worker]:
                text = f"step {step} of run {run} was executed again although worker {worker} had not ended in it"
                problems.append(Problem(text, run))
            cut_off[worker] += 1
    return sum(cut_off.values()), problems


def what_was_said(facts: Iterable[Fact]) -> Iterator[Problem]:
    """A page may be refused what came too late, what its worker died of, and what was under way when it closed the
    connection; nothing else."""
    closed = set()
    for fact in facts:
        text = fact.about.get("text", "")
        if fact.kind == "fault" and fact.about["what"] == "restart":
            closed.add(fact.about["tab"])
        may_be = fact.kind == "refused" and (
            fact.about["name"] in ("ConflictError", "ConnectionLostError")
            or (fact.about["name"] == "ConnectionClosedError" and fact.about["tab"] in closed)
        )
        if (fact.kind in ("problem", "refused") and not may_be) or LOCKED.search(text):
            yield Problem(str(fact), fact.run)


def grown(facts: Iterable[Fact]) -> Iterator[Problem]:
    heaps: dict[str, list[int]] = defaultdict(list)
    for fact in facts:
        if fact.kind == "step" and int(fact.about["heap"]):
            heaps[fact.about["worker"]].append(int(fact.about["heap"]))
    for worker, sizes in heaps.items():
        if sizes[-1] - sizes[0] > GROWTH_BYTES:
            yield Problem(f"the memory of worker {worker} grew from {sizes[0]} to {sizes[-1]} bytes")
