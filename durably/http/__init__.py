"""The HTTP API, for any framework: see `create_durably_handler`."""

from __future__ import annotations

from .handler import DurablyHandler, create_durably_handler
from .message import Headers, Request, Response

__all__ = ["DurablyHandler", "Headers", "Request", "Response", "create_durably_handler"]
