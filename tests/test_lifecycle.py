"""The life of runs against a small model of it: whatever is done in whatever order, the two agree.

The model knows nothing of generations, claims, parking or replay: only which step comes next, what has
been executed, and what a user may do in which status.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from durably import ConflictError, Durably, NotFoundError, Statement, StepContext, create_durably, define_job
from durably.databases import open_database
from durably.testing import ManualClock

pytestmark = pytest.mark.slow

T = TypeVar("T")

NEVER = 10**15
ALLOWED = {
    "pending": {"running", "cancelled"},
    "running": {"completed", "failed", "cancelled", "pending"},
    "completed": set(),
    "failed": {"pending"},
    "cancelled": {"pending"},
}
STATUS_OF_EVENT = {
    "run:start": "running",
    "run:complete": "completed",
    "run:fail": "failed",
    "run:cancel": "cancelled",
    "run:retry": "pending",
}

plans = st.lists(st.sampled_from(["fragile", "nap", "listen", "work", "write", "both"]), max_size=4)


@dataclass
class Modelled:
    """What the model says of one run. `due` is the instant from which it may be claimed."""

    id: str
    plan: list[str]
    priority: int
    due: int
    status: str = "pending"
    done: dict[str, Any] = field(default_factory=dict)
    """The results of the completed steps."""
    failed: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    waits: dict[str, int] = field(default_factory=dict)
    """The steps that wait, and the moments at which they look again."""
    waiting_for: str | None = None
    signals: list[int] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)

    @property
    def is_active(self) -> bool:
        return self.status in ("pending", "running")

    def names(self) -> list[tuple[str, str]]:
        return [(f"{kind}-{index}", kind) for index, kind in enumerate(self.plan)]


class Lifecycle(RuleBasedStateMachine):
    """`self.durably` is the system, `self.runs` the model, `self.broken` the runs whose fragile steps fail."""

    folder: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.runs: dict[str, Modelled] = {}
        self.gone: list[str] = []
        self.broken: set[str] = set()
        self.executed: dict[str, Counter[str]] = {}
        self.seen_status: dict[str, str] = {}
        self.violations: list[str] = []
        self.signals_sent = 0
        name = ":memory:" if self.folder is None else tempfile.mkdtemp(dir=self.folder) + "/db.sqlite3"
        self.database = open_database(name, durability="relaxed")
        self.job = define_job(name="planned", input=list[str], run=self._execute)
        self.durably = self._new_instance()
        self.do(self.durably.migrate())
        self.do(
            self.database.execute(  # a table of the user's
                *self._statements("CREATE TABLE written (run_id TEXT, step TEXT)")
            )
        )

    def teardown(self) -> None:
        self.do(self.durably.stop())
        self.runner.close()

    def do(self, work: Awaitable[T]) -> T:
        async def within() -> T:
            return await asyncio.wait_for(work, 10)

        return self.runner.run(within())

    # -- the system ------------------------------------------------------------------------------------

    async def _execute(self, step: StepContext, plan: list[str]) -> list[Any]:
        counts = self.executed.setdefault(step.run_id, Counter())

        def note(name: str, kind: str) -> str:
            counts[name] += 1
            if kind == "fragile" and step.run_id in self.broken:
                raise OSError(f"{name} is broken")
            return name

        async def write(tx: Any, name: str) -> str:
            await tx.execute("INSERT INTO written VALUES (?, ?)", (step.run_id, name))
            return note(name, "write")

        results: list[Any] = []
        for index, kind in enumerate(plan):
            name = f"{kind}-{index}"
            if kind in ("work", "fragile"):
                results.append(await step.run(name, note, name, kind))
            elif kind == "write":
                results.append(await step.transaction(name, write, name))
            elif kind == "nap":
                results.append(await step.sleep(name, 60))
            elif kind == "listen":
                results.append(await step.wait_for_signal(name, signal="bell"))
            else:
                results += await asyncio.gather(
                    *(step.run(f"{name}{side}", note, f"{name}{side}", kind) for side in "ab")
                )
        return results

    def _new_instance(self) -> Durably:
        durably = create_durably(self.database, jobs=[self.job], clock=self.clock)
        durably.on("*", self._watch)
        return durably

    def _watch(self, event: Any) -> None:
        status = STATUS_OF_EVENT.get(event.type)
        if status is not None:
            before = self.seen_status.get(event.run_id, "pending")
            # Noted, not raised: a listener's error is kept away from the run, and from the test.
            if status not in ALLOWED[before]:
                self.violations.append(f"a {before} run became {status}")
            self.seen_status[event.run_id] = status

    @staticmethod
    def _statements(*texts: str) -> list[Any]:
        return [Statement(text) for text in texts]

    # -- the model -------------------------------------------------------------------------------------

    def _claimable(self) -> list[Modelled]:
        due = [run for run in self.runs.values() if run.status == "pending" and run.due <= self.clock.now()]
        return sorted(due, key=lambda run: (-run.priority, run.due, run.id))

    def _advance(self, run: Modelled) -> None:
        """What one claim of the run leads to."""
        run.waiting_for = None
        for name, kind in run.names():
            if name in run.done:
                continue
            run.cancelled.discard(name)
            if kind == "nap":
                wake_at = run.waits.setdefault(name, self.clock.now() + 60_000)
                if wake_at > self.clock.now():
                    run.due, run.waiting_for, run.status = wake_at, f"sleep:{name}", "pending"
                    return
                run.done[name] = None
            elif kind == "listen":
                run.waits.setdefault(name, NEVER)
                if not run.signals:
                    run.due, run.waiting_for, run.status = NEVER, "signal:bell", "pending"
                    return
                run.done[name] = run.signals.pop(0)
            elif kind == "both":
                for side in "ab":
                    run.executed[name + side] += 1
                    run.done[name + side] = name + side
                run.done[name] = None
            else:
                run.executed[name] += 1
                if kind == "fragile" and run.id in self.broken:
                    run.failed.add(name)
                    run.status = "failed"
                    return
                run.done[name] = name
            run.waits.pop(name, None)
            run.failed.discard(name)
        run.status = "completed"

    def _pick(self, data: Any, *, also_gone: bool = True) -> str:
        ids = [*self.runs, *(self.gone[-1:] if also_gone else [])]
        return data.draw(st.sampled_from(ids))

    def _expect(self, run_id: str, is_allowed: Any, work: Awaitable[T]) -> T | None:
        """Do `work` on a run: done if the model allows it, else refused for the right reason."""
        run = self.runs.get(run_id)
        if run is not None and is_allowed(run):
            return self.do(work)
        with pytest.raises(NotFoundError if run is None else ConflictError) as caught:
            self.do(work)
        if run is not None:
            assert run.status in str(caught.value)
        return None

    # -- what may happen -------------------------------------------------------------------------------

    @initialize(first=plans, second=plans)
    def begin_with_several(self, first: list[str], second: list[str]) -> None:
        """Runs of every kind are there from the first, so that few examples are about nothing."""
        self.trigger(["work", "fragile", *first], 0, True)
        self.trigger(["write", "listen", *second], 1, False)
        self.trigger(["nap", "both"], 0, False)

    @rule(plan=plans, priority=st.integers(0, 1), is_broken=st.booleans())
    def trigger(self, plan: list[str], priority: int, is_broken: bool) -> None:
        run = self.do(self.durably.jobs.planned.trigger(plan, priority=priority))
        self.runs[run.id] = Modelled(run.id, plan, priority, self.clock.now())
        if is_broken:
            self.broken.add(run.id)

    @rule()
    def process_one(self) -> None:
        queue = self._claimable()
        assert self.do(self.durably.process_one()) is bool(queue)
        if queue:
            self._advance(queue[0])

    @rule()
    def process_until_idle(self) -> None:
        self.do(self.durably.process_until_idle())
        while queue := self._claimable():
            self._advance(queue[0])

    @rule(seconds=st.sampled_from([0.001, 30, 60, 100_000]))
    def time_goes_by(self, seconds: float) -> None:
        self.do(self.clock.advance(seconds))

    @precondition(lambda self: self.runs or self.gone)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        run_id = self._pick(data)
        if self._expect(run_id, lambda run: run.is_active, self.durably.cancel(run_id)):
            run = self.runs[run_id]
            run.status, run.waiting_for = "cancelled", None
            run.cancelled |= run.waits.keys()
            run.waits.clear()

    @precondition(lambda self: self.runs or self.gone)
    @rule(data=st.data(), is_mended=st.booleans())
    def retry(self, data: Any, is_mended: bool) -> None:
        run_id = self._pick(data)
        if self._expect(run_id, lambda run: run.status in ("failed", "cancelled"), self.durably.retry(run_id)):
            self.runs[run_id].status, self.runs[run_id].due = "pending", self.clock.now()
            if is_mended:
                self.broken.discard(run_id)

    @precondition(lambda self: self.runs or self.gone)
    @rule(data=st.data())
    def retrigger(self, data: Any) -> None:
        run_id = self._pick(data)
        if fresh := self._expect(run_id, lambda run: not run.is_active, self.durably.retrigger(run_id)):
            self.runs[fresh.id] = Modelled(fresh.id, self.runs[run_id].plan, fresh.priority, self.clock.now())

    @precondition(lambda self: self.runs or self.gone)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        run_id = self._pick(data)

        async def deleted() -> bool:
            await self.durably.delete_run(run_id)
            return True

        if self._expect(run_id, lambda run: not run.is_active, deleted()):
            del self.runs[run_id]
            self.gone.append(run_id)

    @precondition(lambda self: self.runs or self.gone)
    @rule(data=st.data())
    def signal(self, data: Any) -> None:
        run_id = self._pick(data)
        self.signals_sent += 1
        number = self.signals_sent

        async def sent() -> bool:
            await self.durably.signal(run_id, "bell", number)
            return True

        if self._expect(run_id, lambda run: run.is_active, sent()):
            run = self.runs[run_id]
            run.signals.append(number)
            if run.waiting_for == "signal:bell":
                run.due = min(run.due, self.clock.now())

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def fork(self, data: Any) -> None:
        run_id = self._pick(data, also_gone=False)
        run = self.runs[run_id]
        names = [
            name
            for name, kind in run.names()
            if kind != "both" and name in {*run.done, *run.failed, *run.waits, *run.cancelled}
        ]
        if names:
            from_step = data.draw(st.sampled_from(names))
            if fresh := self._expect(run_id, lambda run: not run.is_active, self.durably.fork(run_id, from_step)):
                copy = Modelled(fresh.id, run.plan, fresh.priority, self.clock.now())
                for name, _ in run.names()[: [name for name, _ in run.names()].index(from_step)]:
                    parts = [part for part in (name, f"{name}a", f"{name}b") if part in run.done]
                    copy.done |= {part: run.done[part] for part in parts}
                self.runs[fresh.id] = copy

    @rule()
    def restart(self) -> None:
        self.do(self.durably.stop())
        # What was parked begins anew.
        self.seen_status = {name: "pending" if now == "running" else now for name, now in self.seen_status.items()}
        self.durably = self._new_instance()
        self.do(self.durably.migrate())

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        stored = {run.id: run for run in self.do(self.durably.get_runs())}
        assert list(stored) == sorted(self.runs, reverse=True)
        for run in self.runs.values():
            found = stored[run.id]
            assert (found.status, found.waiting_for) == (run.status, run.waiting_for)
            assert (found.completed_at is not None) is (not run.is_active)
            assert bool(found.error) is (run.status == "failed")
            real = {name for name, kind in run.names() if kind != "both"} | {
                f"{name}{side}" for name, kind in run.names() if kind == "both" for side in "ab"
            }
            assert found.completed_step_count == len(real & run.done.keys())
            if run.status == "completed":
                assert found.output == [
                    run.done[part]
                    for name, kind in run.names()
                    for part in ([name + "a", name + "b"] if kind == "both" else [name])
                ]

    @invariant()
    def every_transition_was_an_allowed_one(self) -> None:
        assert self.violations == []

    @invariant()
    def the_steps_are_those_of_the_model(self) -> None:
        for run in self.runs.values():
            steps = {step.name: (step.status, step.output) for step in self.do(self.durably.get_steps(run.id))}
            both = {name for name, kind in run.names() if kind == "both"}
            expected: dict[str, Any] = {name: ("completed", out) for name, out in run.done.items() if name not in both}
            expected |= dict.fromkeys(run.failed, ("failed", None))
            expected |= dict.fromkeys(run.waits, ("waiting", None))
            expected |= dict.fromkeys(run.cancelled, ("cancelled", None))
            assert steps == expected

    @invariant()
    def nothing_was_executed_more_often_than_it_should(self) -> None:
        for run in self.runs.values():
            assert self.executed.get(run.id, Counter()) == run.executed

    @invariant()
    def a_transaction_left_its_row_once(self) -> None:
        [found] = self.do(self.database.execute(*self._statements("SELECT run_id, step FROM written")))
        rows = Counter((row[0], row[1]) for row in found.rows if row[0] in self.runs)
        executed = {(run.id, name) for run in self.runs.values() for name in run.executed if name.startswith("write")}
        assert rows == Counter(executed)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_life_of_runs_is_what_the_model_says(where: str, tmp_path: Path) -> None:
    machine = type("Lifecycle", (Lifecycle,), {"folder": None if where == "memory" else tmp_path})
    share = 0.4 if where == "memory" else 0.15
    examples = max(1, int(settings.default.max_examples * share))  # type: ignore[union-attr]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
    )
