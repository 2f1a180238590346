"""What durably asks of its database, as operations named in the field's words: runs, claims, checkpoints.

Each operation is one atomic batch. Operations on a running run are *fenced*: they carry the generation
of the claim they belong to, change nothing once the run has been claimed again or has ended, and say so
by returning `False` or `None`. Instants come from the caller, so this module reads no clock.

Signals, logs, schedules and what an administrator does (delete, purge, fork) are in `ledger`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from . import queries as sql
from .clock import EpochMs
from .database import Database, Row, Statement, Transaction, Value
from .errors import LeaseLostError
from .ledger_queries import ANY_SCHEDULE_DUE
from .records import RunStatus
from .rows import Checkpoint, Claim, Glance, Lost, NewRun, StoredRun, StoredStep, json_list, run_key, stored_run


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

    async def enqueue(
        self, runs: Sequence[NewRun], now: EpochMs, claim: Statement | None = None
    ) -> tuple[list[tuple[StoredRun, str]], list[StoredRun]]:
        """Store all runs, or none, and claim some with `claim` in the same commit.

        For each the stored run and its disposition: `created`, `idempotent` where its idempotency key was taken, or
        `coalesced`. And the runs that were claimed, which need not be these.
        """
        batches = [insert_statements(run, now) for run in runs]
        claims = [] if claim is None else [claim]
        results = await self.database.execute(*(statement for batch in batches for statement in batch), *claims)
        claimed = in_order_of_claim(results[-1].rows) if claims else []
        answers = []
        for run, batch in zip(runs, batches, strict=True):
            found, results = results[len(batch) - 1], results[len(batch) :]
            stored = stored_run(found.rows[0])
            answers.append((stored, disposition(run, stored)))
        return answers, claimed

    async def find_run(self, run_id: str) -> StoredRun | None:
        [result] = await self.database.execute(Statement(sql.RUN_BY_ID, {"id": run_key(run_id)}))
        return stored_run(result.rows[0]) if result.rows else None

    async def ids_beginning_with(self, prefix: str, limit: int) -> list[str]:
        """The first ids with this prefix, at most `limit`."""
        [result] = await self.database.execute(Statement(sql.IDS_BY_PREFIX, {"prefix": prefix, "limit": limit}))
        return [row[0] for row in result.rows]

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
            "statuses": None if statuses is None else json_list(statuses),
            "job_names": None if job_names is None else json_list(job_names),
            "labels": json.dumps(labels),
            "limit": -1 if limit is None else limit,
            "offset": offset,
        }
        [result] = await self.database.execute(Statement(sql.LIST_RUNS, params))
        return [stored_run(row) for row in result.rows]

    async def steps_of(self, run_id: str) -> list[StoredStep]:
        [result] = await self.database.execute(Statement(sql.STEPS_OF_RUN, {"run_id": run_id}))
        return [StoredStep(*row) for row in result.rows]

    # -- a worker's ----------------------------------------------------------------------------------

    async def glance(
        self, worker_id: str, mine: Collection[str], job_names: Collection[str], *, overdue: EpochMs, now: EpochMs
    ) -> Glance:
        """Look, without a lock, whether there is anything to do for a worker that executes the runs of `mine`."""
        names = json_list(job_names)
        claimable, owners, parkers, schedules, version = await self.database.execute(
            Statement(sql.ANY_CLAIMABLE, {"now": now, "job_names": names, "worker_id": worker_id, "overdue": overdue}),
            Statement(sql.OTHER_OWNERS, {"mine": json_list(mine)}),
            Statement(sql.OTHER_PARKERS, {"worker_id": worker_id, "now": now}),
            Statement(ANY_SCHEDULE_DUE, {"now": now}),
            Statement(sql.SCHEMA_VERSION),
        )
        return Glance(
            claimable=bool(claimable.rows[0][0]),
            owners={row["worker_id"]: EpochMs(row["heartbeat_at"]) for row in owners.rows},
            parkers={row[0] for row in parkers.rows},
            schedules_due=bool(schedules.rows[0][0]),
            schema_version=int(version.rows[0][0]),
        )

    async def take(
        self,
        worker_id: str,
        job_names: Collection[str],
        slots: int,
        *,
        mine: Collection[str] = (),
        lost: Sequence[Lost] = (),
        orphaned: Collection[str] = (),
        max_crashes: int,
        is_set_back: bool = False,
        overdue: EpochMs,
        now: EpochMs,
    ) -> tuple[list[StoredRun], list[StoredRun]]:
        """Free runs, then claim: the runs that were freed, and those that were claimed, in one commit.

        Freed are, beside `mine`, the runs of those who are `lost`: they become pending; where a death is counted, a run
        that has had `max_crashes` of them since its last checkpoint becomes failed instead. What is parked in workers
        that are `orphaned` may be claimed by anyone, and with `is_set_back` no run waits for a moment that was past
        when it was stored.

        Claimed are up to `slots` pending runs of these jobs: highest priority first, then the oldest. Runs parked in
        another worker are left to it until they are due since `overdue`.
        """
        statements = [Statement(sql.MAKE_DUE, {"now": now})] if is_set_back else []
        before = len(statements)
        for one in lost:
            params: dict[str, Value] = {
                "mine": json_list(mine),
                "dead": json_list(one.workers),
                "cutoff": one.cutoff,
                "is_crash": int(one.is_crash),
                "max_crashes": max_crashes,
                "now": now,
            }
            statements.append(Statement(sql.RECLAIM, params))
        if any(one.is_crash for one in lost):  # which may have failed a child run
            statements.append(Statement(sql.WAKE_ALL_PARENTS, {"now": now}))
        if orphaned:
            statements.append(Statement(sql.UNPARK, {"workers": json_list(orphaned)}))
        if slots > 0:
            statements.append(claim_statement(worker_id, job_names, slots, overdue=overdue, now=now))
        results = await self.database.execute(*statements)
        freed = [stored_run(row) for result in results[before : before + len(lost)] for row in result.rows]
        return freed, in_order_of_claim(results[-1].rows) if slots > 0 else []

    async def unpark(self, workers: Collection[str]) -> int:
        """Let anyone claim the runs that are parked in these workers; how many there are."""
        [result] = await self.database.execute(Statement(sql.UNPARK, {"workers": json_list(workers)}))
        return result.changes

    async def heartbeat(self, claims: Sequence[Claim], now: EpochMs) -> list[Claim]:
        """Renew the leases; returns the claims that are lost."""
        results = await self.database.execute(
            *(Statement(sql.HEARTBEAT, fence(claim) | {"now": now}) for claim in claims)
        )
        return [claim for claim, result in zip(claims, results, strict=True) if result.changes == 0]

    def beat(self, worker_id: str, now: Callable[[], EpochMs], seconds: float) -> Callable[[], None] | None:
        """Renew all leases of a worker every so many seconds, even while its event loop is blocked."""
        return self.database.beat(
            lambda: Statement(sql.HEARTBEAT_OF_WORKER, {"worker_id": worker_id, "now": now()}), seconds
        )

    async def still_parked(self, worker_id: str, claims: Sequence[Claim]) -> set[Claim]:
        """Those of a worker's parked runs that nobody has claimed or ended."""
        params: dict[str, Value] = {"worker_id": worker_id, "ids": json_list([claim.run_id for claim in claims])}
        [result] = await self.database.execute(Statement(sql.STILL_PARKED, params))
        return {Claim(run_id=row["id"], generation=row["generation"]) for row in result.rows}

    # -- an execution's, all fenced ------------------------------------------------------------------

    async def put_step(self, claim: Claim, checkpoint: Checkpoint) -> bool:
        """Write the checkpoint and the run's advance; false when the claim is lost."""
        _, advanced = await self.database.execute(*checkpoint_statements(claim, checkpoint))
        return bool(advanced.rows)

    async def start_child(
        self, claim: Claim, checkpoint: Checkpoint, child: NewRun, now: EpochMs
    ) -> tuple[StoredRun, str]:
        """Store a child run and the checkpoint that names it, together; the child and its disposition, as `enqueue`.

        The checkpoint keeps the disposition as its output. Raises `LeaseLostError` when the claim is lost.
        """
        async with self.database.transaction() as tx:
            for statement in insert_statements(child, now):
                rows = await tx.execute(statement.sql, statement.params)
            stored = stored_run(rows[0])
            what = disposition(child, stored)
            if not await put_step_in(tx, claim, replace(checkpoint, child_id=stored.id, output=json.dumps(what))):
                raise LeaseLostError(claim.run_id)
        return stored, what

    async def put_cancelled_step(self, claim: Claim, checkpoint: Checkpoint, now: EpochMs) -> bool:
        """Write that a step was cancelled with its run; false when somebody else has the run."""
        params: dict[str, Value] = {
            "name": checkpoint.name,
            "step_index": checkpoint.step_index,
            "attempt": checkpoint.attempt,
            "started_at": checkpoint.started_at,
            "now": now,
        }
        return await self._fenced(sql.PUT_CANCELLED_STEP, claim, params)

    async def suspect_step(self, claim: Claim, name: str) -> bool:
        """Note which step is about to begin, in case the worker dies in it."""
        return await self._fenced(sql.SUSPECT_STEP, claim, {"name": name})

    async def put_progress(self, claim: Claim, progress: str, now: EpochMs) -> bool:
        return await self._fenced(sql.PUT_PROGRESS, claim, {"progress": progress, "now": now})

    async def release(self, claim: Claim, progress: str | None, now: EpochMs) -> bool:
        """Hand the run back as pending; its checkpoints stay."""
        return await self._fenced(sql.RELEASE_RUN, claim, {"progress": progress, "now": now})

    async def park(
        self, claim: Claim, *, waiting_for: str, wake_at: EpochMs, progress: str | None, now: EpochMs
    ) -> bool:
        """Give the slot back until `wake_at`, or until what the run waits for has come (it may have by now)."""
        params: dict[str, Value] = {
            "waiting_for": waiting_for,
            "wake_at": wake_at,
            "progress": progress,
            "now": now,
        }
        woken: dict[str, Value] = {"run_id": claim.run_id, "now": now}
        parked, *_ = await self.database.execute(
            Statement(sql.PARK_RUN, fence(claim) | params),
            Statement(sql.WAKE_IF_SIGNALLED, woken),
            Statement(sql.WAKE_IF_CHILD_ENDED, woken),
        )
        return bool(parked.rows)

    async def wake(self, claim: Claim, now: EpochMs) -> None:
        """Make a parked run due now."""
        await self._fenced(sql.WAKE_RUN, claim, {"now": now})

    async def finish(
        self,
        claim: Claim,
        status: RunStatus,
        *,
        output: str | None = None,
        error: str | None = None,
        failed_step_name: str | None = None,
        progress: str | None = None,
        keep_steps: bool = True,
        claim_next: Statement | None = None,
        now: EpochMs,
    ) -> tuple[int | None, list[StoredRun]]:
        """End the run as completed or failed, and claim others with `claim_next` in the same commit.

        The milliseconds since it was first started, `None` when its claim is lost; and the runs that were claimed.
        """
        params: dict[str, Value] = {
            "status": status.value,
            "output": output,
            "error": error,
            "failed_step_name": failed_step_name,
            "progress": progress,
            "now": now,
        }
        statements = [
            Statement(sql.FINISH_RUN, fence(claim) | params),
            Statement(sql.END_WAITS, fence(claim) | {"now": now}),
            Statement(sql.WAKE_PARENT, {"run_id": claim.run_id, "now": now}),
        ]
        if not keep_steps:
            statements.append(Statement(sql.DELETE_STEPS_OF_COMPLETED, fence(claim)))
        if claim_next is not None:
            statements.append(claim_next)
        result, *_, last = await self.database.execute(*statements)
        claimed = [] if claim_next is None else in_order_of_claim(last.rows)
        return int(result.rows[0][0]) if result.rows else None, claimed

    async def _fenced(self, query: str, claim: Claim, params: dict[str, Value]) -> bool:
        [result] = await self.database.execute(Statement(query, fence(claim) | params))
        return result.changes == 1


