"""The store's other books: signals, logs, schedules, and what is done to ended runs.

As `store`: each operation is one atomic batch, instants come from the caller.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from . import ledger_queries as book
from . import queries as sql
from .clock import EpochMs
from .database import Database, Statement, Value
from .rows import Checkpoint, Claim, NewRun, StoredRun, json_list, run_key, stored_run
from .store import fence, insert_statements


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """A line of `durably_logs`; `data` is JSON text."""

    run_id: str
    step_name: str | None
    level: str
    message: str
    data: str | None
    created_at: EpochMs


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLog(StoredLog):
    """A line to be stored, with the claim under which it was written."""

    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A row of `durably_schedules`."""

    key: str
    job_name: str
    payload: str
    every_ms: int | None
    cron: str | None
    timezone: str
    catch_up: str
    next_at: EpochMs
    created_at: EpochMs


class Ledger:
    """The operations. `database` is any backend of `durably.database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- signals -------------------------------------------------------------------------------------

    async def send_signal(self, run_id: str, name: str, payload: str | bytes, now: EpochMs) -> bool:
        """Keep a signal for an active run and make it due if it waits for this; false if it is not active."""
        sent, _ = await self._database.execute(
            Statement(book.INSERT_SIGNAL, {"run_id": run_key(run_id), "name": name, "payload": payload, "now": now}),
            Statement(sql.WAKE_IF_SIGNALLED, {"run_id": run_key(run_id), "now": now}),
        )
        return bool(sent.rows)

    async def take_signal(self, claim: Claim, checkpoint: Checkpoint, now: EpochMs) -> str | bytes | None:
        """Deliver the oldest waiting signal to a step and complete it; the payload, or `None` if none came."""
        params: dict[str, Value] = {"name": checkpoint.name, "now": now}
        consumed, delivered, _ = await self._database.execute(
            Statement(book.CONSUME_SIGNAL, fence(claim) | {"name": checkpoint.name, "signal": checkpoint.signal}),
            Statement(book.DELIVER_SIGNAL, {"run_id": claim.run_id} | params),
            Statement(book.ADVANCE_AFTER_SIGNAL, fence(claim) | params | {"step_index": checkpoint.step_index}),
        )
        output: str | bytes | None = delivered.rows[0][0] if consumed.changes else None
        return output

    # -- a user's decisions --------------------------------------------------------------------------

    async def cancel(self, run_id: str, now: EpochMs) -> list[StoredRun]:
        """Cancel an active run and the children that are not detached; all that were, none if it had ended."""
        cancelled, *_ = await self._database.execute(*cancel_statements(run_key(run_id), now))
        return [stored_run(row) for row in cancelled.rows]

    async def retry(self, run_id: str, now: EpochMs) -> StoredRun | None:
        """Make a failed or cancelled run pending again; `None` where it is neither."""
        retried, _ = await self._database.execute(
            Statement(sql.RETRY_RUN, {"id": run_key(run_id), "now": now}),
            Statement(sql.RESET_ATTEMPTS, {"id": run_key(run_id)}),
        )
        return stored_run(retried.rows[0]) if retried.rows else None

    # -- ended runs ----------------------------------------------------------------------------------

    async def delete_run(self, run_id: str) -> StoredRun | None:
        """Delete a terminal run and all that is its own; `None` where there is no such run."""
        [result] = await self._database.execute(Statement(sql.DELETE_RUN, {"id": run_key(run_id)}))
        return stored_run(result.rows[0]) if result.rows else None

    async def ended_since(
        self, since: EpochMs, after: str, *, job_names: Collection[str] | None, labels: dict[str, str], limit: int
    ) -> list[StoredRun]:
        """Terminal runs that ended then, with an id behind `after`, or later: the `limit` earliest of them, in order.

        `job_names=None` means any.
        """
        params: dict[str, Value] = {
            "since": since,
            "after": after,
            "job_names": None if job_names is None else json_list(job_names),
            "labels": json.dumps(labels),
            "limit": limit,
        }
        [result] = await self._database.execute(Statement(sql.ENDED_SINCE, params))
        return [stored_run(row) for row in result.rows]

    async def count_ended(self, older_than: EpochMs) -> int:
        """How many terminal runs ended before `older_than`: those that `purge_runs` deletes."""
        [result] = await self._database.execute(Statement(sql.COUNT_ENDED, {"older_than": older_than}))
        return int(result.rows[0][0])

    async def purge_runs(self, older_than: EpochMs, limit: int) -> list[StoredRun]:
        """Delete terminal runs that ended before `older_than`, oldest first."""
        [result] = await self._database.execute(Statement(sql.PURGE_RUNS, {"older_than": older_than, "limit": limit}))
        return [stored_run(row) for row in result.rows]

    async def fork(self, source_id: str, from_step: str, run: NewRun, now: EpochMs) -> StoredRun:
        """Store a run that begins with copies of the completed steps before `from_step`."""
        copy: dict[str, Value] = {"id": run.id, "source_id": source_id, "from_step": from_step}
        *_, found = await self._database.execute(
            *insert_statements(run, now),
            Statement(sql.COPY_STEPS, copy),
            Statement(sql.COUNT_COPIED_STEPS, {"id": run.id}),
            Statement(sql.RUN_BY_ID, {"id": run.id}),
        )
        return stored_run(found.rows[0])

    async def count_active(self) -> int:
        """How many runs are pending or running."""
        [result] = await self._database.execute(Statement(sql.COUNT_ACTIVE))
        return int(result.rows[0][0])

    # -- logs ----------------------------------------------------------------------------------------

    async def put_logs(self, lines: Sequence[NewLog]) -> None:
        """Append lines; those of runs that are gone, or had gone to another worker, are dropped."""
        await self._database.execute(*(Statement(book.INSERT_LOG, asdict(line)) for line in lines))

    async def logs_of(self, run_id: str) -> list[StoredLog]:
        """In the order in which they were written."""
        [result] = await self._database.execute(Statement(book.LOGS_OF_RUN, {"run_id": run_id}))
        columns = ("run_id", "step_name", "level", "message", "data", "created_at")
        return [StoredLog(**{name: row[name] for name in columns}) for row in result.rows]

    # -- schedules -----------------------------------------------------------------------------------

    async def put_schedule(self, schedule: StoredSchedule) -> None:
        """Store a schedule, or replace the one with its key."""
        columns = asdict(schedule)
        await self._database.execute(Statement(book.PUT_SCHEDULE, columns | {"now": columns.pop("created_at")}))

    async def delete_schedule(self, key: str) -> bool:
        """False if there is none with this key."""
        [result] = await self._database.execute(Statement(book.DELETE_SCHEDULE, {"key": key}))
        return bool(result.rows)

    async def schedules(self) -> list[StoredSchedule]:
        """All, by key."""
        return await self._schedules(Statement(book.LIST_SCHEDULES))

    async def due_schedules(self, now: EpochMs) -> list[StoredSchedule]:
        """Those whose next tick has come."""
        return await self._schedules(Statement(book.DUE_SCHEDULES, {"now": now}))

    async def fire(
        self, schedule: StoredSchedule, run_ids: Sequence[str], after: EpochMs, now: EpochMs
    ) -> list[StoredRun]:
        """Store the runs of a tick and move on to the tick `after`; nothing if another tab was faster."""
        tick: dict[str, Value] = {"key": schedule.key, "next_at": schedule.next_at}
        labels = json.dumps({"schedule": schedule.key}, ensure_ascii=False)
        statements = [
            Statement(book.INSERT_SCHEDULED_RUN, tick | {"id": run_id, "labels": labels, "now": now})
            for run_id in run_ids
        ]
        statements += [Statement(sql.INSERT_LABELS, {"id": run_id}) for run_id in run_ids]
        results = await self._database.execute(*statements, Statement(book.ADVANCE_SCHEDULE, tick | {"after": after}))
        return [stored_run(result.rows[0]) for result in results[: len(run_ids)] if result.rows]

    async def _schedules(self, statement: Statement) -> list[StoredSchedule]:
        [result] = await self._database.execute(statement)
        return [StoredSchedule(**dict(zip(row.keys(), row, strict=True))) for row in result.rows]


def cancel_statements(run_id: str | None, now: EpochMs | None) -> list[Statement]:
    """What cancels a run; the first gives all runs that were. `None` leaves a parameter to be filled in."""
    return [
        Statement(sql.CANCEL_RUN, {"id": run_id, "now": now}),
        Statement(sql.CANCEL_WAITS, {"id": run_id, "now": now}),
        Statement(sql.WAKE_PARENT, {"run_id": run_id, "now": now}),
    ]
