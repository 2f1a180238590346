"""The report: a table for the terminal, JSON, and `web/BENCH.md`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import peers
from .figures import Row
from .samples import Samples

BENCH_MD = peers.ROOT / "web" / "BENCH.md"
HEADS = ("figure", "ours", "min to max", "n", "against", "its value", "min to max", "n", "ratio", "reach", "reached")


def versions(samples: Samples, browser: str) -> dict[str, Any]:
    """Of everything that was measured with."""
    manifest = json.loads((peers.ROOT / "dist" / "durably" / "manifest.json").read_text("utf-8"))
    return {
        "durably": importlib.metadata.version("durably"),
        "pyodide": manifest["pyodide"],
        "browser": browser,
        "python": platform.python_version(),
        "sqlite": {
            "cpython": sqlite3.sqlite_version,
            "browser": samples.facts.get("storage", {}).get("sqliteVersion"),
            "peer": samples.facts.get("peer", {}).get("sqlite"),
        },
        "peers": peers.peer_versions() | {"dbos": peers.DBOS.partition("==")[2]},
    }


def machine() -> dict[str, Any]:
    """What it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "load": [load()],
    }


def load() -> float:
    """How many processes want a core, on an average of the last minute; 0 where that is not known."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def document(rows: list[Row], samples: Samples, browser: str, about: dict[str, Any]) -> dict[str, Any]:
    """All of it, for JSON. `about` is what the caller knows: the date, the machine, the options, the method."""
    return {
        **about,
        "versions": versions(samples, browser),
        "facts": samples.facts,
        "figures": [row.as_json() for row in rows],
        "samples": dict(samples.values),
    }


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def cells(row: Row) -> tuple[str, ...]:
    figure = row.figure
    ratio = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:+.0f} {figure.unit}" if figure.is_difference else f"{row.ratio:.2f} x"
    return (
        figure.title,
        *side(row.ours, figure.unit),
        figure.versus,
        *(side(row.other, figure.unit) if row.other else ("", "", "")),
        ratio,
        figure.reach,
        {True: "yes", False: "NO", None: ""}[row.holds],
    )


def side(found: dict[str, float], unit: str) -> tuple[str, str, str]:
    """Median, range and number of what was measured of one side."""
    return amount(found["median"], unit), f"{number(found['min'])} to {number(found['max'])}", f"{found['n']:.0f}"


def number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def amount(value: float, unit: str) -> str:
    return f"{number(value)}{unit}" if unit.startswith("/") else f"{number(value)} {unit}"


def table(rows: list[Row]) -> str:
    """For a terminal."""
    lines = [HEADS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(found: dict[str, Any], rows: list[Row]) -> str:
    """What `web/BENCH.md` holds."""
    about, computer = found["versions"], found["machine"]
    sqlite, (began, ended) = about["sqlite"], computer["load"]
    lines = [
        "# Measured",
        "",
        "Written by `python build.py bench --write`, all in one run: write it anew, do not edit it.",
        "",
        f"{found['date']}; {computer['system']}, {computer['cores']} cores, {computer['memory_gb']} GB, "
        f"load {began} at the start and {ended} at the end; durably {about['durably']}, {about['browser']}, "
        f"Pyodide {about['pyodide']}, Python {about['python']}; SQLite {sqlite['cpython']} on CPython, "
        f"{sqlite['browser']} in the browser, {sqlite['peer']} in the peer.",
        "Peers: " + ", ".join(f"{name} {version}" for name, version in about["peers"].items()) + ".",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|" + " --- |" * len(HEADS),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        "## Method",
        "",
        *(f"* {sentence}" for sentence in found["method"]),
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def show(text: str) -> None:
    """Print it now, also where nobody sits at a terminal."""
    print(text, flush=True)
