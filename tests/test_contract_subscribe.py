"""API.md section 6: `subscribe`, first the present state of a run, then what happens, up to its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract_kit import body_job, contract, echo, finished, found, moved, opened, quick, types, until, watched

from durably import Event, NotFoundError, Progress, Run, StepContext


async def collected(durably: Any, run: Run[Any] | str) -> list[Any]:
    """All that a subscription to the run tells, to its end."""
    return [event async for event in durably.subscribe(run if isinstance(run, str) else run.id)]


async def followed(durably: Any, run: Run[Any]) -> tuple[list[Any], asyncio.Task[None]]:
    """What a subscription tells, a list that grows, and the subscription; returns when the first event is told."""
    events: list[Any] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async for event in durably.subscribe(run.id):
            events.append(event)
            begun.set()

    following = asyncio.create_task(follow())
    await begun.wait()
    return events, following


async def life(step: StepContext, payload: Any) -> Any:
    await step.run("first", lambda: 1)
    step.progress(1, 2)
    if payload == "fails":
        raise ValueError("no luck")
    if payload == "waits":
        await step.wait_for_signal("go")
    return payload


@pytest.mark.parametrize(
    ("payload", "end"), [("completes", "run:complete"), ("fails", "run:fail"), ("waits", "run:cancel")]
)
@contract
async def test_a_run_that_has_ended_tells_its_end_and_nothing_more(payload: str, end: str) -> None:
    """'first the present state, then live, ends at a terminal event'"""
    durably, _ = await opened(":memory:", body_job(life))
    run = await finished(durably, await durably.jobs.body.trigger(payload, labels={"a": "b"}))
    if payload == "waits":
        await durably.cancel(run.id)
    [event] = await collected(durably, run)
    assert isinstance(event, Event)
    assert (event.type, event.run_id, event.job_name, event.labels) == (end, run.id, "body", {"a": "b"})
    if end == "run:complete":
        assert event.output == "completes"
    if end == "run:fail":
        assert event.error == "no luck"
    await durably.stop()


@contract
async def test_a_pending_run_tells_that_first_then_all_that_happens() -> None:
    """'No event between is missed', each once, in order."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await durably.jobs.body.trigger("completes")
    events, following = await followed(durably, run)
    heard = watched(durably)
    await durably.process_until_idle()
    await following
    assert types(events) == [
        "run:trigger", "run:start", "step:start", "step:complete", "run:progress", "run:complete",
    ]  # fmt: skip
    assert events[1:] == heard
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)
    await durably.stop()


@contract
async def test_a_run_that_waits_is_active_and_tells_its_end_later() -> None:
    """A subscription lasts as long as the run, waits included."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await finished(durably, await durably.jobs.body.trigger("waits"))
    events, following = await followed(durably, run)
    await durably.signal(run.id, "go")
    await durably.process_until_idle()
    await following
    assert types(events)[-2:] == ["step:complete", "run:complete"]
    assert events[0].type in ("run:trigger", "run:start")
    await durably.stop()


@contract
async def test_a_running_run_tells_that_it_runs_and_how_far_it_is() -> None:
    """'first the present state': started, with the progress that it has made."""
    here, go = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        here.set()
        await go.wait()

    async def body(step: StepContext, payload: Any) -> None:
        step.progress(3, 4, "nearly")
        await step.run("saved", lambda: 1)
        await step.run("held", held)

    async with quick(":memory:", body_job(body)) as durably:
        run = await durably.jobs.body.trigger(1)
        await here.wait()
        events, following = await followed(durably, run)
        await until(lambda: len(events) >= 2)
        assert types(events) == ["run:start", "run:progress"]
        assert events[1].progress == Progress(3, 4, "nearly")
        assert events[0].payload == 1
        assert events[0].worker_id
        go.set()
        await following
        assert types(events)[2:] == ["step:complete", "run:complete"]


@contract
async def test_a_subscription_hears_of_its_own_run_only() -> None:
    """`subscribe(run_id)`: what other runs do is theirs."""
    durably, _ = await opened(":memory:", body_job(life), echo)
    run = await durably.jobs.body.trigger("completes")
    others = await durably.jobs.echo.batch_trigger([1, 2, 3])
    events, following = await followed(durably, run)
    await durably.process_until_idle()
    await following
    assert {event.run_id for event in events} == {run.id}
    assert [(await found(durably, other)).status for other in others] == ["completed"] * 3
    await durably.stop()


@contract
async def test_what_is_heard_while_the_end_is_read_is_told_before_it() -> None:
    """'No event between is missed': the run begins and ends while a subscription and a waiter look at its row."""

    async def body(step: StepContext, payload: Any) -> None:
        step.log.info("first")
        step.progress(1, 2)
        step.log.info("last")

    durably, _ = await opened(":memory:", body_job(body))
    run = await durably.jobs.body.trigger(1)
    heard, look, ended = watched(durably), durably._run_and_failed_step, asyncio.Event()

    async def look_late(run_id: str) -> Any:
        await ended.wait()
        return await look(run_id)

    durably._run_and_failed_step = look_late  # type: ignore[method-assign]  # to act while it looks
    progress: list[Any] = []
    logs: list[Any] = []
    waiting = asyncio.ensure_future(durably.wait_for_run(run.id, on_progress=progress.append, on_log=logs.append))
    following = asyncio.ensure_future(collected(durably, run))
    await asyncio.sleep(0)
    await durably.process_until_idle()
    ended.set()
    events = await following
    assert types(events) == ["run:start", "log:write", "run:progress", "log:write", "run:complete"]
    assert events[:-1] == heard[:-1]
    await waiting
    assert logs == [event for event in heard if event.type == "log:write"]
    assert progress == [Progress(1, 2)]
    await durably.stop()


@contract
async def test_an_unknown_run_cannot_be_subscribed_to() -> None:
    """'Unknown id: `NotFoundError`, `subscribe` included'"""
    durably, _ = await opened()
    with pytest.raises(NotFoundError):
        await collected(durably, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    await durably.stop()


@contract
async def test_leaving_a_subscription_early_leaves_nothing_behind() -> None:
    """`break` is how a program has heard enough; the run and the other listeners go on."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await durably.jobs.body.trigger("completes")
    subscription = durably.subscribe(run.id)
    async for event in subscription:
        assert event.type == "run:trigger"
        break
    await subscription.aclose()
    done = await finished(durably, run)
    assert done.status == "completed"
    assert types(await collected(durably, run)) == ["run:complete"]
    await durably.stop()


