"""What instances on one database tell each other, and what they make of it, without a browser.

Two instances in one process share a file; what would be a BroadcastChannel between tabs is a list of listeners here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from contract_kit import contract, found, types, until, watched

from durably import Durably, StepContext, create_durably, define_job
from durably import engine as engine_module
from durably.clock import EpochMs, SystemClock
from durably.liveness import HeartbeatOnly, Silence
from durably.neighbours import message
from durably.testing import ManualClock


class Ether:
    """Carries texts between the instances of a test. What is sent while it is `held` arrives at `release`."""

    def __init__(self) -> None:
        self.listeners: dict[object, Callable[[str], None]] = {}
        self.is_held = False
        self._late: list[tuple[object, str]] = []

    def say(self, sender: object, text: str) -> None:
        if self.is_held:
            self._late.append((sender, text))
            return
        for owner, hear in [*self.listeners.items()]:
            if owner is not sender:
                asyncio.get_running_loop().call_soon(hear, text)

    def release(self) -> None:
        self.is_held = False
        late, self._late = self._late, []
        for sender, text in late:
            self.say(sender, text)

    def forget(self) -> None:
        """What is under way is lost."""
        self._late.clear()


class Line:
    """One instance's end of it."""

    def __init__(self, ether: Ether) -> None:
        self._ether = ether

    def open(self, hear: Callable[[str], None]) -> None:
        self._ether.listeners[self] = hear

    def send(self, text: str) -> None:
        self._ether.say(self, text)

    def close(self) -> None:
        self._ether.listeners.pop(self, None)


@pytest.fixture
def ether(monkeypatch: pytest.MonkeyPatch) -> Ether:
    """What every instance of the test is connected to."""
    ether = Ether()
    monkeypatch.setattr(engine_module, "_surroundings", lambda _: (HeartbeatOnly(), Line(ether)))
    return ether


class SetClock(SystemClock):
    """The machine's clock, which a test may set."""

    def __init__(self) -> None:
        self.wrong_by = timedelta()

    def now(self) -> EpochMs:
        return EpochMs(super().now() + self.wrong_by // timedelta(milliseconds=1))


def instance(path: Path, body: Any, **options: Any) -> Durably:
    options = {"polling_interval": 0.05, "heartbeat_interval": 2.0, "stale_threshold": 20.0} | options
    return create_durably(path / "shared.sqlite3", jobs=[define_job(name="body", input=Any, run=body)], **options)


async def quick_body(step: StepContext, payload: Any) -> Any:
    return await step.run("one", lambda: payload)


# -- messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"durably":1,"kind":"signal"}',
        '{"durably":1,"from":["x"],"kind":"hello"}',
        '{"durably":1,"from":"x","kind":["hello"]}',
        '{"durably":1,"from":"x","kind":"signal","run_id":7}',
        message("x", "event", type="run:nonsense", at=1, facts={}),
        message("x", "event", type="run:cancel", at=1, facts=[]),
        message("x", "event", type="run:cancel", at=1, facts={"evil": "[1]"}),
        message("x", "event", type="run:cancel", at=1, facts={"run_id": "not json"}),
        message("x", "event", type="run:cancel", at=1, facts={"run_id": "[1]"}),
        message("x", "event", type="run:cancel", at=1, facts={"run_id": '["r"]', "labels": "[[1]]"}),
        message("x", "event", type="run:cancel", at=10**30, facts={"run_id": '["r"]'}),
        message("x", "event", type="run:cancel", at=float("inf"), facts={"run_id": '["r"]'}),
        message("x", "event", type="run:cancel", at="soon", facts={"run_id": '["r"]'}),
        '{"durably":1,' + "[" * 5000,
        '{"durably":1,"a":' + "[" * 100_000,
        '{"durably":99,"from":"x","kind":"hello"}',
        "42",
    ],
)
@contract
async def test_a_message_that_is_not_made_as_ours_is_ignored(ether: Ether, tmp_path: Path, text: str) -> None:
    """Anything of the same origin may write to the channel; nothing of that may reach a listener or break one."""
    async with instance(tmp_path, quick_body) as durably:
        events = watched(durably)
        errors: list[BaseException] = []
        durably.on_error(lambda error: errors.append(error))
        for hear in ether.listeners.values():
            hear(text)
        assert events == []
        run = await durably.jobs.body.trigger(1)
        await durably.wait_for_run(run.id)
        assert {event.run_id for event in events} == {run.id}
        assert errors == []


@contract
async def test_what_its_own_page_says_in_its_name_makes_nobody_a_neighbour(ether: Ether, tmp_path: Path) -> None:
    """A page answers for its worker, which may be busy; a neighbour of itself would tell every event for ever."""
    async with instance(tmp_path, quick_body) as durably:
        said: list[str] = []
        listener = Line(ether)
        listener.open(said.append)
        for hear in [*ether.listeners.values()]:
            hear(message(durably.worker_id, "here"))
        run = await durably.jobs.body.trigger(1)
        await durably.wait_for_run(run.id)
        assert not any('"kind":"event"' in text for text in said), said
        for hear in [*ether.listeners.values()]:
            hear(message("another", "here"))
        run = await durably.jobs.body.trigger(1)
        await durably.wait_for_run(run.id)
        assert any('"kind":"event"' in text for text in said)


