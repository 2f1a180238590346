"""Neighbours: the other instances on the same database, told at once of what happens here.

The store is the truth and polling finds it; a message only makes it quick. So messages may be lost, and a
wrong one can do no harm: it wakes a worker, which then looks. In a browser they go by BroadcastChannel
(`durably.browser.channel`); on CPython nothing carries them, and processes find each other's work by polling.

A message is one JSON text: `{"durably": FORMAT, "from": instance, "kind": ...}` and, by kind: `event` with `type`,
`at` (milliseconds), `facts` (as `codec` stores them) and `taken` (whether the sender has room for what there may be to
do now); `signal` with `run_id`; `hello`, `here` and `bye`, by which instances know of each other, so that one which is
alone says nothing; `alive`, which the pulse sends for a worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Protocol

from pydantic_core import to_json

from . import codec
from .clock import EpochMs, from_datetime, to_datetime
from .events import (
    EVENT_CLASSES,
    TERMINAL_TYPES,
    Event,
    EventBus,
    RunCancelled,
    RunDeleted,
    RunRetried,
    RunStale,
    RunTriggered,
    logger,
)

FORMAT = 1

_KINDS = {kind.type: kind for kind in EVENT_CLASSES}
_BEGINNING = f'{{"durably":{FORMAT},'
_HEADER = {"timestamp", "sequence"}

_MISUNDERSTANDINGS = (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, codec.CodecError)
"""What it leads to when a message is not made as ours are."""

_MAY_TAKE_A_RUN_AWAY = {RunCancelled.type, RunDeleted.type, RunRetried.type}
_MAY_GIVE_WORK = {RunTriggered.type, RunRetried.type, RunStale.type, *TERMINAL_TYPES}
"""The ends of runs are among them: a parent may wait for one, or a run with the same concurrency key."""


class Channel(Protocol):
    """Carries texts between the instances on one database, in order, to all but the sender."""

    def open(self, hear: Callable[[str], None]) -> None:
        """Begin to receive; harmless when it is open."""
        ...

    def send(self, text: str) -> None:
        """Send to whoever is there now. Does nothing when it is not open."""
        ...

    def close(self) -> None:
        """Receive nothing more."""
        ...


class NoChannel:
    """Nobody is told, and nobody tells."""

    def open(self, hear: Callable[[str], None]) -> None:
        """Nothing to open."""

    def send(self, text: str) -> None:
        """Nobody to send to."""

    def close(self) -> None:
        """Nothing to close."""


class Reactions(Protocol):
    """What a worker does about news from another instance."""

    @property
    def has_room(self) -> bool: ...

    def wake(self) -> None: ...

    def wake_later(self) -> None: ...

    def poke(self, run_id: str) -> None: ...

    def check_claims(self) -> None: ...


class Neighbours:
    """Tells events and signals of this instance to the others, and theirs to its bus and its worker."""

    def __init__(
        self,
        channel: Channel,
        bus: EventBus,
        name: str,
        *,
        reactions: Callable[[], Reactions],
        is_alive: Callable[[str], None],
    ) -> None:
        """`name` tells this instance from the others; `is_alive(worker_id)` is told of each pulse that is heard."""
        self._channel = channel
        self._bus = bus
        self._name = name
        self._reactions = reactions
        self._is_alive = is_alive
        self._known: set[str] = set()
        self._is_open = False
        self._stop_relaying: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to listen and to tell; harmless when begun."""
        if not self._is_open:
            self._is_open = True
            self._channel.open(self._hear)
            self._send("hello")

    def close(self) -> None:
        """Take leave."""
        if self._is_open:
            self._is_open = False
            self._send("bye")
            self._channel.close()
            self._known.clear()
            self._relay_where_heard()

    @property
    def are_known(self) -> bool:
        """Whether there are others, whose news may be on their way."""
        return bool(self._known)

    def tell_signal(self, run_id: str) -> None:
        """A signal was stored for a run, which another instance may hold."""
        if self._known:
            self._send("signal", run_id=run_id)

    # -- inside ----------------------------------------------------------------------------------------

    def _send(self, kind: str, **facts: Any) -> None:
        self._channel.send(message(self._name, kind, **facts))

    def _relay_where_heard(self) -> None:
        """Tell events while there are others; an event that nobody listens to is not even made."""
        if self._known and self._stop_relaying is None:
            self._stop_relaying = self._bus.on("*", self._relay, here_only=True)
        elif not self._known and self._stop_relaying is not None:
            self._stop_relaying()
            self._stop_relaying = None

    def _relay(self, event: Event) -> None:
        facts = {field.name: getattr(event, field.name) for field in fields(event) if field.name not in _HEADER}
        at, is_taken = from_datetime(event.timestamp), self._reactions().has_room
        self._send("event", type=event.type, at=at, facts=_packed(facts), taken=is_taken)

    def _hear(self, text: str) -> None:
        if not text.startswith(_BEGINNING):
            return  # of another version, or not durably's at all: anybody in this origin may write to the channel
        try:
            said = json.loads(text)
            if said["from"] != self._name:  # its page answers for it, too, in case it is busy
                self._heed(said["kind"], said["from"], said)
        except _MISUNDERSTANDINGS as error:
            logger.debug("a message that is not understood was ignored: %r", error)

    def _heed(self, kind: str, sender: str, said: dict[str, Any]) -> None:
        match kind:
            case "hello":
                self._known.add(_text(sender))
                self._relay_where_heard()
                self._send("here")
            case "here":
                self._known.add(_text(sender))
                self._relay_where_heard()
            case "bye":
                self._known.discard(sender)
                self._relay_where_heard()
                self._reactions().wake()
            case "signal":
                self._reactions().poke(_text(said["run_id"]))
            case "alive":
                self._is_alive(_text(said["worker"]))
            case "event":
                at, is_taken = EpochMs(int(said["at"])), bool(said.get("taken"))
                self._pass_on(_KINDS[said["type"]], at, _unpacked(said["facts"]), is_taken=is_taken)

    def _pass_on(self, kind: type[Event], at: EpochMs, facts: dict[str, Any], *, is_taken: bool) -> None:
        reactions = self._reactions()
        if kind.type in _MAY_TAKE_A_RUN_AWAY:
            reactions.check_claims()
        if kind.type in _MAY_GIVE_WORK:
            if is_taken:
                reactions.wake_later()
            else:
                reactions.wake()
        self._bus.pass_on(kind, to_datetime(at), facts)


