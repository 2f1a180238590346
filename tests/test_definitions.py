"""Defining and registering jobs, and the options of an instance: what is refused, and how it says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durably import JobDefinition, StepContext, StorageError, create_durably, define_job, job
from durably.clock import to_datetime
from durably.ids import Ids
from durably.testing import ManualClock


async def run(step: StepContext, payload: int) -> int:
    return payload


def test_a_job_is_named_after_its_function_with_dashes() -> None:
    @job
    async def sync_all_users(step: StepContext, payload: dict[str, int]) -> list[int]:
        return list(payload.values())

    @job(name="other")
    async def named(step: StepContext, payload: Any) -> None: ...

    assert (sync_all_users.name, sync_all_users.input, sync_all_users.output) == (
        "sync-all-users",
        dict[str, int],
        list[int],
    )
    assert isinstance(named, JobDefinition)
    assert (named.name, named.output) == ("other", None)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_job_needs_a_name(name: Any) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        define_job(name=name, input=int, run=run)


def test_a_job_is_an_async_function_of_step_and_payload() -> None:
    with pytest.raises(TypeError, match="must be an async function"):
        define_job(name="x", input=int, run=lambda step, payload: payload)
    with pytest.raises(TypeError, match=r"must take \(step, payload\), not \(payload\)"):

        @job  # type: ignore[arg-type]
        async def wrong(payload: int) -> int:
            return payload


def test_a_type_that_pydantic_does_not_take_is_refused_at_definition() -> None:
    class Opaque:
        pass

    with pytest.raises(ValueError, match="job 'x': its input type"):
        define_job(name="x", input=Opaque, run=run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"polling_interval": 0}, "greater than 0"),
        ({"heartbeat_interval": 5, "stale_threshold": 5}, "longer than heartbeat_interval"),
        ({"max_concurrent_runs": 0}, "from 1 to 1000"),
        ({"max_concurrent_runs": 1001}, "from 1 to 1000"),
        ({"durability": "none"}, "full, relaxed"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_durably(":memory:", **options)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"these are my notes, not a database" * 100)
    before = file.read_bytes()

    async def open_it() -> None:
        durably = create_durably(str(file))
        try:
            await durably.init()
        finally:
            await durably.stop()

    with pytest.raises(StorageError, match="is not a SQLite database; it was left as it is"):
        asyncio.run(open_it())
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    async def open_it() -> None:
        await create_durably(str(tmp_path / "no" / "db.sqlite3")).migrate()

    with pytest.raises(StorageError, match="unable to open database file"):
        asyncio.run(open_it())


def test_two_jobs_whose_names_are_alike_are_told_apart() -> None:
    durably = create_durably(":memory:")
    dashed, plain = define_job(name="a-b", input=int, run=run), define_job(name="a_b", input=int, run=run)
    durably.register(dashed, plain)
    assert (durably.jobs["a-b"].name, durably.jobs["a_b"].name) == ("a-b", "a_b")
    handles = durably.register({"first": dashed})
    assert (handles.first.name, durably.jobs.first.name, len(durably.jobs)) == ("a-b", "a-b", 2)
    with pytest.raises(AttributeError, match="no job 'c'"):
        _ = durably.jobs.c


def test_an_annotation_that_cannot_be_looked_up_says_what_to_do() -> None:
    class Local:
        pass

    with pytest.raises(TypeError, match="use define_job"):

        @job
        async def wrong(step: StepContext, payload: Local) -> int:
            return 1


def test_ids_sort_by_the_order_in_which_they_were_made() -> None:
    """Within one millisecond, and when the clock is set back, too."""
    clock = ManualClock()
    ids = Ids(clock)
    made = [ids.new() for _ in range(100)]
    asyncio.run(clock.advance(1))
    made.append(ids.new())
    clock._now = type(clock._now)(clock._now - 60_000)
    made.append(ids.new())
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {26}
    assert to_datetime(clock.now()).tzinfo is not None
