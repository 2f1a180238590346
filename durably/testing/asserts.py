"""Assertions about runs. Each raises `AssertionError` with what is stored, so that the reason is in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..engine import Durably
from ..events import StepStarted
from ..records import Run, RunStatus

_ANY = object()


async def assert_completed(durably: Durably, run_id: str, *, output: Any = _ANY) -> Run[Any]:
    """The run has completed, with this `output` if one is given. Returns it."""
    run = await _in_status(durably, run_id, RunStatus.COMPLETED)
    if output is not _ANY and run.output != output:
        raise AssertionError(f"run {run_id} completed with {run.output!r}, not with {output!r}")
    return run


async def assert_failed(durably: Durably, run_id: str, *, error: str = "") -> Run[Any]:
    """The run has failed, and its error contains the text `error`. Returns it."""
    run = await _in_status(durably, run_id, RunStatus.FAILED)
    if error not in (run.error or ""):
        raise AssertionError(f"run {run_id} failed with {run.error!r}, in which {error!r} is not found")
    return run


async def assert_cancelled(durably: Durably, run_id: str) -> Run[Any]:
    """The run was cancelled. Returns it."""
    return await _in_status(durably, run_id, RunStatus.CANCELLED)


async def assert_waiting(durably: Durably, run_id: str, waiting_for: str) -> Run[Any]:
    """The run waits, without a slot, for `"sleep:NAME"`, `"signal:NAME"` or `"run:ID"`. Returns it."""
    run = await _in_status(durably, run_id, RunStatus.PENDING)
    if run.waiting_for != waiting_for:
        raise AssertionError(f"run {run_id} waits for {run.waiting_for!r}, not for {waiting_for!r}")
    return run


async def assert_steps(durably: Durably, run_id: str, expected: Mapping[str, str]) -> None:
    """The run has exactly these steps, each in this status: `waiting`, `completed` or `failed`.

    The order in which they began is compared too, as the order of the mapping. (The steps that `step.now()`,
    `step.random()` and `step.uuid()` make are named `durably:now:1` and so on.)
    """
    stored = {step.name: str(step.status) for step in await durably.get_steps(run_id)}
    if list(stored.items()) != list(expected.items()):
        raise AssertionError(f"run {run_id} has the steps {stored}, not {dict(expected)}")


class Executions:
    """Counts how often each step was begun. A step that is answered from its checkpoint is not begun.

    Listens from when it is made; `watch` lets it listen to further instances, such as one that goes on
    after a restart:

        executions = Executions(durably)
        ...
        executions.watch(durably_after_the_restart)
        ...
        assert_executed_once(executions, run.id)

    A retried step counts once an attempt, a wait once however often it is interrupted.
    """

    def __init__(self, *instances: Durably) -> None:
        self._counts: dict[str, Counter[str]] = {}
        for durably in instances:
            self.watch(durably)

    def watch(self, durably: Durably) -> None:
        """Count what this instance executes, too."""
        durably.on(StepStarted.type, self._note)

    def of(self, run_id: str) -> dict[str, int]:
        """How often each step of a run was begun, in the order of their first beginnings."""
        return dict(self._counts.get(run_id, {}))

    def _note(self, event: StepStarted) -> None:
        assert event.run_id is not None, "a step belongs to a run"
        self._counts.setdefault(event.run_id, Counter())[event.step_name] += 1


def assert_executed_once(executions: Executions, run_id: str, *names: str) -> None:
    """Each of the steps `names` was begun exactly once; without names, each step that was begun at all."""
    counts = executions.of(run_id)
    if not counts:
        raise AssertionError(f"no step of run {run_id} was begun")
    wrong = {name: counts.get(name, 0) for name in names or counts if counts.get(name, 0) != 1}
    if wrong:
        told = ", ".join(f"'{name}' {count} times" for name, count in wrong.items())
        raise AssertionError(f"run {run_id} executed {told}, not once")


async def _in_status(durably: Durably, run_id: str, status: RunStatus) -> Run[Any]:
    run = await durably.get_run(run_id)
    if run is None:
        raise AssertionError(f"there is no run {run_id}")
    if run.status is not status:
        about = f": {run.error}" if run.error else f", it waits for {run.waiting_for}" if run.waiting_for else ""
        raise AssertionError(f"run {run_id} of job '{run.job_name}' is {run.status}, not {status}{about}")
    return run
