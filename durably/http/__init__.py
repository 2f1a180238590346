"""The HTTP API, for any framework: see `create_durably_handler`."""

from __future__ import annotations

from .auth import Auth, HTTPError, RunFilter, TriggerRequest
from .handler import DurablyHandler, create_durably_handler
from .message import Headers, Request, Response

__all__ = [
    "Auth",
    "DurablyHandler",
    "HTTPError",
    "Headers",
    "Request",
    "Response",
    "RunFilter",
    "TriggerRequest",
    "create_durably_handler",
]
