"""Server-sent events: what is told, again after a break, and what is left behind when nobody listens any more."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract_kit import contract, echo, opened, until
from http_server import Site, Told, events, in_thread

import durably.http.sse
import durably.management
from durably import Durably, StepContext, create_durably, job
from durably.events import Event, LogWritten, RunCompleted, RunDeleted, RunProgressed, StepStarted
from durably.http import DurablyHandler, Request, Response, create_durably_handler
from durably.http.asgi import durably_app
from durably.http.throttle import Throttle
from durably.records import Progress
from durably.testing import ManualClock

BASE = "/api/durably"
TERMINAL = {"run:complete", "run:fail", "run:cancel"}


@job
async def waits(step: StepContext, payload: Any) -> Any:
    step.progress(1, 2, "half")
    return await step.wait_for_signal("go")


@job
async def counts(step: StepContext, payload: int) -> None:
    for n in range(payload):
        step.progress(n + 1, payload)
        await step.run(f"step-{n}", asyncio.sleep, 0)


@job
async def hangs(step: StepContext, payload: Any) -> None:
    await step.run("hang", asyncio.Event().wait)


@job
async def chats(step: StepContext, payload: int) -> None:
    for n in range(payload):
        step.log.info(f"line {n}")


@job
async def breaks(step: StepContext, payload: Any) -> None:
    raise ValueError("no luck")


JOBS = [echo, waits, counts, hangs, chats, breaks]


def listeners(durably: Durably) -> int:
    """How many functions the bus calls for events."""
    return sum(map(len, durably._services.bus._listeners.values()))


class Reader:
    """Reads a stream of the handler in the background, and counts what comes."""

    def __init__(self, response: Response) -> None:
        assert response.status == 200
        assert not isinstance(response.body, bytes)
        self.body: AsyncIterator[bytes] = response.body
        self.frames: list[bytes] = []
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for frame in self.body:
            self.frames.append(frame)

    @property
    def told(self) -> list[Told]:
        return [parsed(frame) for frame in b"".join(self.frames).split(b"\n\n") if frame.startswith(b"id:")]

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.told]

    async def until(self, kind: str) -> int:
        """The id of the first event of this type."""
        await until(lambda: kind in self.types)
        return next(event_id for event_id, event in self.told if event["type"] == kind)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.body.aclose()


def parsed(frame: bytes) -> Told:
    first, second = frame.decode().split("\n")
    assert (first[:4], second[:6]) == ("id: ", "data: ")
    return int(first[4:]), json.loads(second[6:])


async def ask(handler: DurablyHandler, url: str, heard: int | None = None) -> Response:
    return await handler.handle(Request("GET", url, {} if heard is None else {"Last-Event-ID": str(heard)}))


async def site(**options: Any) -> tuple[Durably, ManualClock, DurablyHandler]:
    durably, clock = await opened(":memory:", *JOBS)
    return durably, clock, create_durably_handler(durably, **options)


# --- the throttle -----------------------------------------------------------------------------------

START = ManualClock().now()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def said(current: int, run_id: str = "a") -> RunProgressed:
    return RunProgressed(timestamp=NOON, sequence=current, run_id=run_id, progress=Progress(current, None, None))


def at(milliseconds: int) -> Any:
    return START + milliseconds


def test_of_progress_the_first_is_told_at_once_and_the_newest_after_the_interval() -> None:
    throttle = Throttle(100)
    assert throttle.take(said(1), at(0)) == [said(1)]
    assert [throttle.take(said(n), at(n)) for n in range(2, 50)] == [[]] * 48
    assert throttle.next_at == at(100)
    assert throttle.due(at(99)) == []
    assert throttle.due(at(100)) == [said(49)]
    assert throttle.next_at is None
    assert throttle.take(said(50), at(101)) == []
    assert throttle.next_at == at(200)
    assert throttle.take(said(51), at(200)) == [said(51)]
    assert throttle.next_at is None


def test_the_last_progress_is_told_before_the_end() -> None:
    throttle = Throttle(100)
    ended = RunCompleted(timestamp=NOON, sequence=9, run_id="a", output=1, duration=1.0)
    for n in (1, 2, 3):
        throttle.take(said(n), at(0))
    assert throttle.take(ended, at(1)) == [said(3), ended]
    assert throttle.next_at is None
    assert throttle.take(said(4), at(2)) == [said(4)], "a retried run begins anew"


@pytest.mark.parametrize("kind", [RunCompleted, RunDeleted])
def test_of_runs_that_are_over_nothing_is_kept(kind: type[Event]) -> None:
    throttle = Throttle(100)
    facts = {"output": 1, "duration": 1.0} if kind is RunCompleted else {}
    for n in range(1000):
        throttle.take(said(n, f"run-{n}"), at(0))
        throttle.take(said(n, f"run-{n}"), at(0))
        throttle.take(kind(timestamp=NOON, sequence=n, run_id=f"run-{n}", **facts), at(0))
    assert (throttle._told_at, throttle._held) == ({}, {})


def test_runs_do_not_hold_up_each_other_and_steps_are_not_held_up() -> None:
    throttle = Throttle(100)
    started = StepStarted(timestamp=NOON, sequence=3, run_id="a", step_name="x", step_index=0)
    assert throttle.take(said(1), at(0)) == [said(1)]
    assert throttle.take(said(1, "b"), at(50)) == [said(1, "b")]
    assert throttle.take(said(2), at(60)) == []
    assert throttle.take(said(2, "b"), at(60)) == []
    assert throttle.take(started, at(60)) == [started]
    assert throttle.next_at == at(100)
    assert throttle.due(at(100)) == [said(2)]
    assert throttle.due(at(150)) == [said(2, "b")]


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    throttle = Throttle(100)
    throttle.take(said(1), at(10_000))
    assert throttle.take(said(2), at(0)) == [said(2)]
    throttle.take(said(3), at(50))
    assert throttle.due(at(-10_000)) == [said(3)]


def test_without_an_interval_all_is_told() -> None:
    throttle = Throttle(0)
    assert [throttle.take(said(n), at(0)) for n in range(5)] == [[said(n)] for n in range(5)]


@contract
async def test_a_stream_tells_the_first_and_the_last_progress_and_one_in_each_interval() -> None:
    durably, clock, handler = await site(sse_throttle=0.1)
    reader = Reader(await ask(handler, "/runs/subscribe"))
    await durably.jobs.counts.trigger(50)
    await durably.process_one()
    await reader.until("run:complete")
    told = [event["progress"]["current"] for _, event in reader.told if event["type"] == "run:progress"]
    assert told == [1, 50]
    assert reader.types[-2:] == ["run:progress", "run:complete"]

    run = await durably.jobs.waits.trigger(0)
    await durably.process_one()
    bus = durably._services.bus
    for n in range(3, 9):
        bus.emit(RunProgressed, run_id=run.id, progress=Progress(n, None, None))

    def current() -> Any:
        return [event["progress"]["current"] for _, event in reader.told if "progress" in event][-1]

    await clock.advance(0.099)
    assert current() == 1
    await clock.advance(0.001)
    await until(lambda: current() == 8)
    await reader.close()
    await durably.stop()


@contract
async def test_a_comment_shows_that_a_silent_stream_is_alive() -> None:
    durably, clock, handler = await site(sse_heartbeat=15)
    run = await durably.jobs.echo.trigger(1)
    readers = [Reader(await ask(handler, url)) for url in ("/runs/subscribe", f"/subscribe?runId={run.id}")]
    await until(lambda: readers[1].types == ["run:trigger"])
    for reader in readers:
        assert reader.frames[0].startswith(b": ")
        assert b"retry: 1000\n" in reader.frames[0]
    await clock.advance(14.9)
    assert [b": alive\n\n" in reader.frames for reader in readers] == [False, False]
    await clock.advance(0.1)
    await until(lambda: all(b": alive\n\n" in reader.frames for reader in readers))
    await clock.advance(15)
    await until(lambda: all(reader.frames.count(b": alive\n\n") == 2 for reader in readers))
    for reader in readers:
        await reader.close()
    await durably.stop()


# --- ids, and coming back ---------------------------------------------------------------------------


@contract
async def test_ids_grow_though_time_stands_still_or_is_set_back() -> None:
    durably, clock, handler = await site(sse_throttle=0)
    reader = Reader(await ask(handler, "/runs/subscribe"))
    await durably.jobs.counts.trigger(400)
    await durably.process_one()
    clock._now -= 5000
    await durably.jobs.echo.trigger(1)
    await durably.process_one()
    await until(lambda: reader.types.count("run:complete") == 2)
    ids = [event_id for event_id, _ in reader.told]
    assert len(ids) > 1200
    assert ids == sorted(set(ids))
    await reader.close()
    await durably.stop()


@contract
async def test_who_comes_back_to_a_run_is_told_its_present_state() -> None:
    durably, clock, handler = await site()
    run = await durably.jobs.waits.trigger(0)
    url = f"/subscribe?runId={run.id}"
    first = Reader(await ask(handler, url))
    await durably.process_one()
    heard = await first.until("run:progress")
    await first.close()
    second = Reader(await ask(handler, url, heard))
    await until(lambda: second.types == ["run:trigger", "run:progress"])  # it waits, so it is pending
    await second.close()

    await clock.advance(1)
    await durably.signal(run.id, "go", "gone")
    await durably.process_until_idle()
    third = Reader(await ask(handler, url, heard))
    await third.task
    assert [(event["type"], event["output"]) for _, event in third.told] == [("run:complete", "gone")]
    assert third.told[0][0] > heard
    await durably.stop()


@pytest.mark.parametrize("end", ["run:complete", "run:fail", "run:cancel"])
@pytest.mark.parametrize("moves", [True, False])
@contract
async def test_who_has_heard_the_end_is_told_to_stay_away(end: str, *, moves: bool) -> None:
    """And nobody else: the end that was heard may be one before a retry."""
    durably, clock, handler = await site()
    name = {"run:complete": "echo", "run:fail": "breaks", "run:cancel": "waits"}[end]

    async def to_the_end() -> None:
        await durably.process_until_idle()
        if moves:
            await clock.advance(2)
        if end == "run:cancel":
            await durably.cancel(run.id)

    run = await durably.jobs[name].trigger(1)
    url = f"/subscribe?runId={run.id}"
    reader = Reader(await ask(handler, url))
    await to_the_end()
    await reader.task
    *before, (heard, last) = reader.told
    assert last["type"] == end
    response = await ask(handler, url, heard)
    assert (response.status, response.body, dict(response.headers)) == (204, b"", {})
    for each in [*(event_id for event_id, _ in before), heard - 1, 1]:
        again = Reader(await ask(handler, url, each))
        await again.task
        assert again.types == [end]

    if end != "run:complete":
        await clock.advance(1)
        await durably.retry(run.id)
        back = Reader(await ask(handler, url, heard))
        await until(lambda: back.types)
        await clock.advance(1)
        await to_the_end()
        await back.task
        assert back.types[-1] == end
        assert (await ask(handler, url, back.told[-1][0])).status == 204
        late = Reader(await ask(handler, url, heard))
        await late.task
        assert late.types == [end]
    await durably.stop()


@contract
async def test_who_heard_how_a_step_was_cancelled_has_not_heard_that_the_run_was() -> None:
    """The step's end is told before the run's, and later than the run's end is dated."""
    durably, clock, handler = await site()
    run = await durably.jobs.hangs.trigger(0)
    url = f"/subscribe?runId={run.id}"
    reader = Reader(await ask(handler, url))
    working = asyncio.ensure_future(durably.process_one())
    await reader.until("step:start")
    store = durably._services.store
    put = store.put_cancelled_step

    async def put_slowly(*arguments: Any) -> Any:
        await clock.advance(0.5)
        return await put(*arguments)

    store.put_cancelled_step = put_slowly  # type: ignore[method-assign]
    await durably.cancel(run.id)
    await reader.task
    await working
    assert reader.types[-2:] == ["step:cancel", "run:cancel"]
    again = Reader(await ask(handler, url, reader.told[-2][0]))
    await again.task
    assert again.types == ["run:cancel"]
    assert (await ask(handler, url, reader.told[-1][0])).status == 204
    await durably.stop()


