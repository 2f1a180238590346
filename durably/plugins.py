"""Plugins: an object with a `name` and `install(durably)`, given to `Durably.use`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pydantic_core import to_json

from .clock import from_datetime
from .events import LogWritten
from .ledger import Ledger, StoredLog

if TYPE_CHECKING:
    from .engine import Durably


class Plugin(Protocol):
    """What `Durably.use` takes."""

    name: str

    def install(self, durably: Durably) -> None:
        """Called once, when it is put to use."""
        ...


def with_log_persistence() -> LogPersistence:
    """A plugin that stores every `log:write`, for `Durably.get_logs`."""
    return LogPersistence()


class LogPersistence:
    """Stores log lines in order, in batches: those that come while one is written are the next."""

    name = "log-persistence"

    def __init__(self) -> None:
        self._lines: list[StoredLog] = []
        self._writing = False
        self._ledger: Ledger | None = None

    def install(self, durably: Durably) -> None:
        self._ledger = durably.ledger
        # Lines of other tabs are stored by them.
        durably.on("log:write", self._keep, here_only=True)

    async def _keep(self, event: LogWritten) -> None:
        assert self._ledger is not None, "a listener has been installed"
        assert event.run_id is not None, "a log line is a run's"
        data = None if event.data is None else to_json(event.data, fallback=repr, inf_nan_mode="strings").decode()
        self._lines.append(
            StoredLog(
                run_id=event.run_id,
                step_name=event.step_name,
                level=event.level,
                message=event.message.encode("utf-8", "backslashreplace").decode(),
                data=data,
                created_at=from_datetime(event.timestamp),
            )
        )
        if self._writing:
            return
        self._writing = True
        try:
            while self._lines:
                batch, self._lines = self._lines, []
                try:
                    await self._ledger.put_logs(batch)
                except BaseException:
                    self._lines = batch + self._lines  # to be tried again with the next line
                    raise
        finally:
            self._writing = False
