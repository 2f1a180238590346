"""Server-sent events: what `EventSource` reads (html.spec.whatwg.org, section 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from ..events import Event
from .message import Response
from .wire import event_json


def event_stream(events: AsyncIterator[Event]) -> Response:
    """A response that sends each event as it comes; closing its body ends the iteration of `events`."""
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(200, headers, _frames(events))


async def begun(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The same events, heard from now on: a generator would begin to listen only when it is first asked."""
    first = await anext(events)

    async def all_of_them() -> AsyncIterator[Event]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await _close(events)

    return all_of_them()


class EventTap:
    """The events that `wanted` accepts, from the moment this is made; `aclose` stops listening.

    A generator would begin to listen only when it is first asked, and miss what happens until then.
    """

    def __init__(
        self, on: Callable[[str, Callable[[Event], None]], Callable[[], None]], wanted: Callable[[Event], bool]
    ) -> None:
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        self._wanted = wanted
        self._stop = on("*", self._hear)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._heard.get()

    async def aclose(self) -> None:
        self._stop()

    def _hear(self, event: Event) -> None:
        if self._wanted(event):
            self._heard.put_nowait(event)


async def _frames(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    try:
        # Sent at once, so that a client knows it is heard before anything happens.
        yield b": listening\n\n"
        async for event in events:
            data = json.dumps(event_json(event), ensure_ascii=False, allow_nan=False)
            yield f"id: {event.sequence}\ndata: {data}\n\n".encode("utf-8", "backslashreplace")
    finally:
        await _close(events)


async def _close(events: AsyncIterator[Event]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
