"""API.md section 5: `fork`, a fresh run that starts with copies of the steps completed before a given one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, executed, finished, found, moved, opened, types, watched

from durably import NotFoundError, StepContext, UserTransaction, job


class Steps:
    """Four steps that are counted; the third fails or waits while it is told to."""

    def __init__(self, third: str = "works") -> None:
        self.third = third
        self.calls: list[str] = []

    async def __call__(self, step: StepContext, payload: Any) -> list[Any]:
        def note(name: str) -> str:
            self.calls.append(name)
            if name == "c" and self.third == "fails":
                raise ValueError("no third")
            return f"{name}{self.calls.count(name)}"

        results: list[Any] = [await step.run("a", note, "a"), await step.run("b", note, "b")]
        if self.third == "waits":
            await step.wait_for_signal("c")
        return [*results, await step.run("c", note, "c"), await step.run("d", note, "d")]


@pytest.mark.parametrize(("from_step", "copied"), [("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("d", ["a", "b", "c"])])
@contract
async def test_a_fork_of_a_completed_run_begins_before_any_of_its_steps(from_step: str, copied: list[str]) -> None:
    """'a fresh run that starts with copies of the steps completed before `from_step`'"""
    steps = Steps()
    durably, clock = await opened(":memory:", body_job(steps))
    run = await finished(durably, await durably.jobs.body.trigger({"x": 1}, labels={"l": "v"}, idempotency_key="k"))
    originals = await durably.get_steps(run.id)
    await clock.advance(100)
    events = watched(durably)
    fork = await durably.fork(run.id, from_step)
    assert fork.id > run.id
    assert (fork.status, fork.job_name, fork.payload, fork.labels) == ("pending", "body", {"x": 1}, {"l": "v"})
    assert (fork.idempotency_key, fork.output, fork.started_at) == (None, None, None)
    assert fork.completed_step_count == len(copied)
    assert fork.current_step_index == len(copied) - 1
    assert fork.created_at == run.created_at + timedelta(seconds=100)
    assert await durably.get_steps(fork.id) == originals[: len(copied)]
    done = await finished(durably, fork)
    assert done.output == [f"{name}{1 if name in copied else 2}" for name in "abcd"]
    assert done.completed_step_count == 4
    # The run it came from is as it was.
    assert await found(durably, run) == run
    assert await durably.get_steps(run.id) == originals
    executed_anew = [event.step_name for event in events if event.type == "step:start"]
    assert executed_anew == [name for name in "abcd" if name not in copied]
    assert types(events)[:2] == ["run:trigger", "run:start"]
    await durably.stop()


@pytest.mark.parametrize("third", ["fails", "waits"])
@contract
async def test_a_failed_or_cancelled_run_forks_at_the_step_where_it_ended(third: str) -> None:
    """'`retrigger` and `fork` take a terminal run', and the copies are of completed steps only."""
    steps = Steps(third)
    durably, _ = await opened(":memory:", body_job(steps))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    if third == "waits":
        await durably.cancel(run.id)
    steps.third = "works"
    at_end, earlier = await durably.fork(run.id, "c"), await durably.fork(run.id, "b")
    assert [(s.name, s.status) for s in await durably.get_steps(at_end.id)] == [("a", "completed"), ("b", "completed")]
    assert (await finished(durably, at_end)).status == "completed"
    assert (await found(durably, earlier)).output[0] == "a1"
    assert (await found(durably, run)).status == ("failed" if third == "fails" else "cancelled")
    await durably.stop()


@pytest.mark.parametrize("from_step", ["d", "nothing", "", "A", "%"])
@contract
async def test_a_step_that_the_run_does_not_have_is_no_place_to_fork_from(from_step: str) -> None:
    """A step unknown to the run: an error that names it, and nothing is stored."""
    durably, _, run = await executed(Steps("fails"))
    with pytest.raises(NotFoundError) as caught:
        await durably.fork(run.id, from_step)
    assert from_step in str(caught.value)
    assert len(await durably.get_runs()) == 1
    await durably.stop()


@contract
async def test_a_fork_has_slept_got_its_signals_and_started_its_children_already() -> None:
    """Copies of waits count as completed: no second sleep, no second signal, no second child."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.sleep("nap", 3600)
        word = await step.wait_for_signal("word")
        started = await step.trigger("child", echo, 5)
        awaited = await step.trigger_and_wait("awaited", echo, 6)
        return [word, started.id, awaited.id, awaited.output, await step.run("last", lambda: payload)]

    durably, clock = await opened(":memory:", body_job(body), echo)
    run = await durably.jobs.body.trigger("end")
    await durably.process_until_idle()
    await moved(durably, clock, 3600)
    await durably.signal(run.id, "word", {"said": 1})
    done = await finished(durably, run)
    assert done.status == "completed", done.error
    assert len(await durably.jobs.echo.get_runs()) == 2
    fork = await finished(durably, await durably.fork(run.id, "last"))
    assert (fork.status, fork.output) == ("completed", done.output)
    assert len(await durably.jobs.echo.get_runs()) == 2
    await durably.stop()


