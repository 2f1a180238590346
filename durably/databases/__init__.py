"""Backends of `durably.database`, and the one place that chooses between them."""

from __future__ import annotations

import os
import sys

from ..database import Database

DURABILITIES = ("full", "relaxed")


def open_database(database: str | os.PathLike[str] | Database, *, durability: str = "full") -> Database:
    """The backend for a name or path: OPFS in Pyodide, a SQLite file elsewhere.

    `durability`: `"full"` flushes every commit; `"relaxed"` does not, and survives the end of the process
    but not of the machine's power. Raises `ValueError` for any other word and for an empty name (which SQLite
    takes for a file that it throws away), `TypeError` for what is neither a name nor a `Database`.
    """
    if durability not in DURABILITIES:
        raise ValueError(f"durability must be one of {', '.join(DURABILITIES)}, not {durability!r}")
    if isinstance(database, os.PathLike):
        database = os.fspath(database)
    if not isinstance(database, str):
        if not hasattr(database, "execute"):
            raise TypeError(f"a database is a name, a path or a Database, not {database!r}")
        return database
    if not database:
        raise ValueError("a database needs a name; ':memory:' is one that ends with the program")
    # Imported here because each of the two exists in its own home only.
    if sys.platform == "emscripten":
        from .opfs import OpfsDatabase

        return OpfsDatabase(database, durability=durability)
    from .sqlite import SQLiteDatabase

    return SQLiteDatabase(database, durability=durability)
