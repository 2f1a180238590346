"""Server-sent events: what `EventSource` reads (html.spec.whatwg.org, section 9.2).

The `id` of an event tells its moment: milliseconds since 1970, times 1000, counted on where several share one. It grows
from event to event, and outlives the server that gave it, so that a client which comes back with its `Last-Event-ID`
can be told what is different since then, by whichever process serves the database now.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Protocol
from weakref import WeakSet

from ..clock import Clock, EpochMs, bare_future, from_datetime
from ..events import TERMINAL_TYPES, Event, logger
from .message import Request, Response
from .throttle import Throttle
from .wire import event_json

MOST_WAITING = 1000
"""A client that is so many events behind is cut off. When it comes back it is told the present state."""

COME_BACK_MS = 1000
"""How long an `EventSource` that was cut off waits."""

IDS_PER_MS = 1000

On = Callable[[str, Callable[[Event], None]], Callable[[], None]]


class EventStreams:
    """Makes the responses that are streams of events.

    `throttle` is the least time between two reports of progress of a run; every `heartbeat` a comment shows that a
    stream is alive. Both are seconds.
    """

    def __init__(self, clock: Clock, throttle: float, heartbeat: float) -> None:
        self._clock = clock
        self._throttle_ms = round(throttle * 1000)
        self._heartbeat = heartbeat
        self._feeds: WeakSet[_Feed] = WeakSet()

    def end(self) -> None:
        """End every stream that is under way."""
        for feed in [*self._feeds]:
            feed.end()

    def of(self, events: AsyncIterator[Event], first: Iterable[Event] = ()) -> Response:
        """A response that sends `first`, then `events` to their end; closing its body closes them."""
        feed = self._feed()
        for event in first:
            feed.put(event)
        return _response(feed, _Gathering(events, feed))

    async def of_all(
        self, on: On, is_wanted: Callable[[Event], bool], missed: Callable[[], Awaitable[list[Event]]]
    ) -> Response:
        """A response that sends what was `missed`, then every event that `is_wanted` from now on."""
        feed = self._feed()
        feed.begin_now()
        tap = _Tap(on, is_wanted, feed)
        try:
            feed.put_before(await missed())
        except BaseException:
            await tap.close()
            raise
        return _response(feed, tap)

    def _feed(self) -> _Feed:
        feed = _Feed(self._clock, Throttle(self._throttle_ms), self._heartbeat)
        self._feeds.add(feed)
        return feed


def last_heard(request: Request) -> EpochMs | None:
    """The moment of the last event that the client has heard; `None` where it heard none of ours."""
    event_id = request.headers.get("last-event-id", "")
    is_ours = event_id.isascii() and event_id.isdigit() and len(event_id) <= 17
    return EpochMs(int(event_id) // IDS_PER_MS) if is_ours else None


def end_was_heard(ended_at: EpochMs, heard: EpochMs | None) -> bool:
    """Whether a client that heard what was then has been told the end: an end's id is that of the next millisecond."""
    return heard is not None and heard > ended_at


