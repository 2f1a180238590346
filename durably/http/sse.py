"""Server-sent events: what `EventSource` reads (html.spec.whatwg.org, section 9.2).

The `id` of an event tells its moment: milliseconds since 1970, times 1000, counted on where several share one; that of
a run's end is odd, all others are even. It grows from event to event, and outlives the server that gave it, so that a
client which comes back with its `Last-Event-ID` can be told what is different since then, by whichever process serves
the database now.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Protocol
from weakref import WeakSet, finalize

from ..clock import Clock, EpochMs, bare_future, from_datetime
from ..events import TERMINAL_TYPES, Event, logger
from .message import Request, Response
from .throttle import Throttle
from .wire import event_json

MOST_WAITING = 1000
"""A client that is so many events behind is cut off. When it comes back it is told the present state."""

TURNS_TO_CATCH_UP = 100
"""So many turns of the event loop a client has for that: what a job says without a pause comes all at once."""

COME_BACK_MS = 1000
"""How long an `EventSource` that was cut off waits."""

IDS_PER_MS = 1000

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

TOLD_WITHIN_MS = 15_000
"""An end is told when it is stored, which may be so much later than the moment that it has: a database that others
write to is waited for. Other events, with later moments, may have been told before it."""

On = Callable[[str, Callable[[Event], None]], Callable[[], None]]
Missed = AsyncGenerator[Event, None]


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

    def of(self, events: AsyncGenerator[Event, None], first: Iterable[Event] = (), after: int = -1) -> Response:
        """A response that sends `first`, then `events` with a sequence number beyond `after` to their end, which is
        sent whatever its number: told by a row it has but that of the latest event. Closing its body closes them."""
        feed = self._feed()
        for event in first:
            feed.put(event)
        return _response(feed, _Gathering(events, feed, after))

    def of_all(self, on: On, is_wanted: Callable[[Event], bool], missed: Missed | None) -> Response:
        """A response that sends what was `missed`, then every event that `is_wanted` from now on."""
        feed = self._feed()
        if missed is None:  # else the client keeps the id that it has until it is told more
            feed.begin_now()
        return _response(feed, _Tap(on, is_wanted, feed), missed)

    def _feed(self) -> _Feed:
        feed = _Feed(self._clock, Throttle(self._throttle_ms), self._heartbeat)
        self._feeds.add(feed)
        return feed


def last_heard(request: Request) -> int | None:
    """The id of the last event that the client has heard; `None` where it heard none of ours."""
    event_id = request.headers.get("last-event-id", "")
    is_ours = event_id.isascii() and event_id.isdigit() and len(event_id) <= 17
    return int(event_id) if is_ours else None


def end_was_heard(ended_at: EpochMs, heard: int | None) -> bool:
    """Whether the last that a client heard of a run which ended then is that end, and not one before a retry."""
    return heard is not None and heard % 2 == 1 and heard // IDS_PER_MS >= ended_at


def missed_since(heard: int) -> EpochMs:
    """The moment since which runs may have ended untold to a client that heard this last."""
    return EpochMs(max(heard // IDS_PER_MS - TOLD_WITHIN_MS, 0))


class _Feed:
    """What is to be sent to one client, whom it wakes: no turn of the loop is spent on what is there already."""

    def __init__(self, clock: Clock, throttle: Throttle, heartbeat: float) -> None:
        self._clock = clock
        self._throttle = throttle
        self._heartbeat = heartbeat
        self._ready: deque[Event | bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._alarms: set[asyncio.Task[None]] = set()
        self._is_releasing = self._is_behind = self._is_over = False
        self._error: BaseException | None = None
        self._last_id = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be put into it."""
        return self._is_over

    def put(self, event: Event) -> None:
        """Have an event sent, unless it is over."""
        if self._is_over:
            return
        self._ready.extend(self._throttle.take(event, self._clock.now()))
        if self._throttle.next_at is not None and not self._is_releasing:
            self._is_releasing = True
            self._begin(self._release())
        if len(self._ready) > MOST_WAITING and not self._is_behind:
            self._is_behind = True
            self._begin(self._cut_off_unless_read())
        self._wake()

    def begin_now(self) -> None:
        """Tell the client the present moment as the id that it has heard: before it nothing is told."""
        self._last_id = self._clock.now() * IDS_PER_MS

    def end(self, error: BaseException | None = None) -> None:
        """Let it end behind what is ready, with an error if there is one."""
        if not self._is_over:
            self._is_over, self._error = True, error
        self._wake()

    def silence(self) -> None:
        """Stop the alarms."""
        for alarm in self._alarms:
            alarm.cancel()

    async def frames(self, missed: Missed | None) -> AsyncGenerator[bytes, None]:
        """What is sent, to the end: what was `missed`, read no quicker than it is sent, comes first."""
        # At once, so that a client knows it is heard before anything happens.
        since = b"id: %d\n" % self._last_id if self._last_id else b""
        yield b": listening\nretry: %d\n%b\n" % (COME_BACK_MS, since)
        self._begin(self._beat())
        if missed is not None:
            async with aclosing(missed):
                async for event in missed:
                    yield self._framed(event)
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

    async def _cut_off_unless_read(self) -> None:
        for _ in range(TURNS_TO_CATCH_UP):
            await asyncio.sleep(0)
            if len(self._ready) <= MOST_WAITING:
                self._is_behind = False
                return
        logger.warning("a client is %d events behind and is cut off", len(self._ready))
        self._ready.clear()
        self.end()

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
        event_id = max(self._last_id + 1, from_datetime(event.timestamp) * IDS_PER_MS)
        self._last_id = event_id + (event_id % 2 != (event.type in TERMINAL_TYPES))
        data = _ENCODER.encode(event_json(event))
        return f"id: {self._last_id}\ndata: {data}\n\n".encode("utf-8", "backslashreplace")


