"""What durably asks of its database, as operations named in the field's words.

Each operation is one atomic batch. Operations on a running run are *fenced*: they carry the generation
of the claim they belong to, change nothing once the run has been claimed again or has ended, and say so
by returning `False`. Instants come from the caller, so this module reads no clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from . import queries as sql
from .clock import EpochMs
from .database import Database, Row, Statement, Transaction, Value
from .records import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A row of `durably_runs`, as it is: JSON as text, instants as `EpochMs`."""

    id: str
    job_name: str
    status: RunStatus
    payload: str
    output: str | None
    error: str | None
    failed_step_name: str | None
    progress: str | None
    labels: str
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    current_step_index: int
    completed_step_count: int
    waiting_for: str | None
    generation: int
    worker_id: str | None
    heartbeat_at: EpochMs | None
    run_at: EpochMs
    created_at: EpochMs
    updated_at: EpochMs
    started_at: EpochMs | None
    completed_at: EpochMs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A row of `durably_steps`."""

    run_id: str
    name: str
    step_index: int
    status: str
    output: str | bytes | None
    error: str | None
    attempt: int
    started_at: EpochMs
    completed_at: EpochMs


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a trigger stores. `payload` is JSON text."""

    id: str
    job_name: str
    payload: str
    labels: dict[str, str]
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    run_at: EpochMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right of one execution to write for its run."""

    run_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is written when a step ends: its result, or with `error` its failure."""

    name: str
    step_index: int
    output: str | bytes | None = None
    error: str | None = None
    progress: str | None
    """The run's progress as JSON text where it is newer than the stored one, else `None`."""
    started_at: EpochMs
    now: EpochMs


@dataclass(frozen=True, slots=True)
class Glance:
    """What a worker sees before it takes the write lock."""

    claimable: bool
    owners: dict[str, EpochMs]
    """The workers that own the other running runs, with the oldest heartbeat of each."""


