"""The HTTP API described by itself: an OpenAPI 3.1 document, made from the records that go over the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from ..events import EVENT_CLASSES, Event
from ..records import Log, Progress, Run, RunStatus, Step, StorageInfo
from .reading import MOST_LABELS, MOST_TRIGGERS
from .wire import HIDDEN, camel

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_LABEL_KEY = "[A-Za-z0-9._/-]+"
_LABELS: Schema = {
    "type": "object",
    "maxProperties": MOST_LABELS,
    "propertyNames": {"pattern": f"^{_LABEL_KEY}$"},
    "additionalProperties": {"type": "string", "pattern": "^[^\\x00]*$"},
}
_KEY: Schema = {"type": ["string", "null"], "minLength": 1}
_SUCCESS: Schema = {"const": True}
_STATUS: Schema = {"enum": [status.value for status in RunStatus]}
_DISPOSITION: Schema = {"enum": ["created", "idempotent", "coalesced"]}

_PROBLEMS = {
    400: "The request makes no sense; the sentence says where.",
    404: "There is no such run or job.",
    409: "The run's status does not allow this.",
    413: "The body is too large.",
    500: "Something went wrong inside.",
}


@dataclass(frozen=True, kw_only=True)
class _Operation:
    """What one method of one path takes and gives. `answer` is a schema, or a media type of its own."""

    answer: Schema | str
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    problems: tuple[int, ...] = ()


def _parameter(name: str, schema: Schema, text: str, **more: Any) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema, **more}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _object(properties: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


_RUN_ID = _parameter("runId", {"type": "string", "minLength": 1}, "The run.", required=True)
_OF_JOBS = _parameter("jobName", _list(_TEXT), "Only runs of these jobs.", style="form", explode=True)
_OF_STATUSES = _parameter("status", _list(_STATUS), "Only runs with one of these.", style="form", explode=True)
# A parameter for each label cannot be said in OpenAPI but so: an object whose keys are the names.
_OF_LABELS = _parameter(
    "labels",
    {"type": "object", "patternProperties": {f"^label\\.{_LABEL_KEY}$": _TEXT}, "additionalProperties": False},
    "Only runs with all of these labels, each a parameter of its own: `label.KEY=VALUE`.",
    style="form",
    explode=True,
)
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was heard: what has become of runs since is told first.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,17}$"},
}
_EVENTS = "text/event-stream"
_OF_RUN: tuple[Schema, ...] = (_RUN_ID,)
_DONE = _object({"success": _SUCCESS})

_OPERATIONS: dict[str, dict[str, _Operation]] = {
    "/trigger": {
        "POST": _Operation(body=_reference("TriggerRequest"), answer=_reference("Triggered"), problems=(400, 404, 413))
    },
    "/trigger/subscribe": {
        "POST": _Operation(body=_reference("TriggerRequest"), answer=_EVENTS, problems=(400, 404, 413))
    },
    "/triggers": {
        "POST": _Operation(
            body=_list(_reference("TriggerRequest")) | {"maxItems": MOST_TRIGGERS},
            answer=_list(
                _object({"runId": _TEXT, "disposition": _DISPOSITION, "run": _reference("Run")}, optional=["run"])
            ),
            problems=(400, 404, 413),
        )
    },
    "/subscribe": {"GET": _Operation(parameters=(*_OF_RUN, _LAST_EVENT_ID), answer=_EVENTS, problems=(400, 404))},
    "/runs/subscribe": {
        "GET": _Operation(parameters=(_OF_JOBS, _OF_LABELS, _LAST_EVENT_ID), answer=_EVENTS, problems=(400,))
    },
    "/runs": {
        "GET": _Operation(
            parameters=(
                _OF_JOBS,
                _OF_STATUSES,
                _OF_LABELS,
                _parameter("limit", _NUMBER, "At most so many; default: all."),
                _parameter("offset", _NUMBER, "Without the first so many; default: 0."),
            ),
            answer=_list(_reference("Run")),
            problems=(400,),
        )
    },
    "/run": {
        "GET": _Operation(parameters=_OF_RUN, answer=_reference("Run"), problems=(400, 404)),
        "DELETE": _Operation(parameters=_OF_RUN, answer=_DONE, problems=(400, 404, 409)),
    },
    "/steps": {"GET": _Operation(parameters=_OF_RUN, answer=_list(_reference("Step")), problems=(400, 404))},
    "/logs": {"GET": _Operation(parameters=_OF_RUN, answer=_list(_reference("Log")), problems=(400, 404))},
    "/retry": {"POST": _Operation(parameters=_OF_RUN, answer=_DONE, problems=(400, 404, 409))},
    "/cancel": {"POST": _Operation(parameters=_OF_RUN, answer=_DONE, problems=(400, 404, 409))},
    "/retrigger": {
        "POST": _Operation(
            parameters=_OF_RUN, answer=_object({"success": _SUCCESS, "runId": _TEXT}), problems=(400, 404, 409)
        )
    },
    "/signal": {
        "POST": _Operation(parameters=_OF_RUN, body=_reference("Signal"), answer=_DONE, problems=(400, 404, 409, 413))
    },
    "/jobs": {"GET": _Operation(answer=_list(_reference("Job")))},
    "/storage": {"GET": _Operation(answer=_reference("StorageInfo"))},
    "/export": {"GET": _Operation(answer="application/vnd.sqlite3")},
    "/openapi.json": {"GET": _Operation(answer={"type": "object"})},
}


def openapi_document(summaries: Mapping[tuple[str, str], str], base_path: str) -> Schema:
    """The document. `summaries` has a sentence for each method and path; `base_path` is where the API begins."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "durably",
            "version": version("durably"),
            "description": "Durable jobs: trigger runs, look at them, follow them, change them. Names are camelCase, "
            "moments ISO 8601 in UTC. A server may ask who you are, and refuse with any status from 400 on.",
        },
        "servers": [{"url": base_path or "/"}],
        "paths": {
            path: {
                method.lower(): _described(operation, summaries[method, path]) for method, operation in methods.items()
            }
            for path, methods in _OPERATIONS.items()
        },
        "components": {"schemas": _schemas()},
    }


