"""The HTTP API over an instance: each endpoint a method, and `handle`, which routes to them.

Every endpoint first lets the client in (`Auth.authenticate`), then asks whether it may do what it wants, then does it.
What goes wrong is answered with `{"error": sentence}` and the status of the error; the header `durably-error` names the
error's class. Nothing of the inside (traceback, file path) is ever sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..clock import from_datetime, to_datetime, to_seconds
from ..engine import Durably
from ..errors import DurablyError, NotFoundError, ValidationError
from ..events import Event, logger
from ..handles import JobTrigger, Trigger
from ..records import Run
from .auth import Access, Auth, HTTPError, RunFilter, TriggerRequest
from .message import Request, Response
from .reading import json_body, run_filter, run_id, run_page, signal_body, trigger_bodies, trigger_request
from .sse import EventStreams, end_was_heard, last_heard, missed_since
from .wire import job_json, log_json, run_json, step_json, storage_json

MOST_BYTES = 10_000_000
"""Of a request's body, by default."""

HEARTBEAT_SECONDS = 15.0
"""Proxies take a connection for dead that is silent for a minute; some for half of one."""


@dataclass(frozen=True)
class Call:
    """A request of a client who has been let in."""

    request: Request
    access: Access


Work = Callable[["DurablyHandler", Call], Awaitable[Response]]
Endpoint = Callable[["DurablyHandler", Request], Awaitable[Response]]

ROUTES: dict[str, dict[str, Work]] = {}
"""By path and method, what answers. `endpoint` fills it in."""


def endpoint(method: str, path: str) -> Callable[[Work], Endpoint]:
    """Make `work` a method of the handler that answers a request whatever its URL's path, and put it into `ROUTES`."""

    def decorate(work: Work) -> Endpoint:
        ROUTES.setdefault(path, {})[method] = work

        async def answer(self: DurablyHandler, request: Request) -> Response:
            return await self._answer(request, lambda: _allowed_work(request, path, {method: work}))

        answer.__name__, answer.__qualname__ = work.__name__, work.__qualname__
        answer.__doc__ = f"{work.__doc__}\n\n`{method} {path}`. Never raises: what goes wrong is answered."
        return answer

    return decorate


def create_durably_handler(
    durably: Durably,
    auth: Auth | None = None,
    on_request: Callable[..., Any] | None = None,
    sse_throttle: float | timedelta = 0.1,
    *,
    sse_heartbeat: float | timedelta = HEARTBEAT_SECONDS,
    max_body_size: int | None = MOST_BYTES,
) -> DurablyHandler:
    """The HTTP API of an instance: hand each request to `DurablyHandler.handle`, or to the method of one endpoint.

    `auth` (default: everybody may do everything) are the hooks that guard it. `on_request()` or `on_request(request)`,
    plain or async, is called once the client has been let in, before anything is done: `durably.init`, for instance.
    `sse_throttle` (seconds) is the least time between two reports of progress of a run, the last of which is always
    sent; 0 sends all. `sse_heartbeat` (seconds) is how long a stream is silent before a comment shows that it is alive.
    A body of more than `max_body_size` bytes (`None`: no limit) is refused with 413.
    """
    streams = EventStreams(durably.clock, to_seconds(sse_throttle), to_seconds(sse_heartbeat))
    return DurablyHandler(durably, auth, on_request, streams, max_body_size)


