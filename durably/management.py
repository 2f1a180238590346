"""What a program does with runs once they are triggered: look, cancel, retry, delete, signal.

`Runs` is the half of `Durably` that needs no worker but its ear; `engine` adds jobs and life.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from . import codec
from .clock import EpochMs, from_datetime, unbroken
from .errors import ConflictError, NotFoundError, ValidationError
from .events import Event, RunCoalesced, RunDeleted, RunRetried, RunTriggered
from .events import RunCancelled as RunCancelledEvent
from .following import Following
from .handles import JobTrigger, TriggerRules, new_runs
from .plugins import LogPersistence, Plugin
from .records import Log, Run, RunStatus, Step
from .rows import NewRun, StoredRun, row_count
from .scheduling import Schedules
from .subscription import Callback, Hearing, present_state
from .views import log_view, step_view

_ENDED_AT_ONCE = 100
"""Runs that are read at a time where there may be any number of them."""


class Runs(Following, Schedules):
    """The runs of one instance."""

    _rules: TriggerRules
    _plugins: dict[str, Plugin]

    # -- looking ---------------------------------------------------------------------------------------

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """The run, as it is now; `None` if there is none with this id."""
        stored = await self._services.outside.store.find_run(run_id)
        return None if stored is None else self._registry.typed(stored)

    async def get_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        job_name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Run[Any]]:
        """Runs, newest first. `status` and `job_name` are one or several; `labels` must all match.

        At most `limit` (default: all) after the first `offset`. Raises `ValidationError` for a status that does not
        exist, or a `limit` or `offset` that is no whole number or negative.
        """
        try:
            statuses = None if status is None else [RunStatus(one).value for one in _several(status)]
        except ValueError:
            known = ", ".join(RunStatus)
            raise ValidationError(f"no such status in {status!r}; there are {known}") from None
        found = await self._services.outside.store.list_runs(
            statuses=statuses,
            job_names=None if job_name is None else _several(job_name),
            labels=dict(labels or {}),
            limit=None if limit is None else row_count("limit", limit),
            offset=row_count("offset", offset),
        )
        return [self._registry.typed(stored) for stored in found]

    async def get_steps(self, run_id: str) -> list[Step]:
        """The steps of a run that wait or have ended, in the order of their beginnings. Raises `NotFoundError`."""
        await self._require(run_id)
        return [step_view(stored) for stored in await self._services.outside.store.steps_of(run_id)]

    async def get_logs(self, run_id: str) -> list[Log]:
        """The lines that a run logged while `with_log_persistence` was in use, in order. Raises `NotFoundError`."""
        await self._require(run_id)
        for plugin in self._plugins.values():
            if isinstance(plugin, LogPersistence):
                await plugin.settled()
        return [log_view(line) for line in await self._services.outside.ledger.logs_of(run_id)]

    # -- events ----------------------------------------------------------------------------------------

    async def present_events(
        self,
        since: datetime,
        *,
        job_name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> AsyncGenerator[Event, None]:
        """What has become of runs since a moment (aware), told as events: for who has not heard them happen.

        That is the end of each run that has ended since, in their order, then the present state of the `limit` newest
        that are active, oldest first; of those alone that `get_runs` would find by `job_name` and `labels`. Raises
        `ValueError` for a moment without a time zone.
        """
        moment, after = from_datetime(since), ""
        job_names = None if job_name is None else _several(job_name)
        wanted = dict(labels or {})
        while ended := await self._services.outside.ledger.ended_since(
            moment, after, job_names=job_names, labels=wanted, limit=_ENDED_AT_ONCE
        ):
            for stored in ended:
                run, sequence = self._registry.typed(stored), self._services.bus.sequence
                for event in present_state(run, sequence, stored.failed_step_name):
                    yield event
            assert ended[-1].completed_at is not None, "a run that has ended has its time"
            moment, after = ended[-1].completed_at, ended[-1].id
        active = await self.get_runs(
            status=[RunStatus.PENDING, RunStatus.RUNNING], job_name=job_name, labels=labels, limit=limit
        )
        for run in reversed(active):
            for event in present_state(run, self._services.bus.sequence):
                yield event

    # -- changing --------------------------------------------------------------------------------------

    async def cancel(self, run_id: str) -> Run[Any]:
        """Cancel a pending or running run: its step is cancelled at its next `await`.

        Its children that are still active are cancelled with it, those that were started detached aside.
        Raises `NotFoundError`, or `ConflictError` if it has ended.
        """
        cancelled = await self._services.outside.ledger.cancel(run_id, self._services.clock.now())
        if not cancelled:
            raise await self._refused(run_id, "cancelled")
        for stored in cancelled:
            await self._worker.end_cancelled(stored.id)  # which tells the ends of its steps, before the run's is told
            self._emit(RunCancelledEvent, stored)
        self._worker.wake()
        return self._registry.typed(next(stored for stored in cancelled if stored.id == run_id))

    async def retry(self, run_id: str) -> Run[Any]:
        """Make a failed or cancelled run pending again; completed steps are kept and not run again.

        Attempts and crashes are counted anew. Raises `NotFoundError`, or `ConflictError` if it is neither.
        """
        stored = await self._services.outside.ledger.retry(run_id, self._services.clock.now())
        if stored is None:
            raise await self._refused(run_id, "retried")
        self._emit(RunRetried, stored)
        self._worker.wake()
        return self._registry.typed(stored)

    async def retrigger(self, run_id: str) -> Run[Any]:
        """A fresh run of the same job with the same payload and labels, for a terminal run.

        Raises `NotFoundError`, or `ConflictError` if the run has not ended.
        """
        stored = await self._require_ended(run_id, "retriggered")
        [(fresh, _)], _ = await self._services.outside.store.enqueue(
            [self._copy_of(stored)], self._services.clock.now()
        )
        return self._announced(fresh)

    async def fork(self, run_id: str, from_step: str) -> Run[Any]:
        """A fresh run that begins with copies of the steps which completed before `from_step`.

        Raises `NotFoundError` for a run or step that does not exist, `ConflictError` if the run has not ended.
        """
        stored = await self._require_ended(run_id, "forked")
        names = [step.name for step in await self._services.outside.store.steps_of(run_id)]
        if from_step not in names:
            raise NotFoundError(f"run {run_id} has no step '{from_step}'; it has {', '.join(names) or 'none'}")
        return self._announced(
            await self._services.outside.ledger.fork(
                run_id, from_step, self._copy_of(stored), self._services.clock.now()
            )
        )

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps, logs and signals.

        Raises `NotFoundError`, or `ConflictError` if it has not ended.
        """
        deleted = await self._services.outside.ledger.delete_run(run_id)
        if deleted is None:
            raise await self._refused(run_id, "deleted")
        self._emit(RunDeleted, deleted)

    async def purge_runs(self, older_than: datetime, limit: int = 500) -> int:
        """Delete terminal runs that ended before `older_than` (aware), oldest first; how many were deleted.

        At most `limit` of them. Raises `ValidationError` for a naive datetime or a limit that is not a whole number, at
        least 1.
        """
        try:
            moment = from_datetime(older_than)
        except (ValueError, AttributeError) as error:
            raise ValidationError(f"older_than: {error}") from error
        deleted = await self._services.outside.ledger.purge_runs(moment, row_count("limit", limit, least=1))
        for stored in deleted:
            self._emit(RunDeleted, stored)
        return len(deleted)

    async def signal(self, run_id: str, name: str, payload: Any = None) -> None:
        """Send a signal to an active run; it is kept until a step waits for it.

        `payload` is what a step may return. Raises `NotFoundError`, `ConflictError` if the run has ended,
        `ValidationError` for a payload that cannot be kept.
        """
        if not name or not codec.is_text(name):
            raise ValidationError(f"a signal needs a name, a non-empty text; got {name!r}")
        try:
            stored = codec.encode(payload)
            codec.decode(stored)
        except codec.CodecError as error:
            raise ValidationError(f"the payload of signal '{name}' cannot be kept: {error}") from error
        if not await self._services.outside.ledger.send_signal(run_id, name, stored, self._services.clock.now()):
            raise await self._refused(run_id, "signalled")
        self._worker.poke(run_id)
        self._neighbours.tell_signal(run_id)

    # -- for handles -----------------------------------------------------------------------------------

    async def trigger_all(self, triggers: Sequence[JobTrigger]) -> list[Run[Any]]:
        """Validate all, then store all in one transaction: what `JobHandle.trigger` and its kin call.

        Raises `ValidationError`, which of several names the one by its index.
        """
        now = self._services.clock.now()
        wanted = new_runs(triggers, self._services.ids, now, self._rules)
        if not wanted:
            return []
        # Between the commit, the events that tell it and the beginning of what it claims nothing is broken off.
        return await unbroken(self._store_all(triggers, wanted, now))

    async def trigger_and_wait(
        self, trigger: JobTrigger, *, timeout: float | timedelta | None, on_progress: Callback, on_log: Callback
    ) -> Run[Any]:
        """What `JobHandle.trigger_and_wait` calls: a run that is created is heard from before it can begin.

        Raises `ValidationError`, and as `wait_for_run` does `RunFailedError`, `RunCancelledError`, `NotFoundError` and
        `TimeoutError`.
        """
        now = self._services.clock.now()
        [wanted] = new_runs([trigger], self._services.ids, now, self._rules)
        with Hearing(wanted.id, self._services.bus, self._services.clock) as hearing:
            [run] = await unbroken(self._store_all([trigger], [wanted], now))
            if run.id == wanted.id:
                return await self._wait(hearing, run, timeout, on_progress, on_log)
        return await self.wait_for_run(run.id, timeout=timeout, on_progress=on_progress, on_log=on_log)

    # -- inside ----------------------------------------------------------------------------------------

    async def _store_all(
        self, triggers: Sequence[JobTrigger], wanted: Sequence[NewRun], now: EpochMs
    ) -> list[Run[Any]]:
        runs = []
        store = partial(self._services.outside.store.enqueue, wanted, now)
        enqueued, begun = await self._worker.with_claim(store, is_sure=True)
        for (definition, _), new_run, (stored, what) in zip(triggers, wanted, enqueued, strict=True):
            run = replace(self._registry.typed(stored), disposition=what)
            runs.append(run)
            if what == "created":
                self._emit(RunTriggered, stored, payload=run.payload)
                self._worker.wake_at(new_run.run_at)
            elif what == "coalesced":
                skipped = definition.load_payload(new_run.payload)
                self._emit(RunCoalesced, stored, skipped_payload=skipped, skipped_labels=new_run.labels)
        if begun < len(runs):
            self._worker.wake()
        return runs

    def _emit(self, kind: type[Event], stored: StoredRun, **facts: Any) -> None:
        about: dict[str, Any] = {"run_id": stored.id, "job_name": stored.job_name}
        self._services.bus.emit(kind, **about, labels=json.loads(stored.labels), **facts)

    def _copy_of(self, stored: StoredRun) -> NewRun:
        return NewRun(
            id=self._services.ids.new(),
            job_name=stored.job_name,
            payload=stored.payload,
            labels=json.loads(stored.labels),
            concurrency_key=stored.concurrency_key,
            priority=stored.priority,
            run_at=self._services.clock.now(),
        )

    def _announced(self, stored: StoredRun) -> Run[Any]:
        run = replace(self._registry.typed(stored), disposition="created")
        self._emit(RunTriggered, stored, payload=run.payload)
        self._worker.wake()
        return run

    async def _require_ended(self, run_id: str, what: str) -> StoredRun:
        stored = await self._require(run_id)
        if not stored.status.is_terminal:
            raise ConflictError(f"run {run_id} is {stored.status} and cannot be {what}")
        return stored

    async def _refused(self, run_id: str, what: str) -> Exception:
        stored = await self._require(run_id)
        return ConflictError(f"run {run_id} is {stored.status} and cannot be {what}")


def _several(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
