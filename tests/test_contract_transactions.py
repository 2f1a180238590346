"""API.md section 4: `step.transaction`, whose writes and checkpoint are committed together, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, executed, finished, opened

from durably import DurablyError, StepContext, UserTransaction, create_durably, define_job

pytestmark = pytest.mark.slow


@contract
async def test_a_transaction_commits_its_writes_with_the_checkpoint() -> None:
    """'`fn(tx)` runs `await tx.execute(sql, params) -> rows` on the same database; its writes and the
    checkpoint commit together, or not at all: exactly once. Rows have index and name access.'"""
    calls: list[int] = []

    async def write(tx: UserTransaction, amount: int, *, word: str) -> int:
        calls.append(1)
        await tx.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER, word TEXT)")
        await tx.execute("INSERT INTO mine VALUES (?, ?)", (amount, word))
        rows = await tx.execute("SELECT n, word AS w FROM mine ORDER BY n")
        assert (rows[0][0], rows[0]["n"], rows[0]["w"], rows[0][1]) == (amount, amount, word, word)
        assert len(rows) == 1
        return len(rows)

    async def read(tx: UserTransaction) -> list[Any]:
        return [tuple(row) for row in await tx.execute("SELECT n, word FROM mine", [])]

    broken = True

    async def body(step: StepContext, payload: Any) -> Any:
        assert await step.transaction("write", write, 5, word="five") == 1
        if broken:
            raise RuntimeError("after")
        return len(await step.transaction("read", read))

    durably, _, run = await executed(body)
    assert "after" in str(run.error), run.error
    broken = False
    await durably.retry(run.id)
    done = await finished(durably, run)
    assert (done.output, len(calls)) == (1, 1)
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [
        ("write", "completed"),
        ("read", "completed"),
    ]
    await durably.stop()


@contract
async def test_a_failing_transaction_leaves_no_write_behind() -> None:
    """'its writes and the checkpoint commit together, or not at all'"""
    failing = True

    async def setup(tx: UserTransaction) -> None:
        await tx.execute("CREATE TABLE mine (n INTEGER)")

    async def write(tx: UserTransaction) -> None:
        await tx.execute("INSERT INTO mine VALUES (1)")
        if failing:
            raise ValueError("half way")

    async def unkeepable(tx: UserTransaction) -> Any:
        await tx.execute("INSERT INTO mine VALUES (2)")
        return object()

    async def bad_sql(tx: UserTransaction) -> Any:
        await tx.execute("INSERT INTO mine VALUES (3)")
        await tx.execute("INSERT INTO nothing VALUES (3)")

    async def read(tx: UserTransaction) -> list[int]:
        return [row["n"] for row in await tx.execute("SELECT n FROM mine")]

    async def body(step: StepContext, payload: Any) -> Any:
        await step.transaction("setup", setup)
        kinds = []
        for name, fn in (("write", write), ("unkeepable", unkeepable), ("bad-sql", bad_sql)):
            try:
                await step.transaction(name, fn)
            except Exception as error:  # noqa: BLE001
                kinds.append(type(error).__name__)
        return [kinds, await step.transaction("read", read)]

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    kinds, rows = run.output
    assert rows == []
    assert kinds[:2] == ["ValueError", "StepOutputError"]
    assert {s.name: s.status for s in await durably.get_steps(run.id)}["write"] == "failed"
    await durably.stop()


