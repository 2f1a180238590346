"""Jobs in a worker whose clock can be set: a number of seconds, said on a channel, is how far it is wrong."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from js import BroadcastChannel
from pyodide.ffi import create_proxy

import durably.clock

CHANNEL = BroadcastChannel.new("the-clock")
wrong_by = SimpleNamespace(seconds=0)


def hear(message: Any) -> None:
    wrong_by.seconds = message.data


CHANNEL.onmessage = create_proxy(hear)
durably.clock.time = SimpleNamespace(  # type: ignore[assignment]  # it stands in for a module
    time_ns=lambda: time.time_ns() + wrong_by.seconds * 1_000_000_000
)
