"""Who may do what: `Auth`, a user's hooks, and `Access`, which asks them for one request.

Whatever a hook raises refuses the request: an `HTTPError` with its status, anything else with 500. A hook that
answers `False` refuses, too, so that a plain condition can be written as one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ..errors import DurablyError, NotFoundError
from ..records import Run
from .message import Request

UNAUTHORIZED, FORBIDDEN = 401, 403


class HTTPError(DurablyError):
    """Raised by a hook to refuse a request: `raise HTTPError(401)`.

    `status` is from 400 to 599, `message` what the client is told (default: what the status is called), `headers` are
    added to the answer. Raises `ValueError` for another status.
    """

    code = "http"

    def __init__(self, status: int, message: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"an error has a status from 400 to 599, not {status}")
        super().__init__(message or _phrase(status), status)
        self.headers = dict(headers or {})


@dataclass
class RunFilter:
    """Which runs are asked for, with the meaning of `get_runs`'s arguments. A hook may change it or make another.

    Of a stream of events only `job_name` and `labels` count, and the others are as they are here.
    """

    status: str | list[str] | None = None
    job_name: str | list[str] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    offset: int = 0


@dataclass
class TriggerRequest:
    """A run to be, as a client asks for it. A hook may change it or make another: add a label, for instance."""

    job_name: str
    input: Any = None
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    coalesce: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Auth:
    """Hooks, plain or async, each of which may raise `HTTPError`. What is left out allows.

    `authenticate(request)` gives the context that the others get; it is asked on every endpoint before anything else.
    `on_trigger(context, trigger)` is asked before a run is stored and may give another `TriggerRequest`.
    `on_run_access(context, run, operation)`: the operation is `read`, `subscribe`, `steps`, `logs`, `retry`,
    `retrigger`, `cancel`, `delete` or `signal`.
    `scope_runs(context, filter)` gives the `RunFilter` to list runs by, `scope_runs_subscribe` (default: `scope_runs`)
    that of a stream of events. Left out, who is authenticated sees all runs.
    `on_export(context)` must be there for the whole database to be given away at all.
    """

    authenticate: Callable[[Request], Any] | None = None
    on_trigger: Callable[[Any, TriggerRequest], Any] | None = None
    on_run_access: Callable[[Any, Run[Any], str], Any] | None = None
    scope_runs: Callable[[Any, RunFilter], Any] | None = None
    scope_runs_subscribe: Callable[[Any, RunFilter], Any] | None = None
    on_export: Callable[[Any], Any] | None = None


class Access:
    """What one client, who has been let in, may do."""

    def __init__(self, auth: Auth | None, context: Any) -> None:
        self._auth = auth or Auth()
        self._context = context
        self._is_guarded = auth is not None

    @classmethod
    async def of(cls, auth: Auth | None, request: Request) -> Access:
        """Let a client in. Raises `HTTPError`."""
        if auth is None or auth.authenticate is None:
            return cls(auth, None)
        return cls(auth, _allowed(await _answer(auth.authenticate(request)), UNAUTHORIZED))

    async def trigger(self, wanted: TriggerRequest) -> TriggerRequest:
        """What may be stored. Raises `HTTPError`."""
        if self._auth.on_trigger is None:
            return wanted
        answer = _allowed(await _answer(self._auth.on_trigger(self._context, wanted)), FORBIDDEN)
        return answer if isinstance(answer, TriggerRequest) else wanted

    async def run(self, run: Run[Any] | None, run_id: str, operation: str) -> Run[Any]:
        """The run, if there is one and it may be used so. Raises `NotFoundError`, `HTTPError`."""
        if run is None:
            raise NotFoundError(f"there is no run {run_id}")
        if self._auth.on_run_access is not None:
            _allowed(await _answer(self._auth.on_run_access(self._context, run, operation)), FORBIDDEN)
        return run

    async def runs(self, wanted: RunFilter) -> RunFilter:
        """The runs that may be listed. Raises `HTTPError`."""
        return await self._scoped(self._auth.scope_runs, "scope_runs", wanted)

    async def events(self, wanted: RunFilter) -> RunFilter:
        """The runs whose events may be heard. Raises `HTTPError`."""
        scope, name = self._auth.scope_runs_subscribe, "scope_runs_subscribe"
        if scope is None:
            scope, name = self._auth.scope_runs, "scope_runs"
        scoped = await self._scoped(scope, name, wanted)
        if scoped.status is not None or scoped.limit is not None or scoped.offset:
            # Ignored, it would let through what it was meant to keep back.
            raise DurablyError(f"{name} restricts events by more than job and labels; write a scope_runs_subscribe")
        return scoped

    async def export(self) -> None:
        """Raises `HTTPError` unless the whole database may be given away."""
        if self._auth.on_export is not None:
            _allowed(await _answer(self._auth.on_export(self._context)), FORBIDDEN)
        elif self._is_guarded:
            raise HTTPError(FORBIDDEN, "the database is given to nobody here: this server has no on_export")

    async def _scoped(self, scope: Callable[[Any, RunFilter], Any] | None, name: str, wanted: RunFilter) -> RunFilter:
        if scope is None:
            return wanted
        answer = _allowed(await _answer(scope(self._context, wanted)), FORBIDDEN)
        if not isinstance(answer, RunFilter):
            raise DurablyError(f"{name} must give a RunFilter, not {type(answer).__name__}")
        return answer


async def _answer(outcome: Any) -> Any:
    return await outcome if inspect.isawaitable(outcome) else outcome


def _allowed(answer: Any, status: int) -> Any:
    if answer is False:
        raise HTTPError(status)
    return answer


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"refused with status {status}"
