"""Python's memory as `web/snapshot-maker.js` keeps it for the next visits: what is in it, and waking up from it."""

from __future__ import annotations

import gc
import random  # noqa: TID251 - users may draw from it
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.plugin import _loader

from . import boot as boot  # and with it everything that a page needs


def prepare() -> None:
    """Leave in memory what pages need: what has come with this module, and what comes with a first model."""
    TypeAdapter(dict[str, Any]).validate_json("{}")
    _FirstModel.model_validate_json("{}")
    gc.collect()


class _FirstModel(BaseModel):
    """With the first one pydantic imports half of itself."""

    anything: int = Field(default=0, ge=0)


def wake(installs_packages: bool) -> None:
    """Make new what must not be as it was when the snapshot was taken. Called first of all.

    `os.urandom` asks the browser each time, and so do `secrets`, `uuid4` and durably's ids. The secret from which the
    hashes of texts come stays: it differs from browser to browser, not from visit to visit.
    """
    random.seed()
    if installs_packages:
        _loader._plugins = None  # pydantic looks for them once, and some may be among the packages
