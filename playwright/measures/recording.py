"""The statements of which the checkpoints of a job consist, recorded from durably itself.

What is recorded is what the limits are timed with, so that they are always those of the engine that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

from durably import create_durably
from durably.database import Result, Statement
from durably.databases.sqlite import SQLiteDatabase

from .jobs import jobs

Request = tuple[str, list[tuple[str, Any]]]
"""A mode and statements, as `web/sqlite.js` takes them."""


@dataclass(frozen=True)
class Recording:
    """A run of the job `steps`."""

    image: bytes
    """The database as it is when the first step is about to be stored."""
    steps: list[Request]
    """What stores each of them: one transaction."""

    def as_json(self) -> str:
        return json.dumps({"image": base64.b64encode(self.image).decode(), "steps": self.steps})


class RecordingDatabase(SQLiteDatabase):
    """Keeps what writes steps."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.image = b""
        self.steps: list[Request] = []

    async def execute(self, *statements: Statement) -> list[Result]:
        if any(one.sql.lstrip().startswith("INSERT INTO durably_steps") for one in statements):
            self.image = self.image or await self.dump()
            self.steps.append(("write", [(one.sql, one.params) for one in statements]))
        return await super().execute(*statements)


def record(steps: int) -> Recording:
    """Record a run of so many steps."""
    return asyncio.run(_record(steps))


async def _record(steps: int) -> Recording:
    database = RecordingDatabase()
    durably = create_durably(database, jobs=[jobs.steps])
    await durably.migrate()
    await durably.jobs.steps.trigger({"steps": steps})
    assert await durably.process_one(), "there is a run to execute"
    await durably.stop()
    assert len(database.steps) == steps, f"{len(database.steps)} transactions were recorded for {steps} steps"
    return Recording(database.image, database.steps)
