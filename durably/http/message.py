"""`Request` and `Response`: HTTP messages that belong to no framework."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs, urlsplit

from ..errors import ValidationError

MOST_PARAMETERS = 200


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
    """`url` is absolute, or a path with its query; as it was sent, with nothing decoded."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", Headers(self.headers))

    @property
    def path(self) -> str:
        """The path of the URL, without host and query, with nothing decoded. Raises `ValidationError` for no URL."""
        return self._parts.path

    @property
    def query(self) -> dict[str, list[str]]:
        """Each parameter of the query with all its values. Raises `ValidationError` for no UTF-8, or too many."""
        try:
            return parse_qs(self._parts.query, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
        except ValueError as error:
            raise ValidationError(f"the query cannot be read: {error}") from error

    @property
    def _parts(self) -> SplitResult:
        # What begins with two slashes is a path here, and no host's name.
        url = f"http://path{self.url}" if self.url.startswith("/") else self.url
        try:
            return urlsplit(url)
        except ValueError as error:
            raise ValidationError(f"the URL cannot be read: {error}") from error


class Chunks(Protocol):
    """The bytes of a stream, as they come. Whoever wants no more of them, read or not, closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def __anext__(self) -> Awaitable[bytes]: ...

    def aclose(self) -> Awaitable[None]: ...


@dataclass(frozen=True)
class Response:
    """`body` is bytes, or an async iterator of them for a stream without an end known, which has an `aclose`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Chunks = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", Headers(self.headers))

    @classmethod
    def of_json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """A response whose body is `value` as JSON."""
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        return cls(status, {"content-type": "application/json", **(headers or {})}, body)