@contract
async def test_who_comes_back_to_all_runs_is_told_of_those_that_ended_and_of_those_at_work() -> None:
    durably, clock, handler = await site()
    long_ago = await durably.jobs.echo.trigger(1, labels={"org": "a"})
    await durably.process_until_idle()
    await clock.advance(60)
    reader = Reader(await ask(handler, "/runs/subscribe?label.org=a"))
    runs = {}
    for org in "ab":
        for name in ("echo", "breaks", "waits", "counts"):
            runs[org, name] = await durably.jobs[name].trigger(1, labels={"org": org})
    heard = await reader.until("run:trigger")
    await reader.close()
    await clock.advance(1)
    await durably.process_until_idle()

    back = Reader(await ask(handler, "/runs/subscribe?label.org=a", heard))
    await until(lambda: "run:progress" in back.types)
    told = {event["runId"]: event["type"] for _, event in back.told}
    assert told == {
        runs["a", "echo"].id: "run:complete",
        runs["a", "breaks"].id: "run:fail",
        runs["a", "counts"].id: "run:complete",
        runs["a", "waits"].id: "run:progress",
    }
    assert long_ago.id not in told
    ids = [event_id for event_id, _ in back.told]
    assert ids == sorted(set(ids))
    # And from there on live.
    await durably.signal(runs["a", "waits"].id, "go", 5)
    await durably.process_until_idle()
    await until(lambda: back.told[-1][1].get("output") == 5)
    await back.close()

    both = Reader(await ask(handler, "/runs/subscribe?label.org=b&jobName=echo&jobName=breaks", heard))
    await until(lambda: len(both.told) == 2)
    assert both.types == ["run:complete", "run:fail"]
    await both.close()

    fresh = Reader(await ask(handler, "/runs/subscribe"))
    await clock.advance(1)
    assert fresh.told == []
    await fresh.close()
    await durably.stop()


