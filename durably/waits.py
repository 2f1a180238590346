"""Durable waits: for a moment, for a signal, for a child run.

A wait is a step whose row is stored when it begins: a restart finds the same moment, the same signal, the
same child, and does not begin anew. While a run only waits it is parked (see `session`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any, NoReturn

from .clock import finishes_within, instant_after, unbroken
from .errors import NotFoundError, RunCancelledError, RunFailedError, describe
from .events import RunCoalesced, RunTriggered, StepCompleted, StepFailed, StepStarted
from .records import Run, RunStatus
from .rows import Checkpoint, NewRun, StoredRun, StoredStep
from .services import ours
from .session import Session
from .waiting import NEVER, Waiting

NULL = "null"
LONGEST_LOOK_SECONDS = 1.0
"""How often a wait for something that another process may send looks by itself, while the run is at work."""

Look = Callable[[Checkpoint], Awaitable[str | bytes | None]]
"""Asks the store whether what is waited for has come, completes the step if so, and returns its output."""


TypedRun = Callable[[StoredRun], Run[Any]]


class WaitTimeoutError(TimeoutError):
    """What a wait raises when its time is over; the text names the step."""


async def sleep(session: Session, name: str, seconds: float) -> None:
    """Until `seconds` after the first call, restarts included."""
    index = session.enter(name)
    if (stored := session.stored(name)) is not None and stored.status == "completed":
        return

    async def look(checkpoint: Checkpoint) -> str | bytes | None:
        now = session.services.clock.now()
        if checkpoint.wake_at is None or now < checkpoint.wake_at:
            return None
        await session.write(checkpoint.completed(NULL, now=now))
        return NULL

    wake_at = instant_after(session.services.clock.now(), seconds)
    checkpoint = _begun(session, name, index, stored, wake_at=wake_at)
    await _wait(session, checkpoint, f"sleep:{name}", look)


async def wait_for_signal(session: Session, name: str, signal: str, timeout: float | None) -> Any:
    """The payload of the next signal of that name that no other step has taken."""
    index = session.enter(name)
    stored = session.stored(name)
    if stored is not None and stored.status == "completed":
        return session.decoded(name, stored.output)
    if stored is not None and stored.status == "failed" and stored.attempt:
        raise WaitTimeoutError(stored.error)

    async def look(checkpoint: Checkpoint) -> str | bytes | None:
        services = session.services
        return await ours(services.ledger.take_signal(session.claim, checkpoint, services.clock.now()))

    wake_at = None if timeout is None else instant_after(session.services.clock.now(), timeout)
    checkpoint = _begun(session, name, index, stored, wake_at=wake_at, signal=signal)
    output = await _wait(session, checkpoint, f"signal:{signal}", look)
    return session.decoded(name, output)


async def child_run(session: Session, name: str, new_run: NewRun, typed: TypedRun) -> Run[Any]:
    """Start a child under a step, once, and wait for its end. Raises `RunFailedError` or `RunCancelledError`.

    A child that did not complete makes the step a failed one: a replay raises again, and a retry of this run starts
    a new child, unless the old one is still at work or has completed since.
    """
    index = session.enter(name)
    stored = session.stored(name)
    if stored is not None and (stored.status == "completed" or (stored.status == "failed" and stored.attempt)):
        return _ended_child(stored.output, stored.error, typed)
    checkpoint = _begun(session, name, index, stored)
    if checkpoint.child_id is None and stored is not None and stored.child_id is not None:
        before = await ours(session.services.store.find_run(stored.child_id))
        if before is not None and before.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
            checkpoint = replace(checkpoint, child_id=before.id, output=json.dumps(disposition_of(stored.output)))
            await _begin(session, checkpoint)
    if checkpoint.child_id is None:
        checkpoint = await start_child(session, checkpoint, new_run, typed)

    async def look(checkpoint: Checkpoint) -> str | bytes | None:
        now = session.services.clock.now()
        child = await ours(session.services.store.find_run(checkpoint.child_id or ""))
        if child is None:
            gone = NotFoundError(f"the child run {checkpoint.child_id} has been deleted")
            await _fail(session, replace(checkpoint, output=None, now=now), gone)
        elif child.status.is_terminal:
            row = json.dumps(asdict(child) | {"disposition": disposition_of(checkpoint.output)})
            if child.status is RunStatus.COMPLETED:
                await session.write(checkpoint.completed(row, now=now))
                return row
            error = _child_error(_child(row, typed))
            await _fail(session, replace(checkpoint, output=row, now=now), error)
        return None

    return _ended_child(await _wait(session, checkpoint, f"run:{checkpoint.child_id}", look), None, typed)


def _ended_child(row: str | bytes | None, error: str | None, typed: TypedRun) -> Run[Any]:
    """The child as it was when it ended, from what its parent's step has stored of it. Raises as `child_run`."""
    if row is None:
        raise NotFoundError(error or "the child run has been deleted")
    run = _child(row, typed)
    if run.status is not RunStatus.COMPLETED:
        raise _child_error(run)
    return run


def _child(row: str | bytes, typed: TypedRun) -> Run[Any]:
    columns = json.loads(row)
    disposition = columns.pop("disposition", None)
    run = typed(StoredRun(**{**columns, "status": RunStatus(columns["status"])}))
    return replace(run, disposition=disposition)