def message(sender: str, kind: str, **facts: Any) -> str:
    """The text of a message."""
    return json.dumps({"durably": FORMAT, "from": sender, "kind": kind, **facts}, separators=(",", ":"))


def _packed(facts: dict[str, Any]) -> dict[str, str]:
    return {name: _kept(value) for name, value in facts.items()}


def _kept(value: Any) -> str:
    """A value as text: with its types where they can be kept, else as plain JSON."""
    try:
        stored = codec.encode([value])
    except codec.CodecError:
        return to_json([value], fallback=repr, bytes_mode="base64", inf_nan_mode="strings").decode()
    assert isinstance(stored, str), "only bytes as a whole are stored as bytes"
    return stored


def _unpacked(facts: Any) -> dict[str, Any]:
    if not isinstance(facts, dict):
        raise TypeError(f"facts are a dict, not {facts!r}")
    restored = {name: _restored(_text(text)) for name, text in facts.items()}
    for name in ("run_id", "job_name"):
        if restored.get(name) is not None:
            _text(restored[name])
    if not isinstance(restored.get("labels", {}), dict):
        raise TypeError(f"labels are a dict, not {restored['labels']!r}")
    return restored


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _restored(text: str) -> Any:
    try:
        [value] = codec.decode(text)
    except codec.CodecError:
        # A class that only the other page knows: show what there is, as for a step of unknown type.
        [value] = json.loads(text)
    return value
