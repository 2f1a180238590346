"""The schema's history: numbered `.sql` files, applied in order, each in its own transaction.

A migration is applied together with its record, so a tab that is killed in the middle leaves nothing,
and of two tabs that start at once the second finds the work done. A file of a newer durably is refused
before anything is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ..clock import Clock
from ..errors import SchemaVersionError
from ..store import Store


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    statements: tuple[str, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    return tuple(
        Migration(int(file.name.split("_")[0]), file.name, split_statements(file.read_text("utf-8")))
        for file in sorted(files, key=lambda file: file.name)
    )


def split_statements(sql: str) -> tuple[str, ...]:
    """The statements of a migration file: each ends with a semicolon at the end of a line."""
    without_comments = re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)
    parts = re.split(r";[ \t]*$", without_comments, flags=re.MULTILINE)
    return tuple(part.strip() for part in parts if part.strip())


def newest_version() -> int:
    """The version of the schema that this durably brings."""
    return migrations()[-1].version


def require_known(database_name: str, version: int) -> None:
    """Raise `SchemaVersionError` if this version of a file's schema is newer than this durably."""
    newest = newest_version()
    if version > newest:
        raise SchemaVersionError(
            f"{database_name} has schema version {version}, this durably knows {newest}: "
            "it was written by a newer version and is left untouched; update durably (in a page: reload)"
        )


async def migrate(store: Store, clock: Clock) -> None:
    """Bring the database to the newest schema. Raises `SchemaVersionError` if it is newer than that."""
    present = await store.schema_version()
    require_known(store.database.name, present)
    for migration in migrations():
        if migration.version > present:
            await store.apply_migration(migration.version, migration.statements, clock.now())
