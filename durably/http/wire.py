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
"""What a run and its events keep to themselves: keys may be secrets, the rest is the workers' business."""

USER_DATA = {"payload", "output", "data", "labels"}
"""Fields whose inside is the user's, and whose keys are left as they are."""


def run_json(run: Run[Any]) -> dict[str, Any]:
    shown = {name: value for name, value in _fields(run) if name not in HIDDEN}
    return {**_record(shown), "isTerminal": run.is_terminal, "isActive": run.is_active}


def step_json(step: Step) -> dict[str, Any]:
    return _record(dict(_fields(step)))


def log_json(number: int, log: Log) -> dict[str, Any]:
    return {"id": number, **_record(dict(_fields(log)))}


def job_json(definition: JobDefinition[Any, Any]) -> dict[str, Any]:
    return _record({"name": definition.name, "schema": definition.payload_schema()})


def storage_json(info: StorageInfo) -> dict[str, Any]:
    return _record(dict(_fields(info)))


def event_json(event: Event) -> dict[str, Any]:
    return {"type": event.type, **_record({name: value for name, value in _fields(event) if name not in HIDDEN})}


_names: dict[type, list[str]] = {}
"""The fields of each kind of record, which `dataclasses` would gather anew each time."""


def _fields(record: Any) -> list[tuple[str, Any]]:
    kind = type(record)
    if kind not in _names:
        _names[kind] = [field.name for field in dataclasses.fields(kind)]
    return [(name, getattr(record, name)) for name in _names[kind]]


def _record(values: dict[str, Any]) -> dict[str, Any]:
    return {camel(name): _plain(name, value) for name, value in values.items()}


def _plain(name: str, value: Any) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, datetime) and name not in USER_DATA:
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.loads(to_json(value, fallback=repr, bytes_mode="base64", inf_nan_mode="strings"))


@cache
def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
