"""The stored form of a step's result: what is read back equals what was written, in value and type.

A result that is `bytes` as a whole is kept as it is (a BLOB). Everything else becomes JSON text:

* `None`, `bool`, `int`, finite `float`, `str`, `list`, and `dict` with string keys, stand for themselves;
* the rest is tagged, `{"$": TAG, "v": VALUE}`, with `"t": "module:Qualified.Name"` where a class is meant.

| tag | Python | `v` |
|---|---|---|
| `float` | `nan`, `inf`, `-inf` | its `repr` |
| `int` | one of more than 10,000 bits | hexadecimal text: Python limits how long a decimal one may be |
| `str` | one with surrogates | base64 text of its UTF-8, surrogates encoded like any other character |
| `bytes` | `bytes` inside a container | base64 text |
| `tuple` `set` `frozenset` | the same | list of values |
| `dict` | a dict with other keys, or with the key `$` | list of `[key, value]` |
| `datetime` `date` `time` | the same | ISO 8601; `"z"`: the `ZoneInfo` key, `"n"`: an offset's name, `"f"`: the fold |
| `timedelta` | the same | `[days, seconds, microseconds]` |
| `decimal` `uuid` | `Decimal`, `UUID` | text |
| `enum` | a member | its name; of a combination of flags a list of the value alone |
| `dataclass` | an instance | dict of its fields; `"x"`: dict of what else was set on it |
| `model` | a pydantic model | its state: fields, fields set, extras, private attributes; `"t"` of `Box[int]`: a list |

Classes are found again by import path; one that is not there, or whose fields differ, is refused with
`CodecError`: a wrong value is worse than none. Nothing stored is ever executed: no pickle, no eval, and
only enums, dataclasses and pydantic models are ever built. What their classes compute and remember
(`cached_property`) is no part of the value, and is computed again.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import inspect
import json
import math
import re
from collections.abc import Callable, Sized
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel

Stored = str | bytes

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_LONGEST_DECIMAL_BITS = 10_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_GENERIC_MARK = "__orig_class__"
"""What `typing` leaves on an instance that was made as `Box[int](...)`; equality knows nothing of it."""

T = TypeVar("T", bound=Sized)


class CodecError(Exception):
    """`path` (such as `$.rows[3].when`) cannot be kept or read back, for `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


def is_text(value: object) -> bool:
    """Whether it is a text that every database and wire can take: one without lone surrogates."""
    return isinstance(value, str) and not _has_surrogate(value)


def encode(value: Any) -> Stored:
    """The stored form of `value`. Raises `CodecError` for what could not be read back equal."""
    if type(value) is bytes:
        return value
    try:
        return _ENCODER.encode(_pack(value, "$"))
    except RecursionError:
        raise CodecError(_ring(value, "$", ()) or "$", "is nested too deeply, or contains itself") from None


def decode(stored: Stored) -> Any:
    """The value that `encode` was given.

    Raises `CodecError` where its classes have changed since, and for text that `encode` did not write.
    """
    if isinstance(stored, bytes):
        return stored
    try:
        return _unpack(json.loads(stored), "$")
    except RecursionError:
        raise CodecError("$", "is nested too deeply to be read back") from None
    except ValueError as error:
        raise CodecError("$", f"is damaged: {error}") from error


def _ring(value: Any, path: str, inside: tuple[int, ...]) -> str | None:
    """The path at which a list, tuple or dict contains itself."""
    if id(value) in inside:
        return path
    if isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return None
    try:
        found = (_ring(item, at, (*inside, id(value))) for at, item in items)
        return next((at for at in found if at is not None), None)
    except RecursionError:
        return None  # deep, and no ring


def _pack(value: Any, path: str) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return {"$": "str", "v": _base64(value.encode("utf-8", "surrogatepass"))} if _has_surrogate(value) else value
    if kind is int:
        return value if value.bit_length() <= _LONGEST_DECIMAL_BITS else {"$": "int", "v": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if kind is list:
        return _pack_items(value, path)
    if kind is dict:
        if all(type(key) is str and key != "$" and not _has_surrogate(key) for key in value):
            return {key: _pack(item, f"{path}.{key}") for key, item in value.items()}
        pairs = [[_pack(key, f"{path}.keys"), _pack(item, f"{path}[{key!r}]")] for key, item in value.items()]
        return {"$": "dict", "v": pairs}
    packer = _PACKERS.get(kind)
    if packer is not None:
        return packer(value, path)
    if isinstance(value, Enum):
        # The names with underscores: a class may define `name` and `value` to be something else.
        is_member = value._name_ in kind.__members__
        what = _pack(value._name_, path) if is_member else [_pack(value._value_, path)]
        return {"$": "enum", "t": _import_path(kind, path), "v": what}
    if isinstance(value, BaseModel):
        state = value.__getstate__()
        # Beside its fields a model may remember computed ones; they are computed again.
        fields = {name: item for name, item in state["__dict__"].items() if name in kind.model_fields}
        return {"$": "model", "t": _model_name(kind, path), "v": _pack({**state, "__dict__": fields}, path)}
    if dataclasses.is_dataclass(kind) and not issubclass(kind, BaseException):
        return _pack_dataclass(value, kind, path)
    raise CodecError(
        path,
        f"is a {kind.__module__}.{kind.__qualname__}, which has no stored form; return JSON values, bytes, "
        "dates, Decimal, UUID, sets, tuples, enums, dataclasses or pydantic models",
    )


def _pack_items(items: Any, path: str) -> list[Any]:
    return [_pack(item, f"{path}[{index}]") for index, item in enumerate(items)]


def _pack_dataclass(value: Any, kind: type, path: str) -> dict[str, Any]:
    fields, unset = {}, object()
    for field in dataclasses.fields(kind):
        item = getattr(value, field.name, unset)
        if item is unset:
            raise CodecError(f"{path}.{field.name}", "is a field that was never set")
        fields[field.name] = _pack(item, f"{path}.{field.name}")
    packed = {"$": "dataclass", "t": _import_path(kind, path), "v": fields}
    others = {
        name: _pack(item, f"{path}.{name}")
        for name, item in getattr(value, "__dict__", {}).items()
        if name not in fields and name != _GENERIC_MARK and not _is_remembered(kind, name)
    }
    return packed | {"x": others} if others else packed


def _is_remembered(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), cached_property)


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _pack_moment(value: datetime | time, path: str) -> dict[str, Any]:
    zone = value.tzinfo
    packed: dict[str, Any] = {"$": "datetime" if isinstance(value, datetime) else "time", "v": value.isoformat()}
    if type(zone) is ZoneInfo:
        if zone.key is None:
            raise CodecError(path, "has a time zone without a name")
        packed |= {"v": value.replace(tzinfo=None).isoformat(), "z": zone.key}
    elif zone is not None and type(zone) is not timezone:
        raise CodecError(
            path, f"has a time zone of the class {type(zone).__qualname__}; use ZoneInfo or a fixed offset"
        )
    elif zone is not None and (name := zone.tzname(None)) != timezone(zone.utcoffset(None)).tzname(None):
        packed["n"] = _pack(name, path)
    if value.fold:
        packed["f"] = 1
    return packed


_PACKERS: dict[type, Callable[[Any, str], dict[str, Any]]] = {
    bytes: lambda value, _: {"$": "bytes", "v": _base64(value)},
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


def _model_name(kind: type, path: str) -> Any:
    """A class's import path; of a generic model that has none, as `Box[int]`, a list: those of what it is made of."""
    try:
        return _import_path(kind, path)
    except CodecError:
        made_of = getattr(kind, "__pydantic_generic_metadata__", {"args": ()})
        if not made_of["args"] or not all(isinstance(arg, type) for arg in made_of["args"]):
            raise
        name = [_model_name(part, path) for part in (made_of["origin"], *made_of["args"])]
        if _find_model(name, path) is not kind:
            raise
        return name


def _find_model(name: Any, path: str) -> Any:
    if not isinstance(name, list):
        return _find_class(name, path)
    generic, *args = [_find_model(part, path) for part in name]
    if not issubclass(generic, BaseModel):
        raise CodecError(path, f"was made of {name}, which is no pydantic model any more")
    return generic.__class_getitem__(tuple(args))


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
    try:
        return unpacker(packed, path)
    except (CodecError, RecursionError):
        raise
    except Exception as error:  # a class of the user's may refuse its old state with any error
        raise CodecError(path, f"cannot be read back: {type(error).__name__}: {error}") from error


def _unpack_moment(packed: dict[str, Any], path: str) -> datetime | time:
    kind = datetime if packed["$"] == "datetime" else time
    moment = kind.fromisoformat(packed["v"])
    if "n" in packed:
        offset = moment.utcoffset()
        if offset is None:
            raise CodecError(path, "has the name of an offset, and no offset")
        moment = moment.replace(tzinfo=timezone(offset, _unpack(packed["n"], path)))
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
            return kind(_unpack(name[0], path)) if isinstance(name, list) else kind[_unpack(name, path)]
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
    for name, item in (packed["v"] | packed.get("x", {})).items():
        object.__setattr__(value, name, _unpack(item, f"{path}.{name}"))
    return value


def _unpack_model(packed: dict[str, Any], path: str) -> BaseModel:
    kind = _find_model(packed["t"], path)
    if not issubclass(kind, BaseModel):
        raise CodecError(path, f"was a {packed['t']}, which is no pydantic model any more")
    state = _unpack(packed["v"], path)
    _check_fields(packed["t"], set(state["__dict__"]), set(kind.model_fields), path)
    value: BaseModel = kind.__new__(kind)
    value.__setstate__(state)
    return value


def _unpack_set(packed: dict[str, Any], path: str) -> set[Any]:
    items = set(_unpack(packed["v"], path))
    return _all_there(items, packed["v"], path)


def _unpack_dict(packed: dict[str, Any], path: str) -> dict[Any, Any]:
    items = {_unpack(key, f"{path}.keys"): _unpack(item, f"{path}[...]") for key, item in packed["v"]}
    return _all_there(items, packed["v"], path)


def _all_there(items: T, stored: list[Any], path: str) -> T:
    """Two that were different may be equal by now: an enum's two members are one if they have the same value."""
    if len(items) != len(stored):
        raise CodecError(path, "had items that were different and are equal now")
    return items


def _check_fields(name: str, stored: set[str], declared: set[str], path: str) -> None:
    if stored != declared:
        changed = ", ".join(sorted(stored ^ declared))
        raise CodecError(path, f"is a {name} stored with other fields than it has now ({changed})")


_UNPACKERS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "float": lambda packed, _: float(packed["v"]),
    "int": lambda packed, _: int(packed["v"], 16),
    "str": lambda packed, _: base64.b64decode(packed["v"]).decode("utf-8", "surrogatepass"),
    "bytes": lambda packed, _: base64.b64decode(packed["v"]),
    "tuple": lambda packed, path: tuple(_unpack(packed["v"], path)),
    "set": _unpack_set,
    "frozenset": lambda packed, path: frozenset(_unpack_set(packed, path)),
    "dict": _unpack_dict,
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
