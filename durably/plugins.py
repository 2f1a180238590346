"""Plugins: an object with a `name` and `install(durably)`, given to `Durably.use`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic_core import to_json

from .clock import from_datetime, unbroken
from .events import LogWritten
from .ledger import Ledger, NewLog

if TYPE_CHECKING:
    from .engine import Durably


class Plugin(Protocol):
    """What `Durably.use` takes: an object with a `name`, whose `install` may listen to events, say."""

    name: str

    def install(self, durably: Durably) -> None:
        """Called once, when it is put to use."""
        ...


@runtime_checkable
class Flushing(Protocol):
    """A plugin that may also be asked to finish what it has begun."""

    async def flush(self) -> None:
        """Called by `Durably.stop`, when no run is at work and before the database is closed."""
        ...


def with_log_persistence() -> LogPersistence:
    """A plugin that stores every `log:write`, for `Durably.get_logs`; use it before the first run."""
    return LogPersistence()


class LogPersistence:
    """Stores log lines in order, in batches: those that come while one is written are the next."""

    name = "log-persistence"

    def __init__(self) -> None:
        self._lines: list[NewLog] = []
        self._written: asyncio.Event | None = None
        """The end of the write under way."""
        self._ledger: Ledger | None = None

    def install(self, durably: Durably) -> None:
        """Begin to keep what is logged."""
        self._ledger = durably.ledger
        # Lines of other tabs are stored by them.
        durably.on("log:write", self._keep, here_only=True)

    async def _keep(self, event: LogWritten) -> None:
        assert self._ledger is not None, "a listener has been installed"
        assert event.run_id is not None, "a log line is a run's"
        self._lines.append(
            NewLog(
                run_id=event.run_id,
                worker_id=event.worker_id,
                generation=event.generation,
                step_name=event.step_name,
                level=event.level,
                message=event.message.encode("utf-8", "backslashreplace").decode(),
                data=_as_json(event.data),
                created_at=from_datetime(event.timestamp),
            )
        )
        await self.flush()

    async def flush(self) -> None:
        """Store the lines that are not stored yet, if the store could not be written when they came."""
        while self._lines and self._written is None:
            # Broken off, it would not be known whether they are stored, and they might be so twice.
            await unbroken(self._write_batch())

    async def settled(self) -> None:
        """Wait until the lines that were logged by now are stored, or could not be; not for what listeners do."""
        await asyncio.sleep(0)  # those of this very moment are taken up
        for _ in range(2):  # the batch under way, and the next one, which has all the others
            if self._written is not None:
                await self._written.wait()

    async def _write_batch(self) -> None:
        assert self._ledger is not None, "what has been installed is flushed"
        batch, self._lines = self._lines, []
        self._written = written = asyncio.Event()
        try:
            await self._ledger.put_logs(batch)
        except BaseException:
            self._lines = batch + self._lines  # to be tried again with the next line, or at a stop
            raise
        finally:
            self._written = None
            written.set()


def _as_json(data: Any) -> str | None:
    """What came with a line, as JSON text. No line is lost because of it: what JSON cannot take becomes its `repr`."""
    if data is None:
        return None
    try:
        return to_json(data, fallback=repr, inf_nan_mode="strings").decode()
    except (ValueError, TypeError, RecursionError):  # it contains itself, say, or half a surrogate pair
        return to_json(ascii(data)).decode()