@contract
async def test_two_cancels_that_come_close_together_both_stop_their_steps_at_once(ether: Ether, tmp_path: Path) -> None:
    """The second comes while the store is being asked about the first; it must not wait for the next heartbeat."""
    at_work: list[Any] = []
    stopped: list[Any] = []

    async def body(step: StepContext, payload: Any) -> None:
        async def forever() -> None:
            at_work.append(payload)
            try:
                await asyncio.sleep(60)
            finally:
                stopped.append(payload)

        await step.run("forever", forever)

    working = instance(tmp_path, body, heartbeat_interval=10.0, max_concurrent_runs=2)
    async with working:
        other = instance(tmp_path, quick_body)  # which executes nothing itself
        await other.migrate()
        store = working._services.store
        asked, second_is_cancelled = asyncio.Event(), asyncio.Event()
        heartbeat = store.heartbeat

        async def slow_heartbeat(*args: Any) -> Any:
            lost = await heartbeat(*args)
            asked.set()
            await second_is_cancelled.wait()
            return lost

        runs = [await working.jobs.body.trigger(number) for number in (1, 2)]
        await until(lambda: len(at_work) == 2)
        store.heartbeat = slow_heartbeat  # type: ignore[method-assign]
        await other.cancel(runs[0].id)
        await asked.wait()
        await other.cancel(runs[1].id)
        await asyncio.sleep(0)
        second_is_cancelled.set()
        await until(lambda: sorted(stopped) == [1, 2], seconds=3)
        await other.stop()


@contract
async def test_news_that_comes_all_the_time_does_not_keep_a_worker_from_claiming(ether: Ether, tmp_path: Path) -> None:
    """A neighbour that is busy with jobs of its own says every few milliseconds that it takes the next one itself."""
    async with instance(tmp_path, quick_body) as durably:
        ends = message("x", "event", type="run:cancel", at=1, facts={"run_id": '["of-another-job"]'}, taken=True)

        async def chatter() -> None:
            while True:
                for hear in ether.listeners.values():
                    hear(ends)
                await asyncio.sleep(0.005)

        chattering = asyncio.create_task(chatter())
        run = await durably.jobs.body.trigger(1)
        done = await durably.wait_for_run(run.id, timeout=2)
        chattering.cancel()
        assert done.output == 1


# -- a clock that is set -------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1])
@contract
async def test_what_is_due_stays_due_when_the_clock_is_set(ether: Ether, tmp_path: Path, hours: int) -> None:
    clock, go = SetClock(), asyncio.Event()

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("wait", go.wait)
        return payload

    async with instance(tmp_path, body, clock=clock) as durably, instance(tmp_path, quick_body, clock=clock) as other:
        # News from a neighbour gives that one a head start, measured in time that passes, not in what clocks say.
        for hear in ether.listeners.values():
            hear(message("x", "event", type="run:cancel", at=1, facts={"run_id": '["r"]'}, taken=True))
        await other.stop()
        runs = [await durably.jobs.body.trigger(number) for number in range(3)]
        await until(lambda: found_running(durably))
        following = asyncio.create_task(collected(durably, runs[2].id))

        clock.wrong_by = timedelta(hours=hours)
        go.set()

        for number, run in enumerate(runs):
            done = await durably.wait_for_run(run.id, timeout=4)
            assert (done.output, done.generation) == (number, 1)
        assert types(await following)[-1] == "run:complete"
        late = await durably.jobs.body.trigger("late")
        assert (await durably.wait_for_run(late.id, timeout=4)).output == "late"


@contract
async def test_a_run_that_was_stored_before_the_clock_was_set_back_is_due_for_whoever_starts_after(
    ether: Ether, tmp_path: Path
) -> None:
    clock = ManualClock()
    before = instance(tmp_path, quick_body, clock=clock)
    await before.migrate()
    await clock.advance(3600)
    run = await before.jobs.body.trigger(1)
    delayed = await before.jobs.body.trigger(2, delay=60)
    await before.stop()

    after = instance(tmp_path, quick_body, clock=ManualClock())
    await after.migrate()
    assert await after.process_until_idle() == 1

    assert (await found(after, run)).output == 1
    assert (await found(after, delayed)).status == "pending"
    await after.stop()


async def found_running(durably: Durably) -> bool:
    return bool(await durably.get_runs(status="running"))


# -- following a run of a neighbour --------------------------------------------------------------------


async def collected(durably: Durably, run_id: str) -> list[Any]:
    return [event async for event in durably.subscribe(run_id)]