@contract
async def test_a_fork_before_its_waits_waits_anew_and_starts_its_own_children() -> None:
    """What comes after `from_step` is the fork's own: a signal that the original got is not delivered again."""

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("begin", lambda: 1)
        await step.sleep("nap", 60)
        word = await step.wait_for_signal("word")
        return [word, (await step.trigger_and_wait("child", echo, 7)).id]

    durably, clock = await opened(":memory:", body_job(body), echo)
    run = await durably.jobs.body.trigger(1)
    await durably.process_until_idle()
    await durably.signal(run.id, "word", "first")
    await moved(durably, clock, 60)
    first = await finished(durably, run)
    assert first.output[0] == "first"
    fork = await durably.fork(run.id, "nap")
    await durably.process_until_idle()
    assert (await found(durably, fork)).waiting_for == "sleep:nap"
    await moved(durably, clock, 59)
    assert (await found(durably, fork)).waiting_for == "sleep:nap"
    await moved(durably, clock, 1)
    assert (await found(durably, fork)).waiting_for == "signal:word"
    await durably.signal(fork.id, "word", "second")
    second = await finished(durably, fork)
    assert second.output[0] == "second"
    assert second.output[1] != first.output[1]
    await durably.stop()


@contract
async def test_a_fork_sees_the_same_moment_and_the_same_chance() -> None:
    """'the same value on replay': a copy is a replay."""
    seen: list[list[Any]] = []

    async def body(step: StepContext, payload: Any) -> None:
        seen.append([await step.now(), await step.random(), await step.uuid()])
        await step.run("middle", lambda: 1)
        seen[-1].append(await step.random())

    durably, clock, run = await executed(body)
    await clock.advance(1000)
    fork = await finished(durably, await durably.fork(run.id, "middle"))
    assert fork.status == "completed", fork.error
    assert seen[0][:3] == seen[1][:3]
    assert seen[0][3] != seen[1][3]
    await durably.stop()


@contract
async def test_a_forked_transaction_is_not_written_twice() -> None:
    """'exactly once': its copy is completed, and its writes are there."""

    async def body(step: StepContext, payload: Any) -> Any:
        async def write(tx: UserTransaction) -> int:
            await tx.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER)")
            await tx.execute("INSERT INTO mine VALUES (1)")
            return 1

        async def count(tx: UserTransaction) -> Any:
            return (await tx.execute("SELECT count(*) FROM mine"))[0][0]

        await step.transaction("write", write)
        return await step.transaction("count", count)

    durably, _, run = await executed(body)
    assert run.output == 1
    assert (await finished(durably, await durably.fork(run.id, "count"))).output == 1
    assert (await finished(durably, await durably.fork(run.id, "write"))).output == 2
    await durably.stop()


@contract
async def test_a_fork_is_a_run_like_any_other() -> None:
    """It can be cancelled, retried, forked and deleted, and outlives the run that it came from."""
    steps = Steps("fails")
    durably, _ = await opened(":memory:", body_job(steps))
    run = await finished(durably, await durably.jobs.body.trigger(1))
    fork = await durably.fork(run.id, "b")
    await durably.delete_run(run.id)
    assert (await finished(durably, fork)).status == "failed"
    steps.third = "works"
    await durably.retry(fork.id)
    assert (await finished(durably, fork)).output[:2] == ["a1", "b2"]
    second = await finished(durably, await durably.fork(fork.id, "d"))
    assert (second.status, second.output[:3]) == ("completed", (await found(durably, fork)).output[:3])
    await durably.delete_run(fork.id)
    assert [run.id for run in await durably.get_runs()] == [second.id]
    await durably.stop()


@contract
async def test_steps_side_by_side_are_copied_by_where_they_began() -> None:
    """With `asyncio.gather` the order of the names' first use is what 'before' means, not who ended first."""
    release = asyncio.Event()
    calls: list[str] = []

    async def slow() -> str:
        calls.append("slow")
        await release.wait()
        return "slow"

    async def fast() -> str:
        calls.append("fast")
        release.set()
        return "fast"

    @job
    async def side_by_side(step: StepContext, payload: int) -> list[str]:
        return list(await asyncio.gather(step.run("slow", slow), step.run("fast", fast)))

    durably, _ = await opened(":memory:", side_by_side)
    run = await finished(durably, await durably.jobs.side_by_side.trigger(1))
    fork = await durably.fork(run.id, "fast")
    assert [step.name for step in await durably.get_steps(fork.id)] == ["slow"]
    assert (await finished(durably, fork)).output == ["slow", "fast"]
    assert calls == ["slow", "fast", "fast"]
    await durably.stop()