def claim_statement(
    worker_id: str, job_names: Collection[str], slots: int, *, overdue: EpochMs, now: EpochMs
) -> Statement:
    """What claims up to `slots` runs, as `Store.take` says."""
    wanted: dict[str, Value] = {
        "worker_id": worker_id,
        "job_names": json_list(job_names),
        "slots": slots,
        "overdue": overdue,
        "now": now,
    }
    return Statement(sql.CLAIM, wanted)


def in_order_of_claim(rows: Sequence[Row]) -> list[StoredRun]:
    return sorted(map(stored_run, rows), key=lambda run: (-run.priority, run.run_at, run.id))


async def put_step_in(tx: Transaction, claim: Claim, checkpoint: Checkpoint) -> bool:
    """`Store.put_step` inside the user's own transaction: both are committed, or neither."""
    put, advance = checkpoint_statements(claim, checkpoint)
    await tx.execute(put.sql, put.params)
    return bool(await tx.execute(advance.sql, advance.params))


def insert_statements(run: NewRun, now: EpochMs) -> list[Statement]:
    """What stores a run; the last one selects the run that is there afterwards."""
    key: dict[str, Value] = {
        "id": run.id,
        "job_name": run.job_name,
        "idempotency_key": run.idempotency_key,
        "concurrency_key": run.concurrency_key,
    }
    row = key | {
        "payload": run.payload,
        "labels": json.dumps(run.labels, ensure_ascii=False),
        "priority": run.priority,
        "run_at": run.run_at,
        "parent_id": run.parent_id,
        "is_detached": int(run.is_detached),
        "now": now,
    }
    statements = [Statement(sql.INSERT_RUN_COALESCED if run.coalesce else sql.INSERT_RUN, row)]
    if run.labels:
        statements.append(Statement(sql.INSERT_LABELS, {"id": run.id}))
    return [*statements, Statement(sql.RUN_TRIGGERED, key | {"coalesce": int(run.coalesce)})]