class _Source(Protocol):
    """What fills a feed."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Listen no more, where that can be done at once."""
        ...

    async def close(self) -> None: ...


class _Tap:
    """All events, from the moment this is made."""

    def __init__(self, on: On, is_wanted: Callable[[Event], bool], feed: _Feed) -> None:
        def hear(event: Event) -> None:
            if is_wanted(event):
                feed.put(event)
            if feed.is_over:  # a client that is cut off may not read on for long, and need not be listened for
                self.stop()

        self.stop = on("*", hear)

    def start(self) -> None:
        pass  # it hears already: between the request and the first read nothing may be missed

    async def close(self) -> None:
        self.stop()


class _Gathering:
    """The events of an iterator, which it takes as they come: whoever reads slowly must not hold them up."""

    def __init__(self, events: AsyncGenerator[Event, None], feed: _Feed, after: int) -> None:
        self._events = events
        self._after = after
        self._feed = feed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._gather())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._events.aclose()

    def stop(self) -> None:
        pass  # nothing refers to an iterator that nobody reads: the event loop closes it

    async def _gather(self) -> None:
        try:
            async for event in self._events:
                if event.sequence > self._after or event.type in TERMINAL_TYPES:
                    self._feed.put(event)
                if self._feed.is_over:  # cut off
                    await self._events.aclose()
                    break
        except Exception as error:  # noqa: BLE001 - it is the reader's, who raises it
            self._feed.end(error)
        else:
            self._feed.end()


class _Body:
    """The body of a stream: closing it, read or not, stops what fills it."""

    def __init__(self, feed: _Feed, source: _Source, missed: Missed | None) -> None:
        self._feed = feed
        self._source = source
        self._frames = _frames(feed, source, missed)
        finalize(self, source.stop).atexit = False  # for who forgets to close what is never read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._frames)

    async def aclose(self) -> None:
        await self._frames.aclose()
        self._feed.silence()
        await self._source.close()


def _response(feed: _Feed, source: _Source, missed: Missed | None = None) -> Response:
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(200, headers, _Body(feed, source, missed))


async def _frames(feed: _Feed, source: _Source, missed: Missed | None) -> AsyncGenerator[bytes, None]:
    # A generator, which the event loop closes where its reader has gone without a word.
    source.start()
    try:
        async with aclosing(feed.frames(missed)) as frames:
            async for frame in frames:
                yield frame
    finally:
        feed.silence()
        await source.close()
