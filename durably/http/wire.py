"""Runs, steps and events as the wire shows them: plain JSON with camelCase names, times in ISO 8601."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from functools import cache
from typing import Any

from pydantic_core import to_json

from ..events import Event
from ..jobs import JobDefinition
from ..records import Log, Run, Step, StorageInfo

HIDDEN = {"idempotency_key", "concurrency_key", "worker_id", "generation", "heartbeat_at", "updated_at", "disposition"}
"""What is not shown of a run and its events: keys may be secrets, the rest is the workers' business."""

USER_DATA = {"payload", "output", "data", "labels"}
"""Fields whose inside is the user's, and whose keys are left as they are."""


def run_json(run: Run[Any]) -> dict[str, Any]:
    return {**_record(run), "isTerminal": run.is_terminal, "isActive": run.is_active}


def step_json(step: Step) -> dict[str, Any]:
    return _record(step)


def log_json(number: int, log: Log) -> dict[str, Any]:
    return {"id": number, **_record(log)}


def job_json(definition: JobDefinition[Any, Any]) -> dict[str, Any]:
    return {"name": definition.name, "schema": _plain("schema", definition.payload_schema())}


def storage_json(info: StorageInfo) -> dict[str, Any]:
    return _record(info)


def event_json(event: Event) -> dict[str, Any]:
    return {"type": event.type, **_record(event)}


def _record(record: Any) -> dict[str, Any]:
    return {shown: _plain(name, getattr(record, name)) for name, shown in _shown(record.__class__)}


@cache
def _shown(kind: type) -> list[tuple[str, str]]:
    """The fields of a kind of record that are shown, each with its name on the wire."""
    return [(field.name, camel(field.name)) for field in dataclasses.fields(kind) if field.name not in HIDDEN]


def _plain(name: str, value: Any) -> Any:
    if value is None or type(value) in (str, int, bool) or (type(value) is dict and not value):
        return value
    if isinstance(value, datetime) and name not in USER_DATA:
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.loads(to_json(value, fallback=repr, bytes_mode="base64", inf_nan_mode="strings"))


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
