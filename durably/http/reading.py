"""What a request asks for, read strictly: each function raises `ValidationError` for what makes no sense."""

from __future__ import annotations

import json
import math
from typing import Any

from ..errors import ValidationError
from .auth import RunFilter, TriggerRequest
from .message import Request

DEEPEST = 100
"""Lists and objects inside one another: more is no data that anybody means, and some libraries give up soon after."""

MOST_TRIGGERS, MOST_LABELS = 10_000, 32
"""Of one request, and of one run: what is below the limit of a body's size can still keep a server busy for minutes."""

TRIGGER_FIELDS = {
    "jobName": "job_name",
    "input": "input",
    "idempotencyKey": "idempotency_key",
    "concurrencyKey": "concurrency_key",
    "coalesce": "coalesce",
    "labels": "labels",
}


def json_body(request: Request) -> Any:
    """The body, which is JSON in UTF-8."""
    try:
        value = json.loads(request.body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"the body is not JSON: {error}") from error
    if _is_deep(value):
        raise ValidationError(f"the body has more than {DEEPEST} lists and objects inside one another")
    return value


def trigger_bodies(request: Request) -> list[Any]:
    """The bodies of several triggers."""
    bodies = json_body(request)
    if not isinstance(bodies, list):
        raise ValidationError("the body must be a JSON list")
    if len(bodies) > MOST_TRIGGERS:
        raise ValidationError(f"at most {MOST_TRIGGERS} runs are triggered at once, not {len(bodies)}")
    return bodies


def trigger_request(body: Any) -> TriggerRequest:
    """What the body of a trigger asks for."""
    if not isinstance(body, dict):
        raise ValidationError("a trigger must be a JSON object")
    unknown = sorted(body.keys() - TRIGGER_FIELDS.keys())
    if unknown:
        raise ValidationError(f"unknown fields: {', '.join(unknown)}; known: {', '.join(TRIGGER_FIELDS)}")
    options = {TRIGGER_FIELDS[name]: value for name, value in body.items() if value is not None}
    if not isinstance(options.get("job_name"), str):
        raise ValidationError("jobName, a text, is missing")
    labels = options.get("labels", {})
    if not isinstance(labels, dict):
        raise ValidationError("labels must be an object of texts")
    if len(labels) > MOST_LABELS:
        raise ValidationError(f"a run has at most {MOST_LABELS} labels, not {len(labels)}")
    return TriggerRequest(**options)


def signal_body(request: Request) -> tuple[str, Any]:
    """A signal's name and its payload."""
    body = json_body(request)
    if not isinstance(body, dict):
        raise ValidationError("the body must be a JSON object")
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise ValidationError("name, the signal's, is missing")
    return name, body.get("payload")


def run_id(request: Request) -> str:
    """The one `runId` of the query."""
    values = request.query.get("runId", [])
    if len(values) != 1 or not values[0]:
        raise ValidationError("the query must have one runId")
    return values[0]


def run_filter(request: Request) -> RunFilter:
    """`jobName` and `label.KEY`, which runs and events are found by."""
    query = request.query
    labels = {name.removeprefix("label."): _one(query, name) for name in query if name.startswith("label.")}
    if "" in labels:
        raise ValidationError("the key of a label is missing behind 'label.'")
    return RunFilter(job_name=query.get("jobName"), labels={key: value or "" for key, value in labels.items()})


def run_page(request: Request) -> RunFilter:
    """`run_filter` and `status`, `limit` and `offset`, which only a list of runs has."""
    wanted, query = run_filter(request), request.query
    wanted.status = query.get("status")
    wanted.limit = _whole_number(query, "limit")
    wanted.offset = _whole_number(query, "offset") or 0
    return wanted


def _one(query: dict[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    if values is not None and len(values) > 1:
        raise ValidationError(f"the query has {name} {len(values)} times")
    return None if values is None else values[0]


def _whole_number(query: dict[str, list[str]], name: str) -> int | None:
    value = _one(query, name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        raise ValidationError(f"{name} must be a whole number from 0 on, got {value!r}")
    return int(value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number