@contract
async def test_a_step_call_inside_a_transaction_raises_at_once() -> None:
    """'Inside `fn` only `tx` is for use: any `step` call there raises `DurablyError` at once instead of waiting
    for itself.'"""
    raised: list[str] = []

    async def body(step: StepContext, payload: Any) -> Any:
        async def misuse(tx: UserTransaction) -> None:
            for call in (
                lambda: step.run("a", lambda: 1),
                lambda: step.transaction("b", misuse),
                lambda: step.sleep("c", 1),
                lambda: step.wait_for_signal("d"),
                lambda: step.trigger("e", "body", 1),
                lambda: step.trigger_and_wait("f", "body", 1),
                step.now,
                step.random,
                step.uuid,
            ):
                try:
                    await asyncio.wait_for(call(), 1)
                except DurablyError as error:
                    raised.append(str(error))

        await step.transaction("outer", misuse)

    durably, _, run = await executed(body)
    assert run.status == "completed", run.error
    assert len(raised) == 9
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_a_call_of_the_instance_inside_a_transaction_raises_at_once(tmp_path: Path) -> None:
    """It is the same mistake as a step call there: it would wait for the very transaction that waits for it."""
    raised: list[str] = []
    other = create_durably(tmp_path / "other.sqlite3", jobs=[echo])
    await other.migrate()

    async def body(step: StepContext, payload: Any) -> Any:
        async def misuse(tx: UserTransaction) -> Any:
            for call in (
                lambda: durably.get_run(step.run_id),
                durably.get_runs,
                lambda: durably.jobs.body.trigger(1),
                lambda: durably.cancel(step.run_id),
                lambda: durably.signal(step.run_id, "go"),
                lambda: durably.schedule("body", 1, every=60, key="k"),
                durably.export,
                durably.storage_info,
                lambda: asyncio.gather(durably.get_run(step.run_id)),
            ):
                with pytest.raises(DurablyError, match="only tx is for use") as error:
                    await asyncio.wait_for(call(), 10)
                raised.append(str(error.value))
            await other.jobs.echo.trigger(1)  # in another database
            return len(await tx.execute("SELECT 1"))

        rows = await step.transaction("outer", misuse)
        assert await durably.get_run(step.run_id) is not None, "afterwards it may be called"
        return rows

    durably, _ = await opened(":memory:", body_job(body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert (run.status, run.output) == ("completed", 1), run.error
    assert len(raised) == 9
    assert len(await durably.get_runs()) == 1
    assert len(await other.get_runs()) == 1
    await other.stop()
    await durably.stop()


async def tables(tx: UserTransaction) -> int:
    return len(await tx.execute("SELECT name FROM sqlite_master WHERE name = 'mine'"))


@pytest.mark.parametrize(
    "statement",
    ["COMMIT", "END", "ROLLBACK", "BEGIN", "-- c\nCOMMIT", "/* c */ commit;", " \n;COMMIT", "/* c */ rollback"],
)
@contract
async def test_a_transaction_cannot_be_ended_from_inside(statement: str) -> None:
    """'its writes and the checkpoint commit together, or not at all: exactly once': never a checkpoint without its
    writes, nor the reverse."""

    async def body(step: StepContext, payload: Any) -> Any:
        async def sneak(tx: UserTransaction) -> str:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute(statement)
            return "fine"

        try:
            return await step.transaction("sneak", sneak)
        except Exception:  # noqa: BLE001
            return await step.transaction("look", tables)

    durably, _, run = await executed(body)
    assert (run.status, run.output) == ("completed", 0), run.error
    assert [(s.name, s.status) for s in await durably.get_steps(run.id)] == [
        ("sneak", "failed"), ("look", "completed"),
    ]  # fmt: skip
    await durably.stop()


@pytest.mark.parametrize("statement", ["SAVEPOINT a", "ATTACH ':memory:' AS x", "SELECT 1; SELECT 2"])
@contract
async def test_no_statement_saves_the_writes_of_a_transaction_that_fails(statement: str) -> None:
    """'its writes and the checkpoint commit together, or not at all', whether SQLite takes the statement or not."""

    async def body(step: StepContext, payload: Any) -> Any:
        async def sneak(tx: UserTransaction) -> None:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute(statement)
            raise ValueError("and fail")

        try:
            await step.transaction("sneak", sneak)
        except Exception:  # noqa: BLE001
            return await step.transaction("look", tables)

    durably, _, run = await executed(body)
    assert (run.status, run.output) == ("completed", 0), run.error
    await durably.stop()


@contract
async def test_a_transaction_that_is_over_takes_no_statement() -> None:
    """'Inside `fn` only `tx` is for use', and only there."""
    kept: list[UserTransaction] = []

    async def body(step: StepContext, payload: Any) -> Any:
        async def keep(tx: UserTransaction) -> None:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
            kept.append(tx)

        await step.transaction("keep", keep)
        try:
            await asyncio.wait_for(kept[0].execute("INSERT INTO mine VALUES (1)"), 1)
        except TimeoutError:
            return "waits for ever"
        except Exception:  # noqa: BLE001
            return "refused"
        return "accepted"

    durably, _ = await opened(":memory:", define_job(name="body", input=Any, run=body))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    assert run.output == "refused"
    await durably.stop()