class DurablyHandler:
    """Answers the requests of the HTTP API. Each endpoint is a method; `handle` routes to them. None raises."""

    def __init__(
        self,
        durably: Durably,
        auth: Auth | None,
        on_request: Callable[..., Any] | None,
        streams: EventStreams,
        max_body_size: int | None,
    ) -> None:
        self.durably = durably
        self.max_body_size = max_body_size
        self._auth = auth
        self._on_request = on_request
        self._streams = streams

    async def handle(self, request: Request, base_path: str = "") -> Response:
        """Answer a request whose path is `base_path` and an endpoint's. Never raises an `Exception`.

        Paths are compared as they were sent: one that is written otherwise, encoded or with a slash at its end, is 404.
        A wrong method is answered with 405 and `Allow`.
        """
        base = base_path.rstrip("/")

        def choose() -> Work:
            path = request.path
            methods = ROUTES.get(path[len(base) :]) if path.startswith(f"{base}/") else None
            if methods is None:
                raise NotFoundError(f"there is nothing at {path}")
            return _allowed_work(request, path, methods)

        return await self._answer(request, choose)

    def end_streams(self) -> None:
        """End every stream of events, for a server that is to stop: clients come back when there is another."""
        self._streams.end()

    async def _answer(self, request: Request, choose: Callable[[], Work]) -> Response:
        try:
            access = await Access.of(self._auth, request)
            request.query  # noqa: B018 - a URL that cannot be read is refused before anything is done
            _require_size(len(request.body), self.max_body_size)
            if self._on_request is not None:
                outcome = self._on_request(*(request,)[: _arguments(self._on_request)])
                if inspect.isawaitable(outcome):
                    await outcome
            return await choose()(self, Call(request, access))
        except DurablyError as error:
            return self._refusal(error)
        except Exception:  # noqa: BLE001 - a client gets an answer, the log the traceback
            logger.exception("%s %s failed", request.method, request.url)
            return self._refusal(DurablyError("something went wrong inside durably; its log has the details"))

    def _refusal(self, error: DurablyError) -> Response:
        # The client may know the database's name, but not where the server keeps it.
        name = self.durably.database_name
        headers = {"durably-error": type(error).__name__, **getattr(error, "headers", {})}
        return Response.of_json({"error": error.message.replace(name, Path(name).name)}, error.status, headers)

    # -- triggering ------------------------------------------------------------------------------------

    @endpoint("POST", "/trigger")
    async def trigger(self, call: Call) -> Response:
        """Store a run: body `{jobName, input, idempotencyKey?, concurrencyKey?, coalesce?, labels?}`.

        Answers `{runId, disposition}`; with 400, and 404 for a job that is not registered.
        """
        run = await self._triggered(call)
        return Response.of_json({"runId": run.id, "disposition": run.disposition})

    @endpoint("POST", "/trigger/subscribe")
    async def trigger_subscribe(self, call: Call) -> Response:
        """`trigger`, then `subscribe`, with no event between them missed."""
        heard: list[Event] = []
        stop_hearing = self.durably.on("*", heard.append)  # the run may begin before it can be subscribed to
        try:
            run = await self._triggered(call)
            await call.access.run(run, run.id, "subscribe")
            events = self.durably.subscribe(run.id)
            # Asked for now, for a generator begins to listen only when it is first asked.
            state = await anext(events)
        finally:
            stop_hearing()
        if run.disposition != "created":
            return self._streams.of(events, [state])
        before = [event for event in heard if event.run_id == run.id and event.sequence <= state.sequence]
        # Its row may be ahead of what was told; then the state takes the place of what is never told.
        ahead = [] if state.type in {event.type for event in before} else [state]
        return self._streams.of(events, [*before, *ahead], after=state.sequence)

    @endpoint("POST", "/triggers")
    async def triggers(self, call: Call) -> Response:
        """Store several runs, all of them or none: the body is a list of what `trigger` takes.

        Answers a list of `{runId, disposition, run}`, without `run` where the client may not read it. Errors name, of
        several items, the one by its index, from 0.
        """
        wanted: list[JobTrigger] = []
        bodies = trigger_bodies(call.request)
        for index, body in enumerate(bodies):
            try:
                wanted.append(self._job_trigger(await call.access.trigger(trigger_request(body))))
            except (NotFoundError, ValidationError) as error:
                if len(bodies) == 1:
                    raise
                raise type(error)(f"item {index}: {error.message}") from error
        answers = []
        for run in await self.durably.trigger_all(wanted):
            answer: dict[str, Any] = {"runId": run.id, "disposition": run.disposition}
            with suppress(HTTPError):  # they are stored: that this client may not read one takes nothing back
                answer["run"] = run_json(await call.access.run(run, run.id, "read"))
            answers.append(answer)
        return Response.of_json(answers)

    async def _triggered(self, call: Call) -> Run[Any]:
        wanted = await call.access.trigger(trigger_request(json_body(call.request)))
        [run] = await self.durably.trigger_all([self._job_trigger(wanted)])
        return run

    def _job_trigger(self, wanted: TriggerRequest) -> JobTrigger:
        handle = self.durably.get_job(wanted.job_name)
        if handle is None:
            known = ", ".join(sorted(job.name for job in self.durably.jobs)) or "none"
            raise NotFoundError(f"no job named '{wanted.job_name}' is registered; registered: {known}")
        trigger = Trigger(
            wanted.input,
            idempotency_key=wanted.idempotency_key,
            concurrency_key=wanted.concurrency_key,
            coalesce=wanted.coalesce,
            labels=wanted.labels,
        )
        return handle.definition, trigger

    # -- one run ---------------------------------------------------------------------------------------

    @endpoint("GET", "/run")
    async def run(self, call: Call) -> Response:
        """One run, by `runId`; 404 if there is none."""
        return Response.of_json(run_json(await self._run(call, "read")))

    @endpoint("DELETE", "/run")
    async def delete(self, call: Call) -> Response:
        """Delete a run that has ended; 409 if it has not."""
        await self.durably.delete_run((await self._run(call, "delete")).id)
        return Response.of_json({"success": True})

    @endpoint("GET", "/steps")
    async def steps(self, call: Call) -> Response:
        """The steps of a run that wait or have ended, in their order."""
        run = await self._run(call, "steps")
        return Response.of_json([step_json(step) for step in await self.durably.get_steps(run.id)])

    @endpoint("GET", "/logs")
    async def logs(self, call: Call) -> Response:
        """What a run logged, where that is kept; `id` numbers its lines, from 1."""
        run = await self._run(call, "logs")
        logs = await self.durably.get_logs(run.id)
        return Response.of_json([log_json(number, log) for number, log in enumerate(logs, 1)])

    @endpoint("POST", "/retry")
    async def retry(self, call: Call) -> Response:
        """Make a failed or cancelled run pending again; 409 if it is neither."""
        await self.durably.retry((await self._run(call, "retry")).id)
        return Response.of_json({"success": True})

    @endpoint("POST", "/retrigger")
    async def retrigger(self, call: Call) -> Response:
        """A fresh run like one that has ended: `{success, runId}`; 409 if it has not."""
        run = await self.durably.retrigger((await self._run(call, "retrigger")).id)
        return Response.of_json({"success": True, "runId": run.id})

    @endpoint("POST", "/cancel")
    async def cancel(self, call: Call) -> Response:
        """Cancel an active run; 409 if it has ended."""
        await self.durably.cancel((await self._run(call, "cancel")).id)
        return Response.of_json({"success": True})

    @endpoint("POST", "/signal")
    async def signal(self, call: Call) -> Response:
        """Send a signal to an active run: `{name, payload?}`; 409 if it has ended."""
        run = await self._run(call, "signal")
        await self.durably.signal(run.id, *signal_body(call.request))
        return Response.of_json({"success": True})

    async def _run(self, call: Call, operation: str) -> Run[Any]:
        wanted = run_id(call.request)
        return await call.access.run(await self.durably.get_run(wanted), wanted, operation)

    # -- many ------------------------------------------------------------------------------------------

    @endpoint("GET", "/runs")
    async def runs(self, call: Call) -> Response:
        """Runs, newest first: `status` and `jobName` (both may be several), `label.KEY`, `limit`, `offset`."""
        wanted = await call.access.runs(run_page(call.request))
        found = await self.durably.get_runs(
            status=wanted.status,
            job_name=wanted.job_name,
            labels=wanted.labels,
            limit=wanted.limit,
            offset=wanted.offset,
        )
        return Response.of_json([run_json(run) for run in found])

    @endpoint("GET", "/jobs")
    async def jobs(self, _: Call) -> Response:
        """The registered jobs: their names, and the JSON Schemas of their payloads."""
        return Response.of_json([job_json(handle.definition) for handle in self.durably.jobs])

    @endpoint("GET", "/storage")
    async def storage(self, _: Call) -> Response:
        """Where the database is kept, and how it is there."""
        return Response.of_json(storage_json(await self.durably.storage_info()))

    @endpoint("GET", "/export")
    async def export(self, call: Call) -> Response:
        """All of the database at one moment, as a SQLite file."""
        await call.access.export()
        image = await self.durably.export()
        return Response(200, {"content-type": "application/vnd.sqlite3", "cache-control": "no-store"}, image)

    @endpoint("GET", "/openapi.json")
    async def openapi(self, call: Call) -> Response:
        """This API, described in OpenAPI 3.1."""
        from .openapi import openapi_document  # a page that is served by its worker has no use for it

        summaries = {
            (method, path): (work.__doc__ or "").partition("\n")[0]
            for path, methods in ROUTES.items()
            for method, work in methods.items()
        }
        return Response.of_json(openapi_document(summaries, call.request.path.removesuffix("/openapi.json")))

    # -- events ----------------------------------------------------------------------------------------

    @endpoint("GET", "/subscribe")
    async def subscribe(self, call: Call) -> Response:
        """Server-sent events of one run, from its present state to its end.

        204, upon which an `EventSource` stays away, for a client that has heard the end already.
        """
        run = await self._run(call, "subscribe")
        if run.is_terminal and end_was_heard(from_datetime(run.updated_at), last_heard(call.request)):
            return Response(204)
        return self._streams.of(self.durably.subscribe(run.id))

    @endpoint("GET", "/runs/subscribe")
    async def runs_subscribe(self, call: Call) -> Response:
        """Server-sent events of all runs from now on, or of those of the `jobName`s and with the `label.KEY`s given.

        A client that comes back is first told the ends of the runs that ended since it heard the last event, or a few
        seconds before that, and the present state of those that are active.
        """
        wanted = await call.access.events(run_filter(call.request))
        heard = last_heard(call.request)
        missed = None
        if heard is not None:
            missed = self.durably.present_events(
                to_datetime(missed_since(heard)), job_name=wanted.job_name, labels=wanted.labels
            )
        return self._streams.of_all(self.durably.on, lambda event: _is_wanted(event, wanted), missed)


def _is_wanted(event: Event, wanted: RunFilter) -> bool:
    job_names = [wanted.job_name] if isinstance(wanted.job_name, str) else wanted.job_name
    is_of_job = job_names is None or event.job_name in job_names
    return is_of_job and wanted.labels.items() <= dict(event.labels).items()


def _require_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise HTTPError(413, f"the body has more than {limit} bytes")


def _allowed_work(request: Request, path: str, methods: dict[str, Work]) -> Work:
    work = methods.get(request.method.upper())
    if work is None:
        allowed = ", ".join(methods)
        raise HTTPError(405, f"{path} takes {allowed}, not {request.method}", {"allow": allowed})
    return work


def _arguments(function: Callable[..., Any]) -> int:
    """Whether it takes the request: 0 or 1."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return 0
    return 1
