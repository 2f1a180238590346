"""The stored form of a step's result: what is read back equals what was written, in value and type.

A result that is `bytes` as a whole is kept as it is (a BLOB). Everything else becomes JSON text:

* `None`, `bool`, `int`, finite `float`, `str`, `list`, and `dict` with string keys, stand for themselves;
* the rest is tagged, `{"$": TAG, "v": VALUE}`, with `"t": "module:Qualified.Name"` where a class is meant.

| tag | Python | `v` |
|---|---|---|
| `float` | `nan`, `inf`, `-inf` | its `repr` |
| `int` | one of more than 10,000 bits | hexadecimal text: Python limits how long a decimal one may be |
| `bytes` | `bytes` inside a container | base64 text |
| `tuple` `set` `frozenset` | the same | list of values |
| `dict` | a dict with other keys, or with the key `$` | list of `[key, value]` |
| `datetime` `date` `time` | the same | ISO 8601; with `"z"` the `ZoneInfo` key, with `"f"` the fold |
| `timedelta` | the same | `[days, seconds, microseconds]` |
| `decimal` `uuid` | `Decimal`, `UUID` | text |
| `enum` | a member | its name; of a combination of flags the value |
| `dataclass` | an instance | dict of its fields |
| `model` | a pydantic model | its state: fields, fields set, extras, private attributes |

Classes are found again by import path; one that is not there, or whose fields differ, is refused with
`CodecError`: a wrong value is worse than none. Nothing stored is ever executed: no pickle, no eval, and
only enums, dataclasses and pydantic models are ever built.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel

Stored = str | bytes

_LONGEST_DECIMAL_BITS = 10_000
_SURROGATE = re.compile("[\ud800-\udfff]")


class CodecError(Exception):
    """`path` (such as `$.rows[3].when`) cannot be kept or read back, for `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


def encode(value: Any) -> Stored:
    """The stored form of `value`. Raises `CodecError` for what could not be read back equal."""
    if type(value) is bytes:
        return value
    try:
        packed = _pack(value, "$")
        text = json.dumps(packed, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise CodecError("$", "is nested too deeply, or contains itself") from None
    # A lone surrogate fits into no UTF-8; escaped it is plain ASCII, and comes back as it was.
    return text if text.isascii() or not _SURROGATE.search(text) else json.dumps(packed, separators=(",", ":"))


def decode(stored: Stored) -> Any:
    """The value that `encode` was given. Raises `CodecError` where its classes have changed since."""
    if isinstance(stored, bytes):
        return stored
    return _unpack(json.loads(stored), "$")


def _pack(value: Any, path: str) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if value.bit_length() <= _LONGEST_DECIMAL_BITS else {"$": "int", "v": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if kind is list:
        return _pack_items(value, path)
    if kind is dict:
        if all(type(key) is str and key != "$" for key in value):
            return {key: _pack(item, f"{path}.{key}") for key, item in value.items()}
        pairs = [[_pack(key, f"{path}.keys"), _pack(item, f"{path}[{key!r}]")] for key, item in value.items()]
        return {"$": "dict", "v": pairs}
    packer = _PACKERS.get(kind)
    if packer is not None:
        return packer(value, path)
    if isinstance(value, Enum):
        is_member = value.name in kind.__members__
        return {"$": "enum", "t": _import_path(kind, path), "v": value.name if is_member else [value.value]}
    if isinstance(value, BaseModel):
        state = value.__getstate__()
        # Beside its fields a model may remember computed ones; they are computed again.
        fields = {name: item for name, item in state["__dict__"].items() if name in kind.model_fields}
        return {"$": "model", "t": _import_path(kind, path), "v": _pack({**state, "__dict__": fields}, path)}
    if dataclasses.is_dataclass(kind) and not issubclass(kind, BaseException):
        fields = {
            field.name: _pack(getattr(value, field.name), f"{path}.{field.name}") for field in dataclasses.fields(kind)
        }
        return {"$": "dataclass", "t": _import_path(kind, path), "v": fields}
    raise CodecError(
        path,
        f"is a {kind.__module__}.{kind.__qualname__}, which has no stored form; return JSON values, bytes, "
        "dates, Decimal, UUID, sets, tuples, enums, dataclasses or pydantic models",
    )


def _pack_items(items: Any, path: str) -> list[Any]:
    return [_pack(item, f"{path}[{index}]") for index, item in enumerate(items)]


def _pack_moment(value: datetime | time, path: str) -> dict[str, Any]:
    zone = value.tzinfo
    packed: dict[str, Any] = {"$": "datetime" if isinstance(value, datetime) else "time", "v": value.isoformat()}
    if isinstance(zone, ZoneInfo):
        if zone.key is None:
            raise CodecError(path, "has a time zone without a name")
        packed |= {"v": value.replace(tzinfo=None).isoformat(), "z": zone.key}
    elif zone is not None and type(zone) is not timezone:
        raise CodecError(
            path, f"has a time zone of the class {type(zone).__qualname__}; use ZoneInfo or a fixed offset"
        )
    if value.fold:
        packed["f"] = 1
    return packed


_PACKERS: dict[type, Callable[[Any, str], dict[str, Any]]] = {
    bytes: lambda value, _: {"$": "bytes", "v": base64.b64encode(value).decode("ascii")},
    tuple: lambda value, path: {"$": "tuple", "v": _pack_items(value, path)},
    set: lambda value, path: {"$": "set", "v": _pack_items(value, path)},
    frozenset: lambda value, path: {"$": "frozenset", "v": _pack_items(value, path)},
    datetime: _pack_moment,
    date: lambda value, _: {"$": "date", "v": value.isoformat()},
    time: _pack_moment,
    timedelta: lambda value, _: {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value, _: {"$": "decimal", "v": str(value)},
    UUID: lambda value, _: {"$": "uuid", "v": str(value)},
}


def _import_path(kind: type, path: str) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _find_class(name, path) is not kind:
        raise CodecError(path, f"is a {name}, which cannot be found again by that name")
    return name


def _find_class(name: str, path: str) -> type:
    module_name, _, qualified = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        raise CodecError(
            path,
            f"is a {name}, which cannot be found by that name; define the class at the top level of a module",
        ) from None
    if not isinstance(found, type):
        raise CodecError(path, f"names {name}, which is not a class")
    return found


def _unpack(packed: Any, path: str) -> Any:
    if isinstance(packed, list):
        return [_unpack(item, f"{path}[{index}]") for index, item in enumerate(packed)]
    if not isinstance(packed, dict):
        return packed
    tag = packed.get("$")
    if tag is None:
        return {key: _unpack(item, f"{path}.{key}") for key, item in packed.items()}
    unpacker = _UNPACKERS.get(tag)
    if unpacker is None:
        raise CodecError(path, f"has the tag {tag!r}, which this version does not know")
    return unpacker(packed, path)


def _unpack_moment(packed: dict[str, Any], path: str) -> datetime | time:
    kind = datetime if packed["$"] == "datetime" else time
    moment = kind.fromisoformat(packed["v"])
    if "z" in packed:
        try:
            moment = moment.replace(tzinfo=ZoneInfo(packed["z"]))
        except ZoneInfoNotFoundError:
            raise CodecError(path, f"is in the time zone {packed['z']}, which is not known here") from None
    return moment.replace(fold=1) if "f" in packed else moment


def _unpack_enum(packed: dict[str, Any], path: str) -> Enum:
    kind = _find_class(packed["t"], path)
    name = packed["v"]
    try:
        if issubclass(kind, Enum):
            return kind(name[0]) if isinstance(name, list) else kind[name]
    except (KeyError, ValueError):
        pass  # said below
    raise CodecError(path, f"was {packed['t']}.{name}, which is no member of an enum any more")


def _unpack_dataclass(packed: dict[str, Any], path: str) -> Any:
    kind = _find_class(packed["t"], path)
    if not dataclasses.is_dataclass(kind):
        raise CodecError(path, f"was a {packed['t']}, which is no dataclass any more")
    _check_fields(packed["t"], set(packed["v"]), {field.name for field in dataclasses.fields(kind)}, path)
    # Without __init__: what was kept is the state, and __post_init__ may not bear being run on its own result.
    value = object.__new__(kind)
    for name, item in packed["v"].items():
        object.__setattr__(value, name, _unpack(item, f"{path}.{name}"))
    return value


def _unpack_model(packed: dict[str, Any], path: str) -> BaseModel:
    kind = _find_class(packed["t"], path)
    if not issubclass(kind, BaseModel):
        raise CodecError(path, f"was a {packed['t']}, which is no pydantic model any more")
    state = _unpack(packed["v"], path)
    _check_fields(packed["t"], set(state["__dict__"]), set(kind.model_fields), path)
    value = kind.__new__(kind)
    value.__setstate__(state)
    return value


def _check_fields(name: str, stored: set[str], declared: set[str], path: str) -> None:
    if stored != declared:
        changed = ", ".join(sorted(stored ^ declared))
        raise CodecError(path, f"is a {name} stored with other fields than it has now ({changed})")


_UNPACKERS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "float": lambda packed, _: float(packed["v"]),
    "int": lambda packed, _: int(packed["v"], 16),
    "bytes": lambda packed, _: base64.b64decode(packed["v"]),
    "tuple": lambda packed, path: tuple(_unpack(packed["v"], path)),
    "set": lambda packed, path: set(_unpack(packed["v"], path)),
    "frozenset": lambda packed, path: frozenset(_unpack(packed["v"], path)),
    "dict": lambda packed, path: {_unpack(key, path): _unpack(item, path) for key, item in packed["v"]},
    "datetime": _unpack_moment,
    "date": lambda packed, _: date.fromisoformat(packed["v"]),
    "time": _unpack_moment,
    "timedelta": lambda packed, _: timedelta(*packed["v"]),
    "decimal": lambda packed, _: Decimal(packed["v"]),
    "uuid": lambda packed, _: UUID(packed["v"]),
    "enum": _unpack_enum,
    "dataclass": _unpack_dataclass,
    "model": _unpack_model,
}
