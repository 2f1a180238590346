"""The file that a command is about: opened only if it is there and of the very schema that this durably knows.

Steps are shown as they are stored. To read them as what they were means to import the classes that they name, which is
for a program that knows its own file, and not for one that is handed any.
"""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..databases import open_database
from ..engine import Durably, create_durably
from ..errors import ConflictError, NotFoundError, SchemaVersionError, StorageError
from ..ledger import Ledger
from ..migrations import newest_version, require_known
from ..records import Run, Step
from ..store import Store
from ..views import step_view

MOST_CANDIDATES = 5
"""So many ids are named where a prefix is not enough."""

T = TypeVar("T")


class OpenFile:
    """A file's runs."""

    def __init__(self, durably: Durably, store: Store) -> None:
        self.durably = durably
        self.ledger = Ledger(store.database)
        self._store = store

    async def find(self, prefix: str) -> Run[Any]:
        """The one run whose id begins so. Raises `NotFoundError`, and `ConflictError` where there are several."""
        ids = await self._store.ids_beginning_with(prefix.upper(), MOST_CANDIDATES + 1)
        if len(ids) > 1:
            more = ", ..." if len(ids) > MOST_CANDIDATES else ""
            raise ConflictError(f"several runs begin with {prefix}: {', '.join(ids[:MOST_CANDIDATES])}{more}")
        return await self.run(ids[0] if ids else prefix)

    async def run(self, run_id: str) -> Run[Any]:
        """The run as it is now. Raises `NotFoundError`."""
        run = await self.durably.get_run(run_id)
        if run is None:
            raise NotFoundError(f"there is no run {run_id}")
        return run

    async def steps(self, run_id: str) -> list[Step]:
        """The steps of a run, with their outputs as they are stored."""
        return [
            replace(
                step_view(stored._replace(output=None)),
                output=json.loads(stored.output) if isinstance(stored.output, str) else stored.output,
            )
            for stored in await self._store.steps_of(run_id)
        ]


def with_file(file: str, work: Callable[[OpenFile], Awaitable[T]]) -> T:
    """Do `work` with an open file, in an event loop of its own.

    Raises `StorageError` for what is no file of durably's, `SchemaVersionError` for one of another version, and what
    `work` raises.
    """

    async def opened() -> T:
        _require_file(file)
        database = open_database(file)
        durably = create_durably(database)
        try:
            await _require_present_schema(Store(database))
            return await work(OpenFile(durably, Store(database)))
        finally:
            await durably.stop()

    return asyncio.run(opened())


def _require_file(file: str) -> None:
    """SQLite would make one that is not there, and fill one that is empty."""
    try:
        facts = Path(file).stat()
    except FileNotFoundError:
        raise StorageError(f"there is no file {file}") from None
    except OSError as error:
        raise StorageError(f"{file} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise StorageError(f"{file} is not a file")
    if facts.st_size == 0:
        raise StorageError(f"the file {file} is empty")


async def _require_present_schema(store: Store) -> None:
    name, version, newest = store.database.name, await store.schema_version(), newest_version()
    if version == 0:
        raise StorageError(f"{name} is a SQLite database, but not one of durably's")
    require_known(name, version)
    if version < newest:
        raise SchemaVersionError(
            f"{name} has schema version {version}, this durably knows {newest}: it was written by an older version and "
            "is left untouched; a program that opens it with this durably brings it up to date"
        )