@contract
async def test_a_subscriber_waits_for_the_last_messages_when_the_row_is_faster(ether: Ether, tmp_path: Path) -> None:
    """The row says that the run has ended while the events of its last steps are under way."""
    go = asyncio.Event()

    async def body(step: StepContext, payload: Any) -> Any:
        await step.run("first", go.wait)
        step.progress(1, 2)
        await step.run("second", lambda: 2)
        return "done"

    async with instance(tmp_path, body) as working:
        clock = ManualClock(datetime.now(UTC))
        other = instance(tmp_path, quick_body, polling_interval=0.1, clock=clock)
        await other.migrate()
        run = await working.jobs.body.trigger(1)
        following = asyncio.create_task(collected(other, run.id))
        await until(lambda: found_running(working))
        await asyncio.sleep(0.05)
        ether.is_held = True
        go.set()
        await until(lambda: ended(working, run.id))
        await clock.advance(0.1)  # it looks into the row, and finds the end
        ether.release()
        events = await following

        told = [kind for kind in types(events) if kind not in ("run:trigger", "run:start", "step:start")]
        assert told == ["step:complete", "run:progress", "step:complete", "run:complete"]
        assert types(events).count("run:start") <= 1
        await other.stop()


@contract
async def test_progress_of_a_neighbours_run_never_goes_back(ether: Ether, tmp_path: Path) -> None:
    """Messages that come after the row was read tell of what is in the row already."""
    stages = [asyncio.Event() for _ in range(2)]

    async def body(step: StepContext, payload: Any) -> Any:
        step.progress(1)
        await step.run("a", lambda: 1)
        step.progress(2)
        await step.run("b", lambda: 1)
        await stages[0].wait()
        step.progress(3)
        await stages[1].wait()

    async with instance(tmp_path, body) as working:
        other = instance(tmp_path, quick_body)
        await other.migrate()
        await asyncio.sleep(0.01)
        ether.is_held = True
        run = await working.jobs.body.trigger(1)
        await until(lambda: progress_is(working, run.id, 2))
        events: list[Any] = []

        async def follow() -> None:
            async for event in other.subscribe(run.id):
                events.append(event)

        following = asyncio.create_task(follow())
        await until(lambda: "run:progress" in types(events))
        ether.release()
        await asyncio.sleep(0.01)
        stages[0].set()
        await until(lambda: events[-1].type == "run:progress" and events[-1].progress.current == 3)
        stages[1].set()
        await following

        assert [event.progress.current for event in events if event.type == "run:progress"] == [2, 3]
        await other.stop()


@contract
async def test_the_end_is_told_even_if_no_message_comes(ether: Ether, tmp_path: Path) -> None:
    async with instance(tmp_path, quick_body) as working:
        other = instance(tmp_path, quick_body)
        await other.migrate()
        await asyncio.sleep(0.01)
        ether.is_held = True
        run = await working.jobs.body.trigger(1)
        events = await collected(other, run.id)
        ether.forget()
        assert types(events)[-1] == "run:complete"
        await other.stop()


async def ended(durably: Durably, run_id: str) -> bool:
    run = await durably.get_run(run_id)
    return run is not None and run.is_terminal


async def progress_is(durably: Durably, run_id: str, current: float) -> bool:
    run = await durably.get_run(run_id)
    return run is not None and run.progress is not None and run.progress.current == current


# -- silence -------------------------------------------------------------------------------------------


class Passing:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def silence() -> tuple[Silence, Passing]:
    passing = Passing()
    return Silence(passing), passing


def look(silence: Silence, passing: Passing, seconds: float, beat: int, *, every: float = 0.1) -> set[str]:
    """Look every so often for so long; what the last look says."""
    last: set[str] = set()
    for _ in range(round(seconds / every)):
        passing.seconds += every
        last = silence.longer_than({"w": EpochMs(beat)}, 3)
    return last


def test_a_worker_is_suspended_after_the_threshold_and_not_before() -> None:
    heard, passing = silence()
    assert not look(heard, passing, 3.0, beat=1), "the first look only takes note of the heartbeat"
    assert look(heard, passing, 0.2, beat=1) == {"w"}


def test_a_heartbeat_or_a_pulse_begins_the_silence_anew() -> None:
    heard, passing = silence()
    look(heard, passing, 2.9, beat=1)
    assert not look(heard, passing, 2.9, beat=2)
    heard.note_alive("w")
    assert not look(heard, passing, 2.9, beat=2)
    assert look(heard, passing, 0.3, beat=2) == {"w"}


def test_time_in_which_we_could_hear_nobody_does_not_count() -> None:
    """We were suspended or blocked for a day ourselves: that says nothing of the other."""
    heard, passing = silence()
    look(heard, passing, 1.0, beat=1)
    assert not look(heard, passing, 86_400, beat=1, every=86_400)
    assert not look(heard, passing, 0.5, beat=1)


def test_a_clock_that_is_set_makes_nobody_silent() -> None:
    """Heartbeats are compared with each other, whether they go forth or back, and never with the time."""
    heard, passing = silence()
    for beat in (1, 3_600_000, 5, 4):
        assert not look(heard, passing, 2.9, beat=beat)


def test_a_worker_that_comes_back_is_not_blamed_for_its_silence_before() -> None:
    heard, passing = silence()
    assert look(heard, passing, 4, beat=1) == {"w"}
    passing.seconds += 0.1
    assert heard.longer_than({}, 3) == set()
    assert not look(heard, passing, 2.9, beat=2)