@contract
async def test_ten_subscriptions_hear_the_same() -> None:
    """Every subscriber hears every event, however slow another one is."""
    async with quick(":memory:", body_job(life)) as durably:
        run = await durably.jobs.body.trigger("waits")
        slow: list[str] = []
        taken = asyncio.Event()
        await until(lambda: _waits(durably, run))

        async def slowly() -> None:
            async for event in durably.subscribe(run.id):
                slow.append(event.type)
                taken.set()
                await release.wait()

        release = asyncio.Event()
        slow_one = asyncio.ensure_future(slowly())
        await taken.wait()
        quick_ones = [await followed(durably, run) for _ in range(9)]
        await durably.signal(run.id, "go")
        await asyncio.gather(*(following for _, following in quick_ones))
        assert len(slow) == 1
        release.set()
        await slow_one
    assert slow[-2:] == ["step:complete", "run:complete"]
    assert all(types(events) == slow for events, _ in quick_ones)


async def _waits(durably: Any, run: Run[Any]) -> bool:
    return (await found(durably, run)).waiting_for is not None


@contract
async def test_a_retried_run_is_followed_to_its_next_end() -> None:
    """A subscription begun after `retry` tells the new attempt."""
    durably, _ = await opened(":memory:", body_job(life))
    run = await finished(durably, await durably.jobs.body.trigger("fails"))
    await durably.retry(run.id)
    events, following = await followed(durably, run)
    await durably.process_until_idle()
    await following
    assert events[0].type in ("run:retry", "run:trigger")
    assert types(events, without=("run:progress",))[1:] == ["run:start", "run:fail"]
    await durably.stop()


@contract
async def test_a_run_of_another_process_is_followed_by_what_the_store_says(tmp_path: Path) -> None:
    """Whoever executes it, its state comes first and its end ends the subscription."""
    worker, clock = await opened(tmp_path / "a.sqlite3", body_job(life))
    reader, _ = await opened(tmp_path / "a.sqlite3", clock=clock)
    run = await worker.jobs.body.trigger("completes")
    events, following = await followed(reader, run)
    await worker.process_until_idle()
    while not following.done():
        await moved(worker, clock, 1)
    await following
    assert (types(events)[0], types(events)[-1]) == ("run:trigger", "run:complete")
    assert events[-1].output == "completes"
    await worker.stop()
    await reader.stop()


def _fails() -> None:
    raise ValueError("no luck")


async def breaks_in_a_step(step: StepContext, payload: Any) -> None:
    await step.run("first", lambda: 1)
    await step.run("second", _fails)


@contract
async def test_who_did_not_hear_a_run_fail_is_told_in_which_step_all_the_same(tmp_path: Path) -> None:
    """'`run:fail` error, failed_step_name', whether it is told live, afterwards or by the store."""
    worker, clock = await opened(tmp_path / "a.sqlite3", body_job(breaks_in_a_step))
    reader, _ = await opened(tmp_path / "a.sqlite3", clock=clock)
    since = datetime(2020, 1, 1, tzinfo=UTC)
    run = await worker.jobs.body.trigger(1)
    live, following_live = await followed(worker, run)
    elsewhere, following = await followed(reader, run)
    await worker.process_until_idle()
    while not following.done():
        await moved(worker, clock, 1)
    await following_live
    await following
    afterwards = await collected(worker, run)
    missed = [event async for event in reader.present_events(since)]
    for events in (live, elsewhere, afterwards, missed):
        assert (events[-1].type, events[-1].error, events[-1].failed_step_name) == ("run:fail", "no luck", "second")
    await worker.stop()
    await reader.stop()
