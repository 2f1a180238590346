"""API.md section 5: the store as a whole, `export`, `import_database` and `storage_info`."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, finished, found, moved, opened, quick

from durably import (
    ConflictError,
    SchemaVersionError,
    StepContext,
    StorageError,
    StorageInfo,
    UserTransaction,
    with_log_persistence,
)


async def shop(step: StepContext, payload: Any) -> Any:
    """Uses a bit of everything that is stored."""

    async def write(tx: UserTransaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS sales (item TEXT)")
        await tx.execute("INSERT INTO sales VALUES (?)", (payload,))

    step.log.info("selling", {"item": payload})
    await step.transaction("write", write)
    await step.run("pack", lambda: {"packed": (payload, b"\x00\xff")})
    return payload


def tables(data: bytes, path: Path) -> dict[str, int]:
    """What any SQLite tool finds in an export: its tables and how many rows each has; and that it is sound."""
    path.write_bytes(data)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - names from SQLite
            for name in names
        }


@pytest.mark.parametrize("place", ["file", "memory"])
@contract
async def test_what_is_exported_can_be_imported_elsewhere_and_is_all_there(place: str, tmp_path: Path) -> None:
    """'`export() -> bytes` (a consistent SQLite file), `import_database(data: bytes)` (replaces the store ...)'"""
    source, clock = await opened(":memory:" if place == "memory" else tmp_path / "a.sqlite3", body_job(shop), echo)
    source.use(with_log_persistence())
    run = await finished(source, await source.jobs.body.trigger("tea", labels={"a": "b"}, idempotency_key="k"))
    await source.schedule(echo, 1, every=60, key="often")
    data = await source.export()
    assert isinstance(data, bytes)
    counts = tables(data, tmp_path / "export.sqlite3")
    assert (counts["durably_runs"], counts["durably_steps"], counts["sales"]) == (1, 2, 1)
    target, _ = await opened(
        ":memory:" if place == "memory" else tmp_path / "b.sqlite3", body_job(shop), echo, clock=clock
    )
    gone = await finished(target, await target.jobs.body.trigger("replaced"))
    assert await target.import_database(data) is None
    assert await target.get_run(gone.id) is None
    assert await target.get_runs() == [run]
    assert await target.get_steps(run.id) == await source.get_steps(run.id)
    assert [log.message for log in await target.get_logs(run.id)] == ["selling"]
    assert await target.get_schedules() == await source.get_schedules()
    assert [one.id for one in await target.get_runs(labels={"a": "b"})] == [run.id]
    assert (await target.jobs.body.trigger("x", idempotency_key="k")).id == run.id
    again = await finished(target, await target.retrigger(run.id))
    assert (again.status, again.payload) == ("completed", "tea")
    await moved(target, clock, 60)
    assert len(await target.jobs.echo.get_runs()) == 1
    await source.stop()
    await target.stop()


@contract
async def test_a_store_is_exported_while_a_run_is_at_work_and_goes_on_in_both_places(tmp_path: Path) -> None:
    """'a consistent SQLite file', at one moment: with the run, its checkpoints so far, and nothing half done."""
    here, go = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def held() -> str:
        calls.append("held")
        here.set()
        await go.wait()
        return "held"

    async def body(step: StepContext, payload: Any) -> list[str]:
        first = await step.run("first", lambda: calls.append("first") or "first")  # type: ignore[func-returns-value]
        return [first, await step.run("held", held)]

    async with quick(tmp_path / "a.sqlite3", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        data = await durably.export()
        go.set()
        done = await durably.wait_for_run(run.id, timeout=30)
        assert done.output == ["first", "held"]
    copy = quick(tmp_path / "b.sqlite3", body_job(body))
    await copy.import_database(data)
    restored = await found(copy, run)
    assert (restored.status, restored.completed_step_count) == ("pending", 1)
    assert (await finished(copy, run)).output == ["first", "held"]
    assert calls == ["first", "held", "held"]
    await copy.stop()


@contract
async def test_an_export_may_be_taken_while_much_is_written(tmp_path: Path) -> None:
    """Every one of many exports, taken at any moment, is a sound database with whole runs."""
    async with quick(tmp_path / "a.sqlite3", body_job(shop), max_concurrent_runs=5) as durably:
        runs = await durably.jobs.body.batch_trigger([str(n) for n in range(30)])
        images = []
        while not (await found(durably, runs[-1])).is_terminal:
            images.append(await durably.export())
        for run in runs:
            await durably.wait_for_run(run.id, timeout=30)
    for number, data in enumerate(images[:: max(1, len(images) // 10)]):
        counts = tables(data, tmp_path / f"{number}.sqlite3")
        with contextlib.closing(sqlite3.connect(tmp_path / f"{number}.sqlite3")) as copy:
            [written] = copy.execute("SELECT count(*) FROM durably_steps WHERE name = 'write'").fetchone()
        assert counts["durably_runs"] == 30
        assert counts.get("sales", 0) == written


@pytest.mark.parametrize("status", ["pending", "delayed", "waiting", "running"])
@contract
async def test_an_import_is_refused_while_runs_are_active(status: str) -> None:
    """'refused while runs are active': a `ConflictError`, and everything is as it was."""
    here, go = asyncio.Event(), asyncio.Event()

    async def body(step: StepContext, payload: Any) -> Any:
        if payload == "waiting":
            await step.wait_for_signal("go")
        here.set()
        await go.wait()
        return "done"

    empty, _ = await opened()
    data = await empty.export()
    durably, clock = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(status, delay=3600 if status == "delayed" else None)
    working = asyncio.ensure_future(
        durably.process_until_idle() if status in ("waiting", "running") else asyncio.sleep(0)
    )
    if status == "running":
        await here.wait()
    else:
        await working
    with pytest.raises(ConflictError) as caught:
        await durably.import_database(data)
    assert caught.value.status == 409
    assert ("running" if status == "running" else "pending") in str(caught.value)
    go.set()
    if status == "waiting":
        await durably.signal(run.id, "go")
    await working
    await moved(durably, clock, 3600)
    assert (await finished(durably, run)).output == "done"
    await durably.import_database(data)
    assert await durably.get_runs() == []
    await empty.stop()
    await durably.stop()


def _of_another_program() -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        return connection.serialize()


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda good: b"",
    "noise": lambda good: bytes(range(256)) * 64,
    "text": lambda good: b"SQLite format 3",
    "a header alone": lambda good: good[:100],
    "half": lambda good: good[: len(good) // 2],
    "damaged": lambda good: good[:2000] + b"\xaa" * 3000 + good[5000:],
    "of another program": lambda good: _of_another_program(),
}


@pytest.mark.parametrize("kind", GARBAGE)
@contract
async def test_what_is_no_database_of_durablys_is_refused_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    """'replaces the store after checking it'"""
    durably, _ = await opened(tmp_path / "a.sqlite3", body_job(shop))
    run = await finished(durably, await durably.jobs.body.trigger("tea"))
    with pytest.raises(StorageError) as caught:
        await durably.import_database(GARBAGE[kind](await durably.export()))
    assert str(caught.value)
    assert await durably.get_runs() == [run]
    assert [step.name for step in await durably.get_steps(run.id)] == ["write", "pack"]
    assert (await finished(durably, await durably.jobs.body.trigger("milk"))).status == "completed"
    await durably.stop()


@contract
async def test_a_database_of_a_newer_durably_is_refused_by_its_version(tmp_path: Path) -> None:
    """'`SchemaVersionError` when the file was written by a newer version'"""
    durably, _ = await opened(":memory:", body_job(shop))
    run = await finished(durably, await durably.jobs.body.trigger("tea"))
    path = tmp_path / "newer.sqlite3"
    path.write_bytes(await durably.export())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO durably_schema_versions (version, applied_at) VALUES (99999, 0)")
        connection.commit()
    with pytest.raises(SchemaVersionError) as caught:
        await durably.import_database(path.read_bytes())
    assert isinstance(caught.value, StorageError)
    assert await durably.get_runs() == [run]
    await durably.stop()


@pytest.mark.parametrize("wrong", [None, "text", 5, object()], ids=lambda value: type(value).__name__)
@contract
async def test_what_are_no_bytes_is_an_error_and_changes_nothing(wrong: Any) -> None:
    """'`import_database(data: bytes)`'"""
    durably, _ = await opened(":memory:", echo)
    run = await finished(durably, await durably.jobs.echo.trigger(1))
    with pytest.raises((TypeError, ValueError, StorageError)):
        await durably.import_database(wrong)
    assert await durably.get_runs() == [run]
    await durably.stop()


@contract
async def test_storage_info_of_a_file(tmp_path: Path) -> None:
    """'`StorageInfo` (`kind` opfs/file/memory, `vfs`, `bytes_used`, `quota`, `persisted`, ...)'"""
    durably, _ = await opened(tmp_path / "a.sqlite3", echo)
    info = await durably.storage_info()
    assert isinstance(info, StorageInfo)
    assert info.kind == "file"
    assert isinstance(info.vfs, str)
    assert info.vfs
    assert info.bytes_used >= (tmp_path / "a.sqlite3").stat().st_size > 0
    assert info.quota is None or info.quota > info.bytes_used
    assert info.persisted in (None, True)
    assert info.sqlite_version == sqlite3.sqlite_version
    assert info.state == "ready"
    await durably.jobs.echo.batch_trigger([0] * 1000)
    assert (await durably.storage_info()).bytes_used > info.bytes_used
    await durably.stop()


@contract
async def test_storage_info_of_memory() -> None:
    """The same of a database that is in no file."""
    durably, _ = await opened(":memory:", echo)
    info = await durably.storage_info()
    assert (info.kind, info.sqlite_version, info.state) == ("memory", sqlite3.sqlite_version, "ready")
    assert info.bytes_used > 0
    await durably.jobs.echo.batch_trigger([0] * 1000)
    assert (await durably.storage_info()).bytes_used > info.bytes_used
    await durably.stop()
