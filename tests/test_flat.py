"""A file with 100,000 finished runs is as quick as an empty one: claims, stale scans, look-ups, newest-first lists."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from durably import Statement
from durably.clock import EpochMs
from durably.databases import open_database
from durably.migrations import migrate
from durably.rows import Lost, NewRun
from durably.store import Store
from durably.testing import ManualClock

FINISHED = 100_000
ROUNDS = 31
SWITCH_SECONDS = 0.0003
"""What a switch of threads may cost on a busy machine, and does with either file."""
NOW = EpochMs(1_800_000_000_000)
OVERDUE = EpochMs(NOW - 30_000)

FINISHED_RUNS = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO durably_runs
  (id, job_name, status, payload, output, idempotency_key, concurrency_key, generation, run_at, created_at, updated_at,
   started_at, completed_at)
SELECT
  printf('00%024d', n), 'job', CASE n % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'completed' END,
  '{"n":1}', '1', 'key-' || n, 'tenant-' || (n % 50), 1, n, n, n, n, n
FROM numbers
"""


async def stored(path: Path, finished: int) -> Store:
    store = Store(open_database(str(path), durability="relaxed"))
    await migrate(store, ManualClock())
    await store.database.execute(Statement(FINISHED_RUNS, {"count": finished}))
    [counted] = await store.database.execute(Statement("SELECT count(*) FROM durably_runs"))
    assert counted.rows[0][0] == finished
    return store


def new_run(number: int, key: str | None = None) -> NewRun:
    concurrency = f"tenant-{number % 50}"
    return NewRun(
        id=f"01{number:024d}",
        job_name="job",
        payload="1",
        labels={},
        idempotency_key=key,
        concurrency_key=concurrency,
        run_at=NOW,
    )


async def claim(store: Store, number: int) -> None:
    _, claimed = await store.take("worker", ["job"], 1, max_crashes=3, overdue=OVERDUE, now=NOW)
    assert claimed


async def glance(store: Store, number: int) -> None:
    assert (await store.glance("worker", [], ["job"], overdue=OVERDUE, now=NOW)).claimable


async def stale_scan(store: Store, number: int) -> None:
    lost = [Lost(workers=["nobody"], cutoff=OVERDUE, is_crash=False)]
    assert await store.take("worker", [], 0, lost=lost, max_crashes=3, overdue=OVERDUE, now=NOW) == ([], [])


async def idempotency(store: Store, number: int) -> None:
    [(found, disposition)], _ = await store.enqueue([new_run(10_000 + number, "key-1")], NOW)
    assert (found.id, disposition) == (f"00{1:024d}", "idempotent")


async def newest_first(store: Store, number: int) -> None:
    found = await store.list_runs(statuses=None, job_names=None, labels={}, limit=20, offset=0)
    assert found[0].id > found[1].id


async def newest_of_a_status(store: Store, number: int) -> None:
    found = await store.list_runs(statuses=["pending", "running"], job_names=["job"], labels={}, limit=20, offset=0)
    assert found[0].id > found[1].id


@pytest.mark.slow
@pytest.mark.alone
def test_a_hundred_thousand_finished_runs_slow_nothing_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bound is generous, for a busy machine; the aim, printed beside it, is a ratio of 1.2."""

    async def test() -> None:
        empty, full = await stored(tmp_path / "empty.sqlite3", 1), await stored(tmp_path / "full.sqlite3", FINISHED)
        for store in (empty, full):
            await store.enqueue([new_run(n) for n in range(4 * ROUNDS)], NOW)
        operations: list[Callable[[Store, int], Awaitable[None]]]
        operations = [glance, claim, stale_scan, idempotency, newest_first, newest_of_a_status]
        for operation in operations:
            times: dict[str, list[float]] = {"empty": [], "full": []}
            for number in range(ROUNDS):  # in turns, so that both meet the same machine
                for name, store in (("empty", empty), ("full", full)):
                    begun = time.perf_counter()
                    await operation(store, number)
                    times[name].append(time.perf_counter() - begun)
            before, after = statistics.median(times["empty"]), statistics.median(times["full"])
            with capsys.disabled():
                print(
                    f"\n{operation.__name__}: {before * 1000:.2f} ms empty, {after * 1000:.2f} ms with {FINISHED:,} "
                    f"finished runs, ratio {after / before:.2f} (aim 1.2)",
                    end="",
                )
            assert after <= 2 * before + SWITCH_SECONDS, f"{operation.__name__} is not flat"
        for store in (empty, full):
            await store.database.close()

    asyncio.run(test())
