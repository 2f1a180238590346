"""The store as one file: taken out whole, and replaced whole.

An image is the bytes of a SQLite file. What is to replace the store is checked and brought to the newest
schema in memory first; only then it takes the place of what is there, at once or not at all.
"""

from __future__ import annotations

import struct

from .clock import Clock
from .database import Database, Statement
from .errors import ConflictError, SchemaVersionError, StorageError
from .migrations import migrate
from .store import Store

_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100
_JOURNAL_FORMAT = slice(18, 20)
"""Two bytes: 1 for a file that is whole by itself, 2 for one that may have a write-ahead log beside it."""
_ENCODINGS = {1: "UTF-8", 2: "UTF-16le", 3: "UTF-16be"}

# What an image must have, and in which form, to take the place of another.
COLUMNS_OF_SCHEMA = """SELECT tables.name || '.' || columns.name
FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
WHERE tables.type = 'table' AND tables.name GLOB 'durably_*'"""
FORM_OF_PAGES = "SELECT page_size, encoding FROM pragma_page_size, pragma_encoding"
INTEGRITY = "SELECT integrity_check FROM pragma_integrity_check LIMIT 1"

ANY_ACTIVE_RUN = "SELECT 1 FROM durably_runs WHERE status IN ('pending', 'running') LIMIT 1"

# An image is of the past: nobody is at work on what ran in it, and that is nobody's crash.
RELEASE_ALL_RUNS = """
UPDATE durably_runs SET
  status = 'pending', worker_id = NULL, heartbeat_at = NULL,
  active_ms = active_ms + CASE status WHEN 'running' THEN max(0, coalesce(heartbeat_at - claimed_at, 0)) ELSE 0 END
WHERE status IN ('pending', 'running')
"""

# A worker that slept through the replacement must not pass for the one that claims a run next.
GENERATIONS = "SELECT json_group_object(id, generation) FROM durably_runs"
RAISE_GENERATIONS = """
UPDATE durably_runs SET generation = known.value
FROM json_each(:generations) AS known
WHERE known.key = durably_runs.id AND known.value > durably_runs.generation
"""


async def export_image(store: Store) -> bytes:
    """All that is there, user tables included, at one moment. Raises `StorageError`."""
    image = await store.database.dump()
    if not image:
        raise StorageError(f"there is nothing in {store.database.name} yet; call init() or migrate() first")
    return _standing_alone(image)


async def import_image(store: Store, data: bytes, clock: Clock) -> None:
    """Replace everything by what is in `data`; the store must have the newest schema.

    Raises `StorageError` for what is not a sound database of durably's, `SchemaVersionError` for one of a
    newer durably, `ConflictError` while runs are pending or running; then everything is as it was.
    """
    image = await _prepared(store, data, clock)
    if not await store.database.load(image, unless=Statement(ANY_ACTIVE_RUN)):
        raise ConflictError(
            f"{store.database.name} has runs that are pending or running; wait for them, or cancel them, "
            "before you replace it"
        )


async def _prepared(store: Store, data: bytes, clock: Clock) -> bytes:
    """The image as it is to be put in place."""
    await _check_form(store.database, data)
    needed = await _columns_of_a_new_one(store.database, clock)
    staged = await store.database.staged(_standing_alone(data))
    try:
        await _check_soundness(staged)
        version = await Store(staged).schema_version()
        if version == 0:
            raise StorageError("the data is a SQLite database, but not one of durably's; nothing was replaced")
        try:
            await migrate(Store(staged), clock)
        except SchemaVersionError:
            raise SchemaVersionError(
                f"the data has schema version {version}, which this durably does not know yet; nothing was replaced: "
                "update durably (in a page: reload)"
            ) from None
        if missing := needed - await _columns(staged):
            raise StorageError(f"the data lacks {min(missing)}, which durably needs; nothing was replaced")
        [known] = await store.database.execute(Statement(GENERATIONS))
        await staged.execute(
            Statement(RELEASE_ALL_RUNS),
            Statement(RAISE_GENERATIONS, {"generations": known.rows[0][0]}),
        )
        return await staged.dump()
    finally:
        await staged.close()


async def _check_form(database: Database, data: bytes) -> None:
    """Whether the header is that of a SQLite file whose pages fit into this one."""
    if len(data) < _HEADER_SIZE or not data.startswith(_MAGIC):
        raise StorageError("the data is not a SQLite database; nothing was replaced")
    (stored_size,) = struct.unpack_from(">H", data, 16)
    (encoding,) = struct.unpack_from(">I", data, 56)
    page_size = 65536 if stored_size == 1 else stored_size
    [ours] = await database.execute(Statement(FORM_OF_PAGES))
    here = (ours.rows[0][0], ours.rows[0][1])
    there = (page_size, _ENCODINGS.get(encoding, f"encoding {encoding}"))
    if there != here:
        raise StorageError(
            f"the data has pages of {there[0]} bytes and text in {there[1]}, but {database.name} has {here[0]} and "
            f"{here[1]}; nothing was replaced. Bring it into this form with SQLite's PRAGMA page_size and VACUUM"
        )


async def _check_soundness(staged: Database) -> None:
    try:
        [found] = await staged.execute(Statement(INTEGRITY))
    except StorageError as error:
        raise StorageError("the data is a damaged or incomplete SQLite database; nothing was replaced") from error
    if found.rows[0][0] != "ok":
        raise StorageError(f"the data is a damaged SQLite database ({found.rows[0][0]}); nothing was replaced")


async def _columns_of_a_new_one(database: Database, clock: Clock) -> set[str]:
    empty = await database.staged(b"")
    try:
        await migrate(Store(empty), clock)
        return await _columns(empty)
    finally:
        await empty.close()


async def _columns(database: Database) -> set[str]:
    [found] = await database.execute(Statement(COLUMNS_OF_SCHEMA))
    return {row[0] for row in found.rows}


def _standing_alone(image: bytes) -> bytes:
    """The image, not claiming a write-ahead log: there is none beside it."""
    whole = bytearray(image)
    whole[_JOURNAL_FORMAT] = b"\1\1"
    return bytes(whole)
