"""What durably is compared with, installed below `.cache/bench`: npm's peers as a page, PyPI's in an environment."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "bench"
FOLDER = ROOT / ".cache" / "bench"
PEER_SITE = FOLDER / "site"
DBOS = "dbos==3.4.0"


@functools.cache
def build() -> ModuleType:
    """`build.py`, for its way to run tools; found by its path, for what lies beside it is not the wheel."""
    spec = importlib.util.spec_from_file_location("durably_build", ROOT / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer_site() -> Path:
    """The folder with the page of the peer from npm."""
    tools, stage = build(), FOLDER / "npm"
    stage.mkdir(parents=True, exist_ok=True)
    packages = [PAGES / name for name in ("package.json", "package-lock.json")]
    for each in (*packages, PAGES / "peer.js"):
        shutil.copyfile(each, stage / each.name)
    ci = [tools.node_tool("npm"), "ci", "--prefix", stage, "--ignore-scripts", "--no-audit", "--no-fund"]
    advice = "Check that the npm registry can be reached, then run this again."
    tools.step("Peers from npm", stage / "node_modules", tools.digest(*packages), advice, *ci)
    sqlite = stage / "node_modules" / "@sqlite.org" / "sqlite-wasm" / "dist"
    bundle: list[object] = [tools.node_tool("node"), tools.NODE_MODULES / "esbuild" / "bin" / "esbuild"]
    bundle += [stage / "peer.js", f"sqlocal-worker={stage / 'node_modules' / 'sqlocal' / 'dist' / 'worker.js'}"]
    bundle += [
        "--bundle",
        "--minify",
        "--format=esm",
        "--target=es2022",
        f"--outdir={PEER_SITE}",
        "--log-level=warning",
    ]
    inputs = tools.digest(*packages, PAGES / "peer.js")
    tools.step("Page of the peer", PEER_SITE, inputs, "Correct what it says about web/bench/peer.js.", *bundle)
    for file in (PAGES / "peer.html", sqlite / "sqlite3.wasm", sqlite / "sqlite3-opfs-async-proxy.js"):
        shutil.copyfile(file, PEER_SITE / file.name)
    return PEER_SITE


def peer_versions() -> dict[str, str]:
    """Those of the packages that the lock file names, beside what they need themselves."""
    wanted: dict[str, str] = json.loads((PAGES / "package.json").read_text("utf-8"))["dependencies"]
    locked: dict[str, Any] = json.loads((PAGES / "package-lock.json").read_text("utf-8"))["packages"]
    return {name: locked[f"node_modules/{name}"]["version"] for name in wanted}


def dbos_python() -> Path:
    """The Python of an environment that has DBOS Transact."""
    tools, folder = build(), FOLDER / "dbos"
    advice = "Check that PyPI can be reached, then run this again."
    python: Path = folder / tools.BIN.name / tools.tool("python").name
    make = [tools.tool("python"), "-m", "venv", folder]
    tools.step("Environment of DBOS", folder, tools.digest(str(folder)), advice, *make, fresh=True)
    install = [python, "-m", "pip", "install", DBOS]
    tools.step("DBOS from PyPI", folder, tools.digest(DBOS), advice, *install, part="dbos")
    return python
