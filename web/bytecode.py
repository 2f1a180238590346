"""For the build: what a page loads of Python, with bytecode made by the very Python that will run it (`bytecode.mjs`).

The bytecode lies beside the sources, which tracebacks show, and is never compared with them. The same sources give the
same bytes.
"""

import copy
import gzip
import importlib
import json
import marshal
import re
import sys
import zipfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from site import getsitepackages

SITE_PACKAGES = Path(getsitepackages()[0])
STDLIB = f"/lib/python{sys.version_info.major}{sys.version_info.minor}.zip"
LEFT_OUT = re.compile(r"\.pyi$|/sboms/|^durably/(databases|command)/web/")
"""Types, and the JavaScript for those who have no site."""
UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552
IMPORTED = ("durably", "durably.http", "cronsim", "asyncio", "importlib.metadata", "pyodide.code")
"""What a page imports, as far as it can be imported here; with it comes what these need of the standard library."""


def write_packages(wheels: list[Path], to: Path) -> None:
    """Install the wheels, and write all their files as one, which `web/packages.js` reads.

    Compressed: the length of an index (4 bytes, little-endian), the index as JSON, `[path, length]` of each file, and
    the files themselves. Libraries come first: they have to be compiled.
    """
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not LEFT_OUT.search(name)]
            files |= {name: archive.read(name) for name in names}
            archive.extractall(SITE_PACKAGES, names)
    for name in [name for name in files if name.endswith(".py")]:
        files[cache_from_source(name)] = bytecode(files[name], str(SITE_PACKAGES / name))
    order = sorted(files, key=lambda name: (not name.endswith(".so"), name))
    index = json.dumps([[name, len(files[name])] for name in order], separators=(",", ":")).encode()
    content = b"".join([len(index).to_bytes(4, "little"), index, *(files[name] for name in order)])
    to.write_bytes(gzip.compress(content, mtime=0))


def write_stdlib(to: Path) -> None:
    """Write the standard library as it is, with bytecode of the modules that a page imports."""
    used = modules_used()
    with zipfile.ZipFile(STDLIB) as there, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in there.infolist():
            source = there.read(entry)
            archive.writestr(copy.copy(entry), source)
            if entry.filename in used:
                compiled = zipfile.ZipInfo(f"{entry.filename}c", entry.date_time)
                compiled.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(compiled, bytecode(source, f"{STDLIB}/{entry.filename}"))


def bytecode(source: bytes, name: str) -> bytes:
    """The content of a `.pyc` file that is not compared with its source. Raises `SyntaxError`."""
    code = compile(source, name, "exec", dont_inherit=True)
    return MAGIC_NUMBER + UNCHECKED_HASH + source_hash(source) + marshal.dumps(code)


def modules_used() -> set[str]:
    """The files of the standard library that a page imports."""
    for name in IMPORTED:
        importlib.import_module(name)
    from pydantic import TypeAdapter

    TypeAdapter(dict[str, int]).validate_python({})  # pydantic imports much when there is a first model
    specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
    origins = [spec.origin or "" for spec in specs if spec is not None]
    return {origin.removeprefix(f"{STDLIB}/") for origin in origins if origin.startswith(STDLIB)}
