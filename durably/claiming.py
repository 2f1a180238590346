"""Claiming: how a worker comes by its runs. It frees those of the dead, sees to the schedules, and claims what is due.

A look is one read without a lock. Only where that shows something to do is anything written, and then in one
transaction: what a death has freed is claimed in the same commit. Before a worker has any run it shows a sign of life,
for one whose owner shows none is taken away at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .chores import Chores
from .clock import LAST_INSTANT, EpochMs, unbroken
from .database import Statement
from .events import RunFailed, RunStale, logger
from .jobs import Registry
from .liveness import Liveness
from .migrations import require_known
from .records import RunStatus
from .rows import Lost, StoredRun
from .services import Services
from .store import claim_statement

BEFORE_ALL = EpochMs(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """When the runs of others may be taken."""

    stale_threshold: float
    """Seconds without a sign after which an owner has lost its runs."""
    max_crashes: int
    """Deaths in a row after which a run is failed."""


class Claimer:
    """Claims runs for one worker. One caller at a time."""

    def __init__(
        self,
        worker_id: str,
        services: Services,
        registry: Registry,
        chores: Chores,
        liveness: Liveness,
        rules: ClaimRules,
        *,
        wake: Callable[[], None],
    ) -> None:
        """`wake` lets the worker look again."""
        self._worker_id = worker_id
        self._services = services
        self._registry = registry
        self._chores = chores
        self._liveness = liveness
        self._rules = rules
        self._wake = wake
        self._latest = LAST_INSTANT
        self._more_wait = False
        """Whether the last claim was limited by the slots that were free."""
        self._sign: asyncio.Task[None] | None = None

    def next_claim(self, slots: int, *, is_sure: bool) -> Statement | None:
        """What claims runs in a commit that is made anyway; `None` where that would not be worth it, or not safe.

        `is_sure`: there is one to claim; else it is worth it where the last claim left some. What it claims is to be
        given to `note_claimed`.
        """
        now = self._services.clock.now()
        is_shown = self._sign is not None and self._sign.done() and not self._sign.cancelled()
        if slots <= 0 or not (is_sure or self._more_wait) or now < self._latest or not is_shown:
            return None
        return claim_statement(self._worker_id, self._registry.names, slots, overdue=self._overdue(now), now=now)

    def note_claimed(self, number: int, slots: int) -> None:
        """So many runs were claimed by `next_claim`, of those that there was room for."""
        self._more_wait = number == slots

    def show(self) -> None:
        """Begin to show that this worker lives, so that it need not be waited for when there is a run to claim."""
        if self._sign is None:
            self._sign = asyncio.ensure_future(self._liveness.hold(self._worker_id))

    async def hide(self) -> None:
        """Show it no more."""
        self._liveness.watch((), self._wake)
        await self.rest()

    async def rest(self) -> None:
        """A worker without work holds nothing: a browser neither freezes nor keeps a page that holds a lock."""
        if self._sign is not None:
            await self._shown()
            self._sign = None
            await self._liveness.release(self._worker_id)

    async def take(self, mine: Collection[str], slots: Callable[[], int]) -> list[StoredRun]:
        """Free the runs of the dead, beside `mine`; see to the schedules; and claim up to `slots()`.

        That is asked last: it may be none, and change while there is a look.
        """
        store, now, names = self._services.store, self._services.clock.now(), self._registry.names
        # So it is at the first look: nobody knows how the clock was when the runs were stored.
        is_set_back = now < self._latest
        overdue = self._overdue(now)
        glance = await store.glance(self._worker_id, mine, names, overdue=overdue, now=now)
        require_known(store.database.name, glance.schema_version)
        if glance.claimable and slots() > 0:
            self.show()
        lost = await self._lost(glance.owners, overdue) if glance.owners else []
        self._liveness.watch(_owners_left(glance.owners, lost) - {self._worker_id}, self._wake)
        orphaned = await self._liveness.dead(glance.parkers) if glance.parkers else set()
        fired = glance.schedules_due and await self._chores.fire_schedules(now)
        is_worth_it = bool(glance.claimable or lost or orphaned or fired)
        if is_worth_it and slots() > 0:
            self.show()
            await self._shown()
        number = slots() if is_worth_it else 0
        if number <= 0:
            await self._chores.when_idle(now)
            if not (lost or orphaned or is_set_back):
                self._latest = now
                return []
        freed, claimed = await store.take(
            self._worker_id,
            names,
            number,
            mine=mine,
            lost=lost,
            orphaned=orphaned,
            max_crashes=self._rules.max_crashes,
            is_set_back=is_set_back,
            overdue=overdue,
            now=now,
        )
        self._latest = now
        self._more_wait = 0 < number == len(claimed)
        if is_set_back and not is_worth_it:
            return await self.take(mine, slots)  # there may be something to claim now
        for stored in freed:
            self._tell_freed(stored)
        return claimed

    # -- inside ----------------------------------------------------------------------------------------

    def _overdue(self, now: EpochMs) -> EpochMs:
        return EpochMs(now - int(self._rules.stale_threshold * 1000))

    async def _shown(self) -> None:
        sign = self._sign
        assert sign is not None, "what is waited for has begun"
        try:
            await unbroken(sign)
        finally:
            if sign.done() and (sign.cancelled() or sign.exception() is not None):
                self._sign = None  # to be tried again

    async def _lost(self, owners: dict[str, EpochMs], overdue: EpochMs) -> list[Lost]:
        """Who of the owners of runs is to lose them, and whether that counts as a crash of the run."""
        liveness = self._liveness
        others = {worker_id: heartbeat for worker_id, heartbeat in owners.items() if worker_id != self._worker_id}
        dead = await liveness.dead(others)
        if dead:
            self.show()
        crashed = dead - await liveness.left(dead) if dead else set()
        # Not blamed on the run: it was put down in order, its owner sleeps, or it was dropped here by an error.
        asleep = liveness.suspended(others, self._rules.stale_threshold)
        blameless = (dead - crashed) | asleep | owners.keys() & {self._worker_id}
        lost = [
            Lost(workers=workers, cutoff=BEFORE_ALL, is_crash=workers is crashed)
            for workers in (crashed, blameless)
            if workers
        ]
        # Where a death is always seen, a heartbeat that is late tells of a long plain step, not of a death.
        if not liveness.sees_death and any(heartbeat <= overdue for heartbeat in owners.values()):
            lost.append(Lost(workers=(), cutoff=overdue, is_crash=True))
        return lost

    def _tell_freed(self, stored: StoredRun) -> None:
        about = {"run_id": stored.id, "job_name": stored.job_name, "labels": json.loads(stored.labels)}
        if stored.status is RunStatus.FAILED:
            logger.warning("run %s failed: %s", stored.id, stored.error)
            self._services.bus.emit(RunFailed, **about, error=stored.error, failed_step_name=stored.failed_step_name)
        else:
            logger.info("run %s lost its worker and is pending again", stored.id)
            self._services.bus.emit(RunStale, **about)


def _owners_left(owners: dict[str, EpochMs], lost: Sequence[Lost]) -> set[str]:
    return owners.keys() - {worker_id for one in lost for worker_id in one.workers}