class _Feed:
    """What is to be sent to one client, whom it wakes: no turn of the loop is spent on what is there already."""

    def __init__(self, clock: Clock, throttle: Throttle, heartbeat: float) -> None:
        self._clock = clock
        self._throttle = throttle
        self._heartbeat = heartbeat
        self._ready: deque[Event | bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._alarms: set[asyncio.Task[None]] = set()
        self._is_releasing = self._is_over = False
        self._error: BaseException | None = None
        self._last_id = 0

    def put(self, event: Event) -> None:
        """Have an event sent."""
        self._ready.extend(self._throttle.take(event, self._clock.now()))
        if self._throttle.next_at is not None and not self._is_releasing:
            self._is_releasing = True
            self._begin(self._release())
        if len(self._ready) > MOST_WAITING:
            logger.warning("a client is %d events behind and is cut off", len(self._ready))
            self._ready.clear()
            self.end()
        self._wake()

    def begin_now(self) -> None:
        """Tell the client the present moment as the id that it has heard: before it nothing is told."""
        self._last_id = self._clock.now() * IDS_PER_MS

    def put_before(self, events: list[Event]) -> None:
        """Have events sent before those that wait already."""
        self._ready.extendleft(reversed(events))

    def end(self, error: BaseException | None = None) -> None:
        """Let it end behind what is ready, with an error if there is one."""
        if not self._is_over:
            self._is_over, self._error = True, error
        self._wake()

    def silence(self) -> None:
        """Stop the alarms."""
        for alarm in self._alarms:
            alarm.cancel()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """What is sent, to the end."""
        # At once, so that a client knows it is heard before anything happens.
        since = b"id: %d\n" % self._last_id if self._last_id else b""
        yield b": listening\nretry: %d\n%b\n" % (COME_BACK_MS, since)
        self._begin(self._beat())
        while True:
            if self._ready:
                frames = [self._framed(event) for event in self._ready]
                self._ready.clear()
                yield b"".join(frames)
            elif self._is_over:
                break
            else:
                self._reader = bare_future()
                await self._reader
        if self._error is not None:
            raise self._error

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._heartbeat)
            if not self._ready:
                self._ready.append(b": alive\n\n")
                self._wake()

    async def _release(self) -> None:
        while (next_at := self._throttle.next_at) is not None:
            await self._clock.sleep(max(next_at - self._clock.now(), 0) / 1000)
            self._ready.extend(self._throttle.due(self._clock.now()))
            self._wake()
        self._is_releasing = False

    def _begin(self, alarm: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(alarm)
        self._alarms.add(task)
        task.add_done_callback(self._alarms.discard)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _framed(self, event: Event | bytes) -> bytes:
        if isinstance(event, bytes):
            return event
        moment = from_datetime(event.timestamp) + (event.type in TERMINAL_TYPES)
        self._last_id = max(self._last_id + 1, moment * IDS_PER_MS)
        data = json.dumps(event_json(event), ensure_ascii=False, allow_nan=False)
        return f"id: {self._last_id}\ndata: {data}\n\n".encode("utf-8", "backslashreplace")


class _Source(Protocol):
    """What fills a feed."""

    def start(self) -> None: ...

    async def close(self) -> None: ...


class _Tap:
    """All events, from the moment this is made."""

    def __init__(self, on: On, is_wanted: Callable[[Event], bool], feed: _Feed) -> None:
        self._stop = on("*", lambda event: feed.put(event) if is_wanted(event) else None)

    def start(self) -> None:
        pass  # it hears already: between the request and the first read nothing may be missed

    async def close(self) -> None:
        self._stop()


class _Gathering:
    """The events of an iterator, which it takes as they come: whoever reads slowly must not hold them up."""

    def __init__(self, events: AsyncIterator[Event], feed: _Feed) -> None:
        self._events = events
        self._feed = feed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._gather())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()

    async def _gather(self) -> None:
        try:
            async for event in self._events:
                self._feed.put(event)
        except Exception as error:  # noqa: BLE001 - it is the reader's, who raises it
            self._feed.end(error)
        else:
            self._feed.end()


class _Body:
    """The body of a stream: closing it, read or not, stops what fills it."""

    def __init__(self, feed: _Feed, source: _Source) -> None:
        self._source = source
        self._frames = _frames(feed, source)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._frames)

    async def aclose(self) -> None:
        await self._frames.aclose()
        await self._source.close()


def _response(feed: _Feed, source: _Source) -> Response:
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(200, headers, _Body(feed, source))


async def _frames(feed: _Feed, source: _Source) -> AsyncGenerator[bytes, None]:
    # A generator, which the event loop closes where its reader has gone without a word.
    source.start()
    try:
        async for frame in feed.frames():
            yield frame
    finally:
        feed.silence()
        await source.close()
