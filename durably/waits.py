"""Durable waits: for a moment, for a signal, for a child run.

A wait is a step whose row is stored when it begins: a restart finds the same moment, the same signal, the
same child, and does not begin anew. While a run only waits it is parked (see `session`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

from .clock import EpochMs, finishes_within
from .errors import RunCancelledError, RunFailedError
from .events import RunTriggered, StepCompleted, StepFailed, StepStarted
from .records import Run, RunStatus
from .rows import Checkpoint, NewRun, StoredRun, StoredStep
from .session import NEVER, Session, Waiting, ours
from .store import completed

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
        await session.write(completed(checkpoint, NULL, now))
        return NULL

    wake_at = EpochMs(session.services.clock.now() + round(seconds * 1000))
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

    wake_at = None if timeout is None else EpochMs(session.services.clock.now() + round(timeout * 1000))
    checkpoint = _begun(session, name, index, stored, wake_at=wake_at, signal=signal)
    output = await _wait(session, checkpoint, f"signal:{signal}", look)
    return session.decoded(name, output)


async def child_run(session: Session, name: str, new_run: NewRun, typed: TypedRun) -> Run[Any]:
    """Start a child under a step, once, and wait for its end. Raises `RunFailedError` or `RunCancelledError`."""
    index = session.enter(name)
    stored = session.stored(name)
    if stored is not None and stored.status == "completed":
        assert isinstance(stored.output, str), "a child's row is stored as text"
        output: str | bytes = stored.output
    else:
        checkpoint = _begun(session, name, index, stored)
        if checkpoint.child_id is None:
            checkpoint = await start_child(session, checkpoint, new_run, typed)

        async def look(checkpoint: Checkpoint) -> str | bytes | None:
            child = await ours(session.services.store.find_run(checkpoint.child_id or ""))
            if child is None or not child.status.is_terminal:
                return None
            row = json.dumps(asdict(child))
            await session.write(completed(checkpoint, row, session.services.clock.now()))
            return row

        output = await _wait(session, checkpoint, f"run:{checkpoint.child_id}", look)
    columns = json.loads(output)
    run = typed(StoredRun(**{**columns, "status": RunStatus(columns["status"])}))
    if run.status is RunStatus.FAILED:
        raise RunFailedError(run)
    if run.status is RunStatus.CANCELLED:
        raise RunCancelledError(run)
    return run


async def start_child(session: Session, checkpoint: Checkpoint, new_run: NewRun, typed: TypedRun) -> Checkpoint:
    """Store a child and the step that started it together; the checkpoint with the child's id."""
    services = session.services
    async with session.at_work(checkpoint.name):
        session.emit(StepStarted, step_name=checkpoint.name, step_index=checkpoint.step_index)
        now = services.clock.now()
        child, is_new = await ours(services.store.start_child(session.claim, checkpoint, new_run, now))
    if is_new:
        payload = typed(child).payload
        about = {"run_id": child.id, "job_name": child.job_name, "labels": new_run.labels}
        services.bus.emit(RunTriggered, **about, payload=payload)
    services.wake()
    return replace(checkpoint, child_id=child.id)


def _begun(session: Session, name: str, index: int, stored: StoredStep | None, **what: Any) -> Checkpoint:
    """The wait's checkpoint: the stored one, so that a restart does not begin anew, or a first one."""
    now = session.services.clock.now()
    if stored is not None and stored.status == "waiting":
        what = {"wake_at": stored.wake_at, "signal": stored.signal, "child_id": stored.child_id}
        return Checkpoint(name=name, step_index=index, status="waiting", started_at=stored.started_at, now=now, **what)
    return Checkpoint(name=name, step_index=index, status="waiting", started_at=now, now=now, **what)


async def _begin(session: Session, checkpoint: Checkpoint) -> None:
    """Store that the wait has begun, unless an earlier execution has."""
    stored = session.stored(checkpoint.name)
    if checkpoint.child_id is None and (stored is None or stored.status != "waiting"):
        async with session.at_work(checkpoint.name):
            await session.write(checkpoint)
        session.emit(StepStarted, step_name=checkpoint.name, step_index=checkpoint.step_index)


async def _wait(session: Session, checkpoint: Checkpoint, description: str, look: Look) -> str | bytes:
    clock = session.services.clock
    facts = {"step_name": checkpoint.name, "step_index": checkpoint.step_index}
    await _begin(session, checkpoint)
    waiting = Waiting(checkpoint.name, description, NEVER if checkpoint.wake_at is None else checkpoint.wake_at)
    try:
        async with session.waiting(waiting):
            while True:
                await session.gate()
                waiting.poke.clear()
                async with session.busy():
                    output = await look(checkpoint)
                    if output is not None:
                        break
                    now = clock.now()
                    if now >= waiting.wake_at:
                        await _time_out(session, replace(checkpoint, now=now))
                until_due = (waiting.wake_at - now) / 1000
                # A moment comes by itself; a signal or a child may come from another process, which cannot poke.
                is_moment = checkpoint.signal is None and checkpoint.child_id is None
                await finishes_within(
                    clock, waiting.poke.wait(), until_due if is_moment else min(until_due, LONGEST_LOOK_SECONDS)
                )
    except asyncio.CancelledError:
        if not session.is_released:
            session.tell_cancelled(checkpoint.name, checkpoint.step_index)
        raise
    duration = (clock.now() - checkpoint.started_at) / 1000
    value = None if checkpoint.child_id else session.decoded(checkpoint.name, output)
    session.emit(StepCompleted, **facts, output=value, duration=duration)
    return output


async def _time_out(session: Session, checkpoint: Checkpoint) -> None:
    waited = (checkpoint.now - checkpoint.started_at) / 1000
    text = f"step '{checkpoint.name}' waited {waited:g} s for signal '{checkpoint.signal}', which did not come"
    await session.write(replace(checkpoint, status="failed", error=text))
    session.emit(StepFailed, step_name=checkpoint.name, step_index=checkpoint.step_index, error=text)
    error = WaitTimeoutError(text)
    session.failures.append((error, checkpoint.name))
    raise error