class Store:
    """The operations. `database` is any backend of `durably.database`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # -- schema --------------------------------------------------------------------------------------

    async def schema_version(self) -> int:
        """The version of the file's schema, 0 where it has none yet. Reads only."""
        [found] = await self.database.execute(Statement(sql.HAS_SCHEMA_VERSIONS))
        if not found.rows[0][0]:
            return 0
        [version] = await self.database.execute(Statement(sql.SCHEMA_VERSION))
        return int(version.rows[0][0])

    async def apply_migration(self, version: int, statements: Iterable[str], now: EpochMs) -> None:
        """Apply one migration and its own record in one transaction, unless another tab was faster."""
        async with self.database.transaction() as tx:
            await tx.execute(sql.CREATE_SCHEMA_VERSIONS)
            rows = await tx.execute(sql.SCHEMA_VERSION)
            if rows[0][0] >= version:
                return
            for statement in statements:
                await tx.execute(statement)
            await tx.execute(sql.RECORD_VERSION, {"version": version, "now": now})

    # -- runs ----------------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun], now: EpochMs) -> list[tuple[StoredRun, bool]]:
        """Store all runs, or none; for each the stored run and whether it is new (else its key was taken)."""
        statements = []
        for run in runs:
            key: dict[str, Value] = {
                "id": run.id,
                "job_name": run.job_name,
                "idempotency_key": run.idempotency_key,
            }
            row = key | {
                "payload": run.payload,
                "labels": json.dumps(run.labels, ensure_ascii=False),
                "concurrency_key": run.concurrency_key,
                "priority": run.priority,
                "run_at": run.run_at,
                "now": now,
            }
            statements.append(Statement(sql.INSERT_RUN, row))
            if run.labels:
                statements.append(Statement(sql.INSERT_LABELS, {"id": run.id}))
            statements.append(Statement(sql.RUN_BY_ID_OR_KEY, key))
        results = await self.database.execute(*statements)
        found = [
            stored_run(result.rows[0])
            for statement, result in zip(statements, results, strict=True)
            if statement.is_read
        ]
        return [(run, run.id == wanted.id) for run, wanted in zip(found, runs, strict=True)]

    async def find_run(self, run_id: str) -> StoredRun | None:
        [result] = await self.database.execute(Statement(sql.RUN_BY_ID, {"id": run_id}))
        return stored_run(result.rows[0]) if result.rows else None

    async def list_runs(
        self,
        *,
        statuses: Collection[str] | None,
        job_names: Collection[str] | None,
        labels: dict[str, str],
        limit: int | None,
        offset: int,
    ) -> list[StoredRun]:
        """Newest first. `None` means any; `limit=None` means all."""
        params: dict[str, Value] = {
            "statuses": None if statuses is None else _json_list(statuses),
            "job_names": None if job_names is None else _json_list(job_names),
            "labels": json.dumps(labels),
            "limit": -1 if limit is None else limit,
            "offset": offset,
        }
        [result] = await self.database.execute(Statement(sql.LIST_RUNS, params))
        return [stored_run(row) for row in result.rows]

    async def cancel_run(self, run_id: str, now: EpochMs) -> StoredRun | None:
        """Cancel an active run; `None` where there is no such run or it has ended."""
        return await self._change_run(sql.CANCEL_RUN, run_id, now)

    async def retry_run(self, run_id: str, now: EpochMs) -> StoredRun | None:
        """Make a failed or cancelled run pending again; `None` where it is neither."""
        return await self._change_run(sql.RETRY_RUN, run_id, now)

    async def steps_of(self, run_id: str) -> list[StoredStep]:
        [result] = await self.database.execute(Statement(sql.STEPS_OF_RUN, {"run_id": run_id}))
        return [stored_step(row) for row in result.rows]

    # -- a worker's ----------------------------------------------------------------------------------

    async def glance(self, mine: Collection[str], job_names: Collection[str], now: EpochMs) -> Glance:
        """Look, without a lock, whether there is anything to claim, or to reclaim beside the runs of `mine`."""
        claimable, owners = await self.database.execute(
            Statement(sql.ANY_CLAIMABLE, {"now": now, "job_names": _json_list(job_names)}),
            Statement(sql.OTHER_OWNERS, {"mine": _json_list(mine)}),
        )
        return Glance(
            bool(claimable.rows[0][0]),
            {row["worker_id"]: EpochMs(row["heartbeat_at"]) for row in owners.rows},
        )

    async def claim(self, worker_id: str, job_names: Collection[str], slots: int, now: EpochMs) -> list[StoredRun]:
        """Take up to `slots` pending runs of these jobs: highest priority first, then the oldest."""
        params: dict[str, Value] = {
            "worker_id": worker_id,
            "job_names": _json_list(job_names),
            "slots": slots,
            "now": now,
        }
        [result] = await self.database.execute(Statement(sql.CLAIM, params))
        runs = [stored_run(row) for row in result.rows]
        return sorted(runs, key=lambda run: (-run.priority, run.run_at, run.id))

    async def reclaim(
        self, mine: Collection[str], *, dead: Collection[str], cutoff: EpochMs, now: EpochMs
    ) -> list[StoredRun]:
        """Make pending again, beside `mine`, the runs of `dead` workers and those with no heartbeat after `cutoff`."""
        params: dict[str, Value] = {
            "mine": _json_list(mine),
            "dead": _json_list(dead),
            "cutoff": cutoff,
            "now": now,
        }
        [result] = await self.database.execute(Statement(sql.RECLAIM, params))
        return [stored_run(row) for row in result.rows]

    async def heartbeat(self, claims: Sequence[Claim], now: EpochMs) -> list[Claim]:
        """Renew the leases; returns the claims that are lost."""
        results = await self.database.execute(
            *(Statement(sql.HEARTBEAT, _fence(claim) | {"now": now}) for claim in claims)
        )
        return [claim for claim, result in zip(claims, results, strict=True) if result.changes == 0]

    # -- an execution's, all fenced ------------------------------------------------------------------

    async def put_step(self, claim: Claim, checkpoint: Checkpoint) -> bool:
        """Write the checkpoint and the run's advance; false when the claim is lost."""
        _, advanced = await self.database.execute(*checkpoint_statements(claim, checkpoint))
        return bool(advanced.rows)

    async def put_progress(self, claim: Claim, progress: str, now: EpochMs) -> bool:
        return await self._fenced(sql.PUT_PROGRESS, claim, {"progress": progress, "now": now})

    async def release(self, claim: Claim, progress: str | None, now: EpochMs) -> bool:
        """Hand the run back as pending; its checkpoints stay."""
        return await self._fenced(sql.RELEASE_RUN, claim, {"progress": progress, "now": now})

    async def finish(
        self,
        claim: Claim,
        status: RunStatus,
        *,
        output: str | None = None,
        error: str | None = None,
        failed_step_name: str | None = None,
        progress: str | None = None,
        now: EpochMs,
    ) -> StoredRun | None:
        """End the run as completed or failed; `None` when the claim is lost."""
        params: dict[str, Value] = {
            "status": status.value,
            "output": output,
            "error": error,
            "failed_step_name": failed_step_name,
            "progress": progress,
            "now": now,
        }
        [result] = await self.database.execute(Statement(sql.FINISH_RUN, _fence(claim) | params))
        return stored_run(result.rows[0]) if result.rows else None

    async def _fenced(self, query: str, claim: Claim, params: dict[str, Value]) -> bool:
        [result] = await self.database.execute(Statement(query, _fence(claim) | params))
        return result.changes == 1

    async def _change_run(self, query: str, run_id: str, now: EpochMs) -> StoredRun | None:
        [result] = await self.database.execute(Statement(query, {"id": run_id, "now": now}))
        return stored_run(result.rows[0]) if result.rows else None


async def put_step_in(tx: Transaction, claim: Claim, checkpoint: Checkpoint) -> bool:
    """`Store.put_step` inside the user's own transaction: both are committed, or neither."""
    put, advance = checkpoint_statements(claim, checkpoint)
    await tx.execute(put.sql, put.params)
    return bool(await tx.execute(advance.sql, advance.params))


def checkpoint_statements(claim: Claim, checkpoint: Checkpoint) -> tuple[Statement, Statement]:
    completed = checkpoint.error is None
    step: dict[str, Value] = {
        "name": checkpoint.name,
        "step_index": checkpoint.step_index,
        "status": "completed" if completed else "failed",
        "output": checkpoint.output,
        "error": checkpoint.error,
        "started_at": checkpoint.started_at,
        "now": checkpoint.now,
    }
    run: dict[str, Value] = {
        "step_index": checkpoint.step_index,
        "completed": int(completed),
        "progress": checkpoint.progress,
        "now": checkpoint.now,
    }
    return Statement(sql.PUT_STEP, _fence(claim) | step), Statement(sql.ADVANCE_RUN, _fence(claim) | run)


def stored_run(row: Row) -> StoredRun:
    columns = dict(zip(row.keys(), row, strict=True))
    columns["status"] = RunStatus(columns["status"])
    return StoredRun(**columns)


def stored_step(row: Row) -> StoredStep:
    return StoredStep(**dict(zip(row.keys(), row, strict=True)))


def _fence(claim: Claim) -> dict[str, Value]:
    return {"run_id": claim.run_id, "generation": claim.generation}


def _json_list(values: Collection[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
