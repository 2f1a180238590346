"""Versions: a file whose schema a newer durably has brought further is written no more by this one.

Another tab may load the newer durably and migrate the file while this one has it open. So every transaction that
writes looks at the schema's version before it commits, and at the version alone: what another version makes of the
tables is not known here. Such a transaction is rolled back with `SchemaVersionError`. Reading is not kept from, and
nor is handing runs back (`LAST_WORDS`), so that the newer one goes on with them at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from .database import Database, Result, Statement, Transaction
from .errors import StorageError
from .migrations import newest_version, require_known
from .queries import RELEASE_RUN, REQUIRE_VERSION, UNPARK
from .records import StorageInfo
from .store import Store

LAST_WORDS = frozenset({RELEASE_RUN, UNPARK})
"""What hands runs back. It must mean the same in every version of the schema."""

_SIGNS = ("malformed JSON", "no such ", "has no column", "constraint failed")
"""What SQLite says of `REQUIRE_VERSION`, and where tables are not what was expected."""


class VersionedDatabase:
    """A `Database` that refuses to write into what is newer than this durably."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._require_version = Statement(REQUIRE_VERSION, {"known": newest_version()})

    @property
    def name(self) -> str:
        return self._database.name

    async def execute(self, *statements: Statement) -> list[Result]:
        if all(statement.is_read or statement.sql in LAST_WORDS for statement in statements):
            return await self._database.execute(*statements)
        try:
            # Last, because some statements ask how many rows the one before them has changed.
            *results, _ = await self._database.execute(*statements, self._require_version)
        except StorageError as error:
            await self._explain(error)
            raise
        return results

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        is_known = False
        try:
            async with self._database.transaction() as tx:
                await tx.execute(self._require_version.sql, self._require_version.params)
                is_known = True
                yield tx
        except StorageError as error:
            if not is_known:
                await self._explain(error)
            raise

    def beat(self, statement: Callable[[], Statement], seconds: float) -> Callable[[], None] | None:
        return self._database.beat(statement, seconds)

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        return self._database.at_rest()

    async def close(self) -> None:
        await self._database.close()

    async def dump(self) -> bytes:
        return await self._database.dump()

    async def staged(self, image: bytes) -> Database:
        return await self._database.staged(image)

    async def load(self, image: bytes, *, unless: Statement) -> bool:
        return await self._database.load(image, unless=unless)

    async def info(self) -> StorageInfo:
        return await self._database.info()

    async def _explain(self, error: StorageError) -> None:
        """Raise `SchemaVersionError` in the place of `error` if the schema's version is what is behind it."""
        if not any(sign in error.message for sign in _SIGNS):
            return
        version = 0
        with suppress(StorageError):  # a database that cannot even be read has been told of already
            version = await Store(self._database).schema_version()
        require_known(self.name, version)
