"""The channel between the tabs of one database: a BroadcastChannel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from js import BroadcastChannel as JsBroadcastChannel  # noqa: TID251 - this module's purpose
from pyodide.ffi import create_proxy  # noqa: TID251 - as above


def channel_name(database_name: str) -> str:
    """What the tabs of one database call their channel."""
    return f"durably:{database_name}"


class TabChannel:
    """`Channel` in a browser."""

    def __init__(self, database_name: str) -> None:
        self._name = channel_name(database_name)
        self._channel: Any = None
        self._receive: Any = None

    def open(self, hear: Callable[[str], None]) -> None:
        if self._channel is not None:
            return

        def receive(message: Any) -> None:
            if isinstance(message.data, str):
                hear(message.data)

        self._receive = create_proxy(receive)
        self._channel = JsBroadcastChannel.new(self._name)
        self._channel.onmessage = self._receive

    def send(self, text: str) -> None:
        if self._channel is not None:
            self._channel.postMessage(text)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._receive.destroy()
            self._channel = self._receive = None