def disposition(wanted: NewRun, stored: StoredRun) -> str:
    if stored.id == wanted.id:
        return "created"
    same_key = wanted.idempotency_key is not None and stored.idempotency_key == wanted.idempotency_key
    return "idempotent" if same_key else "coalesced"


def checkpoint_statements(claim: Claim, checkpoint: Checkpoint) -> tuple[Statement, Statement]:
    step: dict[str, Value] = {
        "name": checkpoint.name,
        "step_index": checkpoint.step_index,
        "status": checkpoint.status,
        "output": checkpoint.output,
        "error": checkpoint.error,
        "attempt": checkpoint.attempt,
        "wake_at": checkpoint.wake_at,
        "signal": checkpoint.signal,
        "child_id": checkpoint.child_id,
        "started_at": checkpoint.started_at,
        "completed_at": None if checkpoint.status == "waiting" else checkpoint.now,
    }
    run: dict[str, Value] = {
        "step_index": checkpoint.step_index,
        "completed": int(checkpoint.status == "completed"),
        "progress": checkpoint.progress,
        "now": checkpoint.now,
    }
    return Statement(sql.PUT_STEP, fence(claim) | step), Statement(sql.ADVANCE_RUN, fence(claim) | run)


def fence(claim: Claim) -> dict[str, Value]:
    return {"run_id": claim.run_id, "generation": claim.generation}