@contract
async def test_an_end_that_was_stored_later_than_it_is_dated_is_not_missed() -> None:
    """A commit can take its time, and events with later dates may have been heard meanwhile."""
    durably, clock, handler = await site()
    run = await durably.jobs.echo.trigger(1)
    await durably.process_until_idle()
    ended_at = clock.now()
    for later, is_told in ((0, True), (10_000, True), (15_000, True), (15_001, False)):
        reader = Reader(await ask(handler, "/runs/subscribe", (ended_at + later) * 1000))
        await durably.jobs.waits.trigger(0)
        await until(lambda reader=reader: "run:trigger" in reader.types)
        assert (run.id in [event["runId"] for _, event in reader.told]) is is_told
        await reader.close()
    await durably.stop()


@contract
async def test_however_much_was_missed_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than is read at a time, more than a client may be behind, with many ends of others in between, and while
    more happens: a client that is cut off for it would come back to the same."""
    monkeypatch.setattr(durably.management, "_ENDED_AT_ONCE", 7)
    monkeypatch.setattr(durably.http.sse, "MOST_WAITING", 10)
    made, clock, handler = await site()
    for n in range(60):
        await made.jobs.echo.trigger(n, labels={"org": "a" if n % 3 else "b"})
        if n % 2:
            await clock.advance(0.001)
        await made.process_until_idle()
    response = await ask(handler, "/runs/subscribe?label.org=a", 1)
    await made.jobs.echo.trigger(60, labels={"org": "a"})
    await made.process_until_idle()
    reader = Reader(response)
    await until(lambda: len({event["runId"] for _, event in reader.told}) == 41)
    ended = [event["output"] for _, event in reader.told if event["type"] == "run:complete"]
    assert list(dict.fromkeys(ended)) == [n for n in range(61) if n % 3 or n == 60]
    ids = [event_id for event_id, _ in reader.told]
    assert ids == sorted(set(ids))
    await reader.close()
    await made.stop()


@contract
async def test_a_client_that_reads_is_told_all_however_much_is_said_at_once() -> None:
    durably, _, handler = await site()
    every = Reader(await ask(handler, "/runs/subscribe"))
    body = json.dumps({"jobName": "chats", "input": 3000}).encode()
    readers = [every, Reader(await handler.handle(Request("POST", "/trigger/subscribe", {}, body)))]
    [run_id] = [run.id for run in await durably.get_runs()]
    readers.append(Reader(await ask(handler, f"/subscribe?runId={run_id}")))
    await durably.process_until_idle()
    for reader in readers:
        await reader.until("run:complete")
        lines = [event["message"] for _, event in reader.told if event["type"] == "log:write"]
        assert lines == [f"line {n}" for n in range(3000)]
        await reader.close()
    await durably.stop()


@contract
async def test_spans_may_be_timedeltas() -> None:
    durably, clock, handler = await site(sse_throttle=timedelta(milliseconds=250), sse_heartbeat=timedelta(seconds=3))
    reader = Reader(await ask(handler, "/runs/subscribe"))
    await until(lambda: reader.frames)
    for _ in range(2):
        await clock.advance(3)
        await until(lambda: reader.frames[-1] == b": alive\n\n")
        reader.frames.pop()
    with pytest.raises(TypeError, match="seconds or a timedelta"):
        create_durably_handler(durably, sse_throttle="often")  # type: ignore[arg-type]  # what is refused
    await reader.close()
    await durably.stop()


# --- what is left behind ----------------------------------------------------------------------------


@contract
async def test_a_stream_that_is_not_read_or_not_closed_leaves_no_listener_behind() -> None:
    durably, _, handler = await site()
    before = listeners(durably)
    run = await durably.jobs.waits.trigger(0)
    body = json.dumps({"jobName": "echo", "input": 1}).encode()
    requests = [
        Request("GET", "/runs/subscribe"),
        Request("GET", "/runs/subscribe", {"last-event-id": "1"}),
        Request("GET", f"/subscribe?runId={run.id}"),
        Request("POST", "/trigger/subscribe", {}, body),
    ]
    for request in requests:
        for is_read in (False, True):
            for is_closed in (False, True):
                response = await handler.handle(request)
                if is_read:
                    await anext(response.body)  # type: ignore[arg-type]
                if is_closed:
                    await response.body.aclose()
                    assert listeners(durably) == before
                del response
                gc.collect(1)  # they are young
                await until(lambda: listeners(durably) == before)
    gc.collect()
    assert len(handler._streams._feeds) == 0
    await durably.stop()


@contract
async def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    durably, _, handler = await site()
    before = listeners(durably)
    run = await durably.jobs.waits.trigger(0)
    for url in ("/runs/subscribe", f"/subscribe?runId={run.id}"):
        reader = Reader(await ask(handler, url))
        await until(lambda reader=reader: reader.frames)
        await reader.close()
        assert listeners(durably) == before
    await durably.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@contract
async def test_streams_end_when_the_server_is_to_stop() -> None:
    durably, _, handler = await site()
    before = listeners(durably)
    run = await durably.jobs.waits.trigger(0)
    readers = [Reader(await ask(handler, url)) for url in ("/runs/subscribe", f"/subscribe?runId={run.id}")]
    unread = await ask(handler, "/runs/subscribe")
    await until(lambda: readers[1].told)
    handler.end_streams()
    for reader in readers:
        await asyncio.wait_for(reader.task, 10)
    last = Reader(unread)
    await asyncio.wait_for(last.task, 10)
    assert listeners(durably) == before
    again = Reader(await ask(handler, "/runs/subscribe"))
    await durably.jobs.echo.trigger(1)
    await again.until("run:trigger")
    await again.close()
    await durably.stop()


# --- over sockets -----------------------------------------------------------------------------------


@contextmanager
def server(file: str | Path = ":memory:", **options: Any) -> Iterator[tuple[Site, Durably]]:
    durably = create_durably(file, jobs=JOBS, polling_interval=0.02, max_concurrent_runs=4)
    handler = create_durably_handler(durably, **options)
    with in_thread(durably_app(handler, BASE, stop_timeout=0.1), handler) as made:
        yield made, durably


def triggered(site: Site, name: str, payload: Any = None) -> str:
    body = {"jobName": name, "input": payload}
    return str(httpx.post(f"{site.url}{BASE}/trigger", json=body).json()["runId"])


def heard_until(site: Site, path: str, kind: str, heard: int | None = None) -> list[Told]:
    """What a stream tells up to an event of this type."""
    told = []
    headers = {} if heard is None else {"last-event-id": str(heard)}
    with httpx.stream("GET", f"{site.url}{BASE}{path}", headers=headers, timeout=20) as response:
        for event_id, event in events(response):
            told.append((event_id, event))
            if event["type"] == kind:
                return told
    raise AssertionError(f"no {kind} among {told}")


def wait(condition: Any, seconds: float = 10) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not become true")


def test_a_client_goes_on_when_the_server_was_started_anew(tmp_path: Path) -> None:
    """Of one run and of all, by an instance that never heard of the client."""
    file = tmp_path / "app.sqlite3"
    with server(file) as (site, _):
        run_id, gone = triggered(site, "waits"), triggered(site, "waits")
        one = heard_until(site, f"/subscribe?runId={run_id}", "run:progress")[-1][0]
        with httpx.stream("GET", f"{site.url}{BASE}/runs/subscribe", timeout=20) as response:
            triggered(site, "echo", 1)
            telling = events(response)
            every, _ = next(telling)
            site.stop()
            assert [event["jobName"] for _, event in telling][:1] in ([], ["echo"])  # it ends, and does not break
    with server(file) as (site, _):
        httpx.post(f"{site.url}{BASE}/cancel?runId={gone}").raise_for_status()
        [*_, (heard, _)] = heard_until(site, f"/subscribe?runId={run_id}", "run:progress", one)
        httpx.post(f"{site.url}{BASE}/signal?runId={run_id}", json={"name": "go", "payload": 1}).raise_for_status()
        [*_, (end, event)] = heard_until(site, f"/subscribe?runId={run_id}", "run:complete", heard)
        assert event["output"] == 1
        assert one <= heard < end
    with server(file) as (site, _):
        assert httpx.get(f"{site.url}{BASE}/subscribe?runId={run_id}", headers={"last-event-id": str(end)}).is_success
        told = heard_until(site, "/runs/subscribe?jobName=waits", "run:complete", every)
        assert {event["runId"]: event["type"] for _, event in told} == {gone: "run:cancel", run_id: "run:complete"}


def opened_socket(site: Site, path: str, buffer: int | None = None) -> socket.socket:
    """A client that has sent its request and has read that it is heard, and nothing behind that."""
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", site.port))
    connection.sendall(b"GET %s%s HTTP/1.1\r\nhost: x\r\n\r\n" % (BASE.encode(), path.encode()))
    answer = b""
    while b": listening" not in answer:
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 200")
    return connection


@pytest.mark.parametrize("path", ["/runs/subscribe", "/subscribe?runId="])
@pytest.mark.parametrize("is_rude", [False, True])
def test_clients_that_vanish_leave_nothing_behind(path: str, *, is_rude: bool) -> None:
    with server() as (site, durably):
        before = listeners(durably)
        if path.endswith("="):
            path += triggered(site, "waits")
        connections = [opened_socket(site, path) for _ in range(20)]
        wait(lambda: listeners(durably) == before + 20)
        for connection in connections:
            if is_rude:  # a reset, as of a machine that is gone
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        wait(lambda: listeners(durably) == before)
        wait(lambda: not site.server.server_state.tasks)
        assert heard_until(site, f"/subscribe?runId={triggered(site, 'echo', 1)}", "run:complete")


def test_a_client_that_stops_reading_is_cut_off_and_costs_a_bounded_amount() -> None:
    """It is listened for no more while it is still there; when it reads on it is told to come back, and then how
    things are."""
    line = "x" * 1000
    with server(sse_throttle=0) as (site, durably):
        before = listeners(durably)
        run_id = triggered(site, "waits")
        stalled = [opened_socket(site, path, 4096) for path in ("/runs/subscribe", f"/subscribe?runId={run_id}")]
        wait(lambda: listeners(durably) == before + 2)
        wait(lambda: b"data: " in stalled[1].recv(4096, socket.MSG_PEEK))

        async def flood() -> int:
            tracemalloc.start()
            try:
                for n in range(15_000):
                    durably._services.bus.emit(LogWritten, run_id=run_id, level="info", message=f"{n} {line}")
                    if n % 10 == 0:
                        await asyncio.sleep(0)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        most = site.do(flood, 60)
        assert most < 6_000_000, f"{most} bytes of 15 MB were held"
        wait(lambda: listeners(durably) == before)
        for connection in stalled:
            text = b""
            while not text.endswith(b"\r\n0\r\n\r\n"):
                chunk = connection.recv(65536)
                assert chunk, text[-100:]
                text += chunk
            assert text.count(b"data: ") < 6000
            connection.close()
        assert b"run:start" in text or b"run:trigger" in text
        heard = int(text.rpartition(b"id: ")[2].partition(b"\n")[0])
        httpx.post(f"{site.url}{BASE}/signal?runId={run_id}", json={"name": "go"}).raise_for_status()
        assert heard_until(site, f"/subscribe?runId={run_id}", "run:complete", heard)