def _described(operation: _Operation, summary: str) -> Schema:
    if isinstance(operation.answer, str):
        is_text = operation.answer == _EVENTS
        content = {operation.answer: {"schema": {"type": "string"} if is_text else {}}}
    else:
        content = {"application/json": {"schema": operation.answer}}
    described: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": content},
            **({"204": {"description": "The end was heard already."}} if operation.answer == _EVENTS else {}),
            **{str(status): _problem(_PROBLEMS[status]) for status in (*operation.problems, 500)},
            "default": _problem("Refused."),
        },
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    return described


def _problem(text: str) -> Schema:
    header = {"description": "The name of the error's class.", "schema": _TEXT}
    content = {"application/json": {"schema": _reference("Error")}}
    return {"description": text, "headers": {"durably-error": header}, "content": content}


def _schemas() -> dict[str, Schema]:
    trigger = {
        "jobName": _TEXT,
        "input": {"description": "The payload, as the job's schema says."},
        "idempotencyKey": _KEY,
        "concurrencyKey": _KEY,
        "coalesce": {"enum": ["skip", None]},
        "labels": {"anyOf": [_LABELS, {"type": "null"}]},
    }
    run = _record(Run[Any])
    run["properties"] |= {"isTerminal": {"type": "boolean"}, "isActive": {"type": "boolean"}}
    run["required"] += ["isTerminal", "isActive"]
    log = _record(Log)
    log["properties"]["id"] = {"type": "integer", "minimum": 1}
    log["required"].append("id")
    events = {f"Event-{kind.type.replace(':', '-')}": _event(kind) for kind in EVENT_CLASSES}
    return {
        "Error": _object({"error": _TEXT}),
        "TriggerRequest": _object(trigger, optional=trigger.keys() - {"jobName"}),
        "Triggered": _object({"runId": _TEXT, "disposition": _DISPOSITION}),
        "Signal": _object({"name": {"type": "string", "minLength": 1}, "payload": {}}, optional=["payload"]),
        "Job": _object({"name": _TEXT, "schema": {"type": "object"}}),
        "Run": run,
        "Step": _record(Step),
        "Log": log,
        "Progress": _record(Progress),
        "StorageInfo": _record(StorageInfo),
        "Event": {"description": "The data of a server-sent event.", "oneOf": [_reference(name) for name in events]},
        **events,
    }


def _event(kind: type[Event]) -> Schema:
    schema = _record(kind)
    schema["properties"]["type"] = {"const": kind.type}
    schema["required"].append("type")
    return schema


def _record(kind: Any) -> Schema:
    """The schema of a record as `wire` shows it: all of its fields are there, with the names of the wire."""
    made = TypeAdapter(kind).json_schema(mode="serialization")
    definitions = made.get("$defs", {})
    shown = {name: schema for name, schema in made["properties"].items() if name not in HIDDEN}
    properties = {camel(name): _inlined(schema, definitions) for name, schema in shown.items()}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _inlined(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """A schema without references and without what pydantic notes for people."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items() if key not in ("title", "default")}
