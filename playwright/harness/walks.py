"""The walks of the torture test, drawn by chance, and the ledger that hears of every step of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from .server import Ledger

MODULUS = 1_000_003
EVERY_KIND = ("async", "plain", "row", "sleep", "signal", "child", "stumble")
LONGEST_SECONDS = {"async": 0.4, "plain": 0.5, "row": 0.2, "sleep": 1.5, "signal": 0, "child": 0, "stumble": 0.1}
WEIGHTS = {"async": 5, "plain": 2, "row": 3, "sleep": 2, "signal": 1, "child": 1, "stumble": 2}
FAILS = (1, 1, 2, 3, 4)
"""How often a step that stumbles does; three times in a row are more than its policy allows."""

Op = dict[str, Any]
"""One step of a walk, as `pages/torture_jobs.py` has it."""


def draw_ops(chance: Random, *, is_child: bool = False) -> list[Op]:
    kinds = [kind for kind in WEIGHTS if not (is_child and kind == "child")]
    chosen = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds], k=chance.randint(2, 3 if is_child else 8))
    return [draw_op(chance, kind) for kind in chosen]


def draw_op(chance: Random, kind: str) -> Op:
    op: Op = {"kind": kind, "seconds": round(chance.random() * LONGEST_SECONDS[kind], 3)}
    if kind == "stumble":
        op["fails"] = chance.choice(FAILS)
    if kind == "child":
        op["ops"] = draw_ops(chance, is_child=True)
    return op


def one_of_each(chance: Random) -> list[Op]:
    return [draw_op(chance, kind) for kind in EVERY_KIND]


def walk_output(ops: list[Op], value: int = 1) -> int:
    """What the job gives if each of its steps has got the right input."""
    for number, op in enumerate(ops, 1):
        value = walk_output(op["ops"], value) if op["kind"] == "child" else (value * 31 + number) % MODULUS
    return value


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was said to have happened. `at` is in seconds since the ledger was made."""

    at: float
    kind: str
    """`step`: an execution begins; `committed`: a page heard that it is stored; `did`, `refused`: what became of
    something asked for; `asked`: the machine asks for it; `fault`: the machine ends workers; `connected`, `event`,
    `problem`: so says a page, or its console; `tolerated`: what is no problem in a torture; `note`: a word of the
    machine."""
    about: dict[str, str]

    @property
    def run(self) -> str:
        return self.about.get("run", "")

    @property
    def step(self) -> str:
        return self.about.get("step", "")

    def __str__(self) -> str:
        return f"{self.at:8.2f}  {self.kind:<9}  {'  '.join(f'{name}={value}' for name, value in self.about.items())}"


class WalkLedger(Ledger):
    """What happened, in the order in which it was heard of."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._facts: list[Fact] = []
        self._answers: dict[str, str] = {}
        self._executed: dict[tuple[str, str], int] = {}
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.monotonic() - self._began

    def hear(self, told: list[tuple[str, str]]) -> str:
        about = dict(told)
        kind = about.pop("kind")
        with self._changed:
            if kind == "step":
                return self._hear_step(about)
            self._write(kind, about)
        return ""

    def write(self, kind: str, **about: str) -> None:
        """A line of the machine's own."""
        with self._changed:
            self._write(kind, about)

    def since(self, number: int) -> list[Fact]:
        """All facts but the first so many."""
        with self._changed:
            return self._facts[number:]

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.since(0))

    def _hear_step(self, about: dict[str, str]) -> str:
        """Whether this execution is to `fail` or to `go` on. One that was not answered, offline, is told again."""
        execution, fails = about.pop("id"), int(about.pop("fails"))
        if execution not in self._answers:
            place = about["run"], about["step"]
            before = self._executed.get(place, 0)
            self._answers[execution] = "fail" if before < fails else "go"
            self._executed[place] = before + 1
            self._write("step", {**about, "attempt": str(before + 1), "told": self._answers[execution]})
        return self._answers[execution]

    def _write(self, kind: str, about: dict[str, str]) -> None:
        self._facts.append(Fact(self.seconds, kind, about))
        self._changed.notify_all()