def disposition_of(output: str | bytes | None) -> str | None:
    """What starting a child did, from the output of its step; `None` where an older durably has stored that."""
    kept = json.loads(output or NULL)
    found: str | None = kept.get("disposition") if isinstance(kept, dict) else kept
    return found


def _child_error(run: Run[Any]) -> RunFailedError | RunCancelledError:
    return RunFailedError(run) if run.status is RunStatus.FAILED else RunCancelledError(run)


async def start_child(session: Session, checkpoint: Checkpoint, new_run: NewRun, typed: TypedRun) -> Checkpoint:
    """Store a child and the step that started it together; the checkpoint with the child's id and disposition."""
    async with session.at_work(checkpoint.name):
        session.tell_begun(checkpoint)
        # The commit and its event belong together, whoever cancels in between.
        return await unbroken(_store_child(session, checkpoint, new_run, typed))


async def _store_child(session: Session, checkpoint: Checkpoint, new_run: NewRun, typed: TypedRun) -> Checkpoint:
    services = session.services
    child, what = await ours(services.store.start_child(session.claim, checkpoint, new_run, services.clock.now()))
    run = typed(child)
    about: dict[str, Any] = {"run_id": run.id, "job_name": run.job_name, "labels": run.labels}
    if what == "created":
        services.bus.emit(RunTriggered, **about, payload=run.payload)
    elif what == "coalesced":
        skipped = typed(replace(child, payload=new_run.payload)).payload
        services.bus.emit(RunCoalesced, **about, skipped_payload=skipped, skipped_labels=new_run.labels)
    services.wake()
    return replace(checkpoint, child_id=child.id, output=json.dumps(what))


def _begun(session: Session, name: str, index: int, stored: StoredStep | None, **what: Any) -> Checkpoint:
    """The wait's checkpoint: the stored one, so that a restart does not begin anew, or a first one."""
    now = session.services.clock.now()
    if stored is not None and stored.status == "waiting":
        what = {"wake_at": stored.wake_at, "signal": stored.signal, "child_id": stored.child_id}
        what["output"] = stored.output  # of a child its disposition
        return Checkpoint(name=name, step_index=index, status="waiting", started_at=stored.started_at, now=now, **what)
    return Checkpoint(name=name, step_index=index, status="waiting", started_at=now, now=now, **what)


async def _begin(session: Session, checkpoint: Checkpoint) -> None:
    """Store and tell that the wait has begun."""

    async def begin() -> None:
        await session.write(checkpoint)
        session.emit(StepStarted, step_name=checkpoint.name, step_index=checkpoint.step_index)

    async with session.at_work(checkpoint.name):
        await unbroken(begin())


async def _wait(session: Session, checkpoint: Checkpoint, description: str, look: Look) -> str | bytes:
    clock = session.services.clock
    stored = session.stored(checkpoint.name)
    if checkpoint.child_id is None and (stored is None or stored.status != "waiting"):
        await _begin(session, checkpoint)
    waiting = Waiting(checkpoint.name, description, NEVER if checkpoint.wake_at is None else checkpoint.wake_at)
    try:
        async with session.waiting(waiting):
            while True:
                await session.gate()
                waiting.poke.clear()
                async with session.busy():
                    # What has come, its commit and its event belong together, whoever cancels in between.
                    output = await unbroken(_look(session, checkpoint, look))
                if output is not None:
                    return output
                until_due = (waiting.wake_at - clock.now()) / 1000
                # A moment comes by itself; a signal or a child may come from another process, which cannot poke.
                is_moment = checkpoint.signal is None and checkpoint.child_id is None
                await finishes_within(
                    clock, waiting.poke.wait(), until_due if is_moment else min(until_due, LONGEST_LOOK_SECONDS)
                )
    except asyncio.CancelledError:
        if not session.is_released:
            session.tell_cancelled(checkpoint.name, checkpoint.step_index)
        raise


async def _look(session: Session, checkpoint: Checkpoint, look: Look) -> str | bytes | None:
    """Whether what is waited for has come, or its time is over; then that is stored and told."""
    output = await look(checkpoint)
    now = session.services.clock.now()
    if output is not None:
        session.note_ended(checkpoint.name)
        value = None if checkpoint.child_id else session.decoded(checkpoint.name, output)
        facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index}
        session.emit(StepCompleted, **facts, output=value, duration=(now - checkpoint.started_at) / 1000)
    elif checkpoint.signal is not None and checkpoint.wake_at is not None and now >= checkpoint.wake_at:
        waited = (now - checkpoint.started_at) / 1000
        text = f"step '{checkpoint.name}' waited {waited:g} s for signal '{checkpoint.signal}', which did not come"
        await _fail(session, replace(checkpoint, now=now), WaitTimeoutError(text))
    return output


async def _fail(session: Session, checkpoint: Checkpoint, error: Exception) -> NoReturn:
    """Store and tell that the wait has failed; raises `error`."""
    text = describe(error)
    await session.write(replace(checkpoint, status="failed", error=text))
    session.note_ended(checkpoint.name)
    session.emit(StepFailed, step_name=checkpoint.name, step_index=checkpoint.step_index, error=text)
    session.failures.append((error, checkpoint.name))
    raise error
