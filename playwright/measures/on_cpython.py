"""One measurement on CPython, in a process of its own: `python -m measures.on_cpython WHAT ...`. Prints JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

from durably import create_durably

from .jobs import jobs


async def ours(file: str, warm_up: int, steps: int) -> float:
    """Steps a second of one job, to whose events nobody listens."""
    durably = create_durably(file, jobs=[jobs.steps])
    await durably.migrate()
    for count in (warm_up, steps):
        await durably.jobs.steps.trigger({"steps": count})
        assert await durably.process_one(), "there is a run to execute"
    await durably.stop()
    began, ended = jobs.told[-1]
    return float(1000 * steps / (ended - began))


def raw(file: str, recording: str, warm_up: int) -> float:
    """Commits a second of the recorded transactions."""
    found = json.loads(Path(recording).read_text("utf-8"))
    Path(file).write_bytes(base64.b64decode(found["image"]))
    requests = [statements for _, statements in found["steps"]]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")
        for at, statements in enumerate(requests):
            if at == warm_up:
                began = perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            for sql, params in statements:
                connection.execute(sql, params).fetchall()
            connection.execute("COMMIT")
        seconds = perf_counter() - began
        [stored] = connection.execute("SELECT count(*) FROM durably_steps").fetchone()
    assert stored == len(requests), f"of {len(requests)} steps {stored} were stored"
    return (len(requests) - warm_up) / seconds


async def claims(folder: str, finished: int, times: int) -> dict[str, list[float]]:
    """Milliseconds of a claim in an empty file and in a full one, in turns."""
    found: dict[str, list[float]] = {"empty": [], "full": []}
    instances = {name: create_durably(f"{folder}/{name}.sqlite3", jobs=[jobs.one, jobs.fill]) for name in found}
    for durably in instances.values():
        await durably.migrate()
    await instances["full"].jobs.fill.trigger({"steps": finished})
    await instances["full"].process_one()
    for time in range(-5, times):
        for name, durably in instances.items():
            await durably.jobs.one.trigger({})
            asked = jobs.now()
            assert await durably.process_one(), "there is a run to execute"
            if time >= 0:
                [began] = jobs.told[-1]
                found[name].append(began - asked)
    for durably in instances.values():
        await durably.stop()
    return found


def main() -> None:
    what, *given = sys.argv[1:]
    answer: Any
    match what:
        case "ours":
            answer = asyncio.run(ours(given[0], int(given[1]), int(given[2])))
        case "raw":
            answer = raw(given[0], given[1], int(given[2]))
        case "claims":
            answer = asyncio.run(claims(given[0], int(given[1]), int(given[2])))
        case _:
            raise SystemExit(f"nothing is measured as {what}")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
