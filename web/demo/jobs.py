"""Import a CSV file, 100 rows at a time, in a way that a closed tab cannot spoil.

The file's bytes are the first checkpoint, so what happens to the source later does not matter. All that
follows from them (layout, batches) is the same on every execution: a resumed import meets its finished
batches again and goes on after them. A batch's rows and its checkpoint are committed together, so no row is
lost and none comes twice.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from csv_rows import Layout, Reject, build_row_model, check, decode, parse, repeated_lines, sniff
from pydantic import BaseModel
from typing_extensions import TypedDict

from durably import StepContext, UserTransaction, job

BATCH_ROWS = 100


class ImportRequest(BaseModel):
    """What to import. `pause` (seconds after each batch) only serves to make a demonstration watchable."""

    source: str  # in a browser a URL or "opfs:imports/NAME", elsewhere a file's path
    name: str
    pause: float = 0


class Batch(TypedDict):
    stored: int
    rejects: list[Reject]


class ReasonCount(BaseModel):
    reason: str
    count: int


class Group(BaseModel):
    label: str
    count: int
    average: float | None


class Report(BaseModel):
    name: str
    rows: int
    stored: int
    rejected: int
    rejects_by_reason: list[ReasonCount]
    sample_rejects: list[Reject]
    grouped_by: str | None
    average_of: str | None
    groups: list[Group]


@job(name="import-csv")
async def import_csv(step: StepContext, payload: ImportRequest) -> Report:
    data = await step.run("read", read, payload.source, payload.name)
    layout = await step.run("sniff", sniff, data, payload.name)

    records = parse(decode(data, payload.name), layout.delimiter)[1:]
    repeats = repeated_lines(records) if layout.unique_rows else {}
    row_model = build_row_model(layout)
    batches = [records[start : start + BATCH_ROWS] for start in range(0, len(records), BATCH_ROWS)]
    rejects: list[Reject] = []
    done_now: set[int] = set()

    async def store(tx: UserTransaction, number: int) -> Batch:
        done_now.add(number)
        good, bad = check(batches[number - 1], layout, row_model, repeats)
        await store_rows(tx, step.run_id, good)
        return {"stored": len(good), "rejects": bad}

    for number in range(1, len(batches) + 1):
        batch = await step.transaction(f"batch-{number:03}", store, number)
        rejects += batch["rejects"]
        if number in done_now:  # a batch that comes from the store was told of when it was made
            tell(step, number, len(batches), len(records), batch)
            # Not inside the transaction, which would keep everyone else from writing meanwhile.
            await asyncio.sleep(payload.pause)

    return await step.transaction("summary", summarise, step.run_id, payload.name, layout, rejects)


def tell(step: StepContext, number: int, batches: int, rows: int, batch: Batch) -> None:
    rejects = batch["rejects"]
    step.progress(number, batches, f"{min(number * BATCH_ROWS, rows):,} of {rows:,} rows")
    text = f"Batch {number}: {batch['stored']} stored, {len(rejects)} rejected"
    step.log.info(text, {"batch": number, "rejected": len(rejects)})
    for reject in rejects[:3]:
        step.log.warning(f"Line {reject['line']}: {reject['reason']}")


async def read(source: str, name: str) -> bytes:
    """Return the file's bytes once `decode` accepts them. Raises `ValueError` with a sentence for people."""
    try:
        if sys.platform == "emscripten":
            data = await fetch(source)
        else:
            data = await asyncio.to_thread(Path(source).read_bytes)
    except OSError as error:
        raise ValueError(f"{name} could not be opened: {error.strerror or error}.") from error
    decode(data, name)
    return data


async def fetch(source: str) -> bytes:
    """Return what is behind a URL, or what the page put into this browser's private files."""
    from js import navigator  # noqa: TID251 - a job may know the browser, the library's core may not
    from pyodide.ffi import JsException  # noqa: TID251
    from pyodide.http import pyfetch  # noqa: TID251

    if not source.startswith("opfs:"):
        response = await pyfetch(source)
        if not response.ok:
            raise OSError(f"the server answered {response.status}")
        return bytes(await response.bytes())
    *folders, file_name = source.removeprefix("opfs:").split("/")
    try:
        folder = await navigator.storage.getDirectory()
        for part in folders:
            folder = await folder.getDirectoryHandle(part)
        file = await (await folder.getFileHandle(file_name)).getFile()
        return bytes((await file.arrayBuffer()).to_bytes())
    except JsException as error:
        raise OSError("this browser no longer has it, pick the file again") from error


async def store_rows(tx: UserTransaction, import_id: str, rows: list[tuple[int, list[Any]]]) -> None:
    """Write rows in one statement. Writing them again changes nothing."""
    await tx.execute(
        "CREATE TABLE IF NOT EXISTS imported_rows"
        " (import_id TEXT, line INTEGER, cells TEXT, PRIMARY KEY (import_id, line))"
    )
    await tx.execute(
        "INSERT INTO imported_rows (import_id, line, cells)"
        " SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?) WHERE true"
        " ON CONFLICT (import_id, line) DO UPDATE SET cells = excluded.cells",
        [import_id, json.dumps(rows, ensure_ascii=False)],
    )


async def summarise(tx: UserTransaction, import_id: str, name: str, layout: Layout, rejects: list[Reject]) -> Report:
    counted = await tx.execute("SELECT count(*) FROM imported_rows WHERE import_id = ?", [import_id])
    groups: list[Group] = []
    if layout.group_by is not None:
        measure = None if layout.average_of is None else f"$[{layout.average_of}]"
        found = await tx.execute(
            "SELECT json_extract(cells, ?) AS label, count(*), avg(json_extract(cells, ?))"
            " FROM imported_rows WHERE import_id = ? GROUP BY label ORDER BY count(*) DESC, label",
            [f"$[{layout.group_by}]", measure, import_id],
        )
        groups = [Group(label=row[0] or "(empty)", count=row[1], average=row[2]) for row in found]
    kinds = Counter(reject["kind"] for reject in rejects).most_common()
    return Report(
        name=name,
        rows=layout.rows,
        stored=counted[0][0],
        rejected=len(rejects),
        rejects_by_reason=[ReasonCount(reason=kind, count=count) for kind, count in kinds],
        sample_rejects=rejects[:20],
        grouped_by=None if layout.group_by is None else layout.columns[layout.group_by].name,
        average_of=None if layout.average_of is None else layout.columns[layout.average_of].name,
        groups=groups,
    )
