"""`Request` and `Response`: HTTP messages that belong to no framework."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Headers(Mapping[str, str]):
    """Headers, found by any spelling of their name."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._values = {name.lower(): value for name, value in (headers or {}).items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"


@dataclass(frozen=True)
class Request:
    """`url` is absolute, or a path with its query."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", Headers(self.headers))

    @property
    def path(self) -> str:
        """The path of the URL, without host and query."""
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, list[str]]:
        """Each parameter of the query with all its values."""
        return parse_qs(urlsplit(self.url).query, keep_blank_values=True)


@dataclass(frozen=True)
class Response:
    """`body` is bytes, or an async iterator of them for a stream without an end known."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", Headers(self.headers))

    @classmethod
    def of_json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """A response whose body is `value` as JSON."""
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        return cls(status, {"content-type": "application/json", **(headers or {})}, body)
