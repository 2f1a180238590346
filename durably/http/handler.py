"""The HTTP API over an instance: each endpoint a method, and `handle`, which routes to them.

What goes wrong is answered with `{"error": sentence}` and the status of the error; the header
`durably-error` names the error's class. Nothing of the inside (traceback, file path) is ever sent.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..engine import Durably
from ..errors import DurablyError, NotFoundError, ValidationError
from ..events import Event, logger
from ..handles import JobTrigger, Trigger
from .message import Request, Response
from .sse import EventTap, begun, event_stream
from .wire import job_json, log_json, run_json, step_json, storage_json

Endpoint = Callable[[Request], Awaitable[Response]]

_TRIGGER_FIELDS = {
    "jobName": "job_name",
    "input": "input",
    "idempotencyKey": "idempotency_key",
    "concurrencyKey": "concurrency_key",
    "coalesce": "coalesce",
    "labels": "labels",
}


def create_durably_handler(durably: Durably) -> DurablyHandler:
    """The HTTP API of an instance: hand each request to `DurablyHandler.handle`."""
    return DurablyHandler(durably)


class DurablyHandler:
    """Answers the requests of the HTTP API. Each endpoint is a method; `handle` routes to them.

    The methods raise `DurablyError`s; `handle` answers with them.
    """

    def __init__(self, durably: Durably) -> None:
        self._durably = durably
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/trigger": {"POST": self.trigger},
            "/trigger/subscribe": {"POST": self.trigger_subscribe},
            "/triggers": {"POST": self.triggers},
            "/subscribe": {"GET": self.subscribe},
            "/runs": {"GET": self.runs},
            "/runs/subscribe": {"GET": self.runs_subscribe},
            "/run": {"GET": self.run, "DELETE": self.delete},
            "/steps": {"GET": self.steps},
            "/logs": {"GET": self.logs},
            "/retry": {"POST": self.retry},
            "/retrigger": {"POST": self.retrigger},
            "/cancel": {"POST": self.cancel},
            "/signal": {"POST": self.signal},
            "/jobs": {"GET": self.jobs},
            "/storage": {"GET": self.storage},
            "/export": {"GET": self.export},
        }

    async def handle(self, request: Request, base_path: str = "") -> Response:
        """Answer a request whose path is `base_path` and an endpoint's. Never raises an `Exception`.

        Errors are answered with `{"error": sentence}` and their status, a wrong method with 405.
        """
        try:
            return await self._route(request, base_path)
        except DurablyError as error:
            # The client may know the database's name, but not where the server keeps it.
            sentence = error.message.replace(self._durably.database_name, Path(self._durably.database_name).name)
            return Response.of_json({"error": sentence}, error.status, {"durably-error": type(error).__name__})
        except Exception:  # noqa: BLE001 - a client gets an answer, the log the traceback
            logger.exception("%s %s failed", request.method, request.url)
            return Response.of_json(
                {"error": "something went wrong inside durably; its log has the details"},
                500,
                {"durably-error": "DurablyError"},
            )

    async def _route(self, request: Request, base_path: str) -> Response:
        try:
            urlsplit(request.url)
        except ValueError as error:
            raise ValidationError(f"the URL cannot be read: {error}") from error
        is_ours = request.path.startswith(base_path)
        methods = self._routes.get(request.path[len(base_path) :]) if is_ours else None
        if methods is None:
            raise NotFoundError(f"there is nothing at {request.path}")
        endpoint = methods.get(request.method.upper())
        if endpoint is None:
            allowed = ", ".join(methods)
            refusal = {"error": f"{request.path} takes {allowed}, not {request.method}"}
            return Response.of_json(refusal, 405, {"allow": allowed})
        return await endpoint(request)

    async def trigger(self, request: Request) -> Response:
        """Store a run: body `{jobName, input, idempotencyKey?, concurrencyKey?, coalesce?, labels?}`.

        Answers `{runId, disposition}`. Raises `ValidationError`, and `NotFoundError` for a job that is not registered.
        """
        [run] = await self._durably.trigger_all([self._wanted(_json(request))])
        return Response.of_json({"runId": run.id, "disposition": run.disposition})

    async def trigger_subscribe(self, request: Request) -> Response:
        """`trigger`, then `subscribe`, with no event between them missed. Raises `ValidationError`, `NotFoundError`."""
        [run] = await self._durably.trigger_all([self._wanted(_json(request))])
        return event_stream(await begun(self._durably.subscribe(run.id)))

    async def triggers(self, request: Request) -> Response:
        """Store several runs, all of them or none: the body is a list of what `trigger` takes.

        Answers a list of `{runId, disposition, run}`. Raises `ValidationError` and `NotFoundError` with the index of
        the item, from 0.
        """
        bodies = _json(request)
        if not isinstance(bodies, list):
            raise ValidationError("the body must be a JSON list")
        wanted: list[JobTrigger] = []
        for index, body in enumerate(bodies):
            try:
                wanted.append(self._wanted(body))
            except (NotFoundError, ValidationError) as error:
                raise type(error)(f"item {index}: {error.message}") from error
        runs = await self._durably.trigger_all(wanted)
        answers = [{"runId": run.id, "disposition": run.disposition, "run": run_json(run)} for run in runs]
        return Response.of_json(answers)

    def _wanted(self, body: Any) -> JobTrigger:
        """What the body of a trigger asks for. Raises `ValidationError` and `NotFoundError`."""
        if not isinstance(body, dict):
            raise ValidationError("a trigger must be a JSON object")
        unknown = sorted(body.keys() - _TRIGGER_FIELDS.keys())
        if unknown:
            raise ValidationError(f"unknown fields: {', '.join(unknown)}; known: {', '.join(_TRIGGER_FIELDS)}")
        options = {_TRIGGER_FIELDS[name]: value for name, value in body.items() if value is not None}
        job_name = options.pop("job_name", None)
        if not isinstance(job_name, str):
            raise ValidationError("jobName, a text, is missing")
        handle = self._durably.get_job(job_name)
        if handle is None:
            known = ", ".join(sorted(job.name for job in self._durably.jobs)) or "none"
            raise NotFoundError(f"no job named '{job_name}' is registered; registered: {known}")
        labels = options.get("labels", {})
        if not isinstance(labels, dict):
            raise ValidationError("labels must be an object of texts")
        return handle.definition, Trigger(options.pop("input", None), **options)

    async def run(self, request: Request) -> Response:
        """One run, by `runId`. Raises `NotFoundError`, `ValidationError` without a `runId`."""
        run = await self._durably.get_run(_run_id(request))
        if run is None:
            raise NotFoundError(f"there is no run {_run_id(request)}")
        return Response.of_json(run_json(run))

    async def runs(self, request: Request) -> Response:
        """Runs, newest first: `status` and `jobName` (repeatable), `label.KEY`, `limit`, `offset`.

        Raises `ValidationError`.
        """
        query = request.query
        found = await self._durably.get_runs(
            status=query.get("status"),
            job_name=query.get("jobName"),
            labels=_labels(query),
            limit=_whole_number(query, "limit"),
            offset=_whole_number(query, "offset") or 0,
        )
        return Response.of_json([run_json(run) for run in found])

    async def steps(self, request: Request) -> Response:
        """The steps of a run. Raises `NotFoundError`, `ValidationError` without a `runId`."""
        steps = await self._durably.get_steps(_run_id(request))
        return Response.of_json([step_json(step) for step in steps])

    async def logs(self, request: Request) -> Response:
        """What a run logged, where that is kept; `id` numbers its lines, from 1.

        Raises `NotFoundError`, `ValidationError` without a `runId`.
        """
        logs = await self._durably.get_logs(_run_id(request))
        return Response.of_json([log_json(number, log) for number, log in enumerate(logs, 1)])

    async def delete(self, request: Request) -> Response:
        """Delete a run that has ended. Raises `NotFoundError`, `ConflictError`, `ValidationError` without a `runId`."""
        await self._durably.delete_run(_run_id(request))
        return Response.of_json({"success": True})

    async def retry(self, request: Request) -> Response:
        """Make a failed or cancelled run pending again.

        Raises `NotFoundError`, `ConflictError`, `ValidationError` without a `runId`.
        """
        await self._durably.retry(_run_id(request))
        return Response.of_json({"success": True})

    async def retrigger(self, request: Request) -> Response:
        """A fresh run like one that has ended: `{success, runId}`.

        Raises `NotFoundError`, `ConflictError`, `ValidationError` without a `runId`.
        """
        run = await self._durably.retrigger(_run_id(request))
        return Response.of_json({"success": True, "runId": run.id})

    async def cancel(self, request: Request) -> Response:
        """Cancel an active run. Raises `NotFoundError`, `ConflictError`, `ValidationError` without a `runId`."""
        await self._durably.cancel(_run_id(request))
        return Response.of_json({"success": True})

    async def signal(self, request: Request) -> Response:
        """Send a signal: `{name, payload?}`. Raises `NotFoundError`, `ConflictError`, `ValidationError`."""
        body = _json(request)
        if not isinstance(body, dict):
            raise ValidationError("the body must be a JSON object")
        name = body.get("name")
        if not isinstance(name, str) or not name:
            raise ValidationError("name, the signal's, is missing")
        await self._durably.signal(_run_id(request), name, body.get("payload"))
        return Response.of_json({"success": True})

    async def jobs(self, _: Request) -> Response:
        """The registered jobs: their names, and the JSON Schemas of their payloads."""
        return Response.of_json([job_json(handle.definition) for handle in self._durably.jobs])

    async def export(self, _: Request) -> Response:
        """All of the database at one moment, as a SQLite file. Raises `StorageError` where nothing was ever stored."""
        image = await self._durably.export()
        return Response(200, {"content-type": "application/vnd.sqlite3", "cache-control": "no-store"}, image)

    async def storage(self, _: Request) -> Response:
        """Where the database is kept, and how it is there: the fields of `StorageInfo`."""
        return Response.of_json(storage_json(await self._durably.storage_info()))

    async def subscribe(self, request: Request) -> Response:
        """Server-sent events of one run, from its present state to its end.

        Raises `NotFoundError`, `ValidationError` without a `runId`.
        """
        run_id = _run_id(request)
        if await self._durably.get_run(run_id) is None:
            raise NotFoundError(f"there is no run {run_id}")
        return event_stream(self._durably.subscribe(run_id))

    async def runs_subscribe(self, request: Request) -> Response:
        """Server-sent events of all runs from now on, or of those of the `jobName`s and with the `label.KEY`s given."""
        job_names, labels = request.query.get("jobName"), _labels(request.query)

        def wanted(event: Event) -> bool:
            of_job = job_names is None or event.job_name in job_names
            return of_job and labels.items() <= dict(event.labels).items()

        return event_stream(EventTap(self._durably.on, wanted))


def _json(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"the body is not JSON: {error}") from error


def _run_id(request: Request) -> str:
    values = request.query.get("runId", [])
    if len(values) != 1 or not values[0]:
        raise ValidationError("the query must have one runId")
    return values[0]


def _labels(query: dict[str, list[str]]) -> dict[str, str]:
    return {name.removeprefix("label."): values[-1] for name, values in query.items() if name.startswith("label.")}


def _whole_number(query: dict[str, list[str]], name: str) -> int | None:
    values = query.get(name)
    if values is None:
        return None
    if not values[-1].isascii() or not values[-1].isdigit() or len(values[-1]) > 15:
        raise ValidationError(f"{name} must be a whole number from 0 on, got {values[-1]!r}")
    return int(values[-1])
