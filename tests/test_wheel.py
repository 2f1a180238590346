"""What the wheel holds: all that a page needs beside Pyodide, and little enough to load."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEELS = list((ROOT / ".cache" / "wheel").glob("*.whl"))
LARGEST = 1_000_000


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The one that build.py has made and installed for these tests."""
    [found] = WHEELS
    return found


def test_the_wheel_is_small_and_holds_python_sql_the_bridge_sqlite_the_dashboard_and_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        bridge = archive.read("durably/databases/web/bridge.mjs").decode()
    others = {name for name in names if not name.endswith((".py", ".sql")) and ".dist-info/" not in name}
    assert others == {
        "durably/py.typed",
        "durably/databases/web/bridge.mjs",
        "durably/databases/web/wa-sqlite.wasm",
        "durably/command/web/dashboard.mjs",
        "durably/command/web/index.html",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "Roy T. Hashimoto" in bridge, "wa-sqlite's licence goes where wa-sqlite goes"
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size < LARGEST


def test_the_bridge_in_the_wheel_imports_nothing_and_names_no_other_site(wheel: Path) -> None:
    """From a Blob a relative name leads nowhere, and a page must not depend on another one's server."""
    with zipfile.ZipFile(wheel) as archive:
        bridge = archive.read("durably/databases/web/bridge.mjs").decode()
    assert not re.findall(r"^\s*(?:import|export)\b.*[\"']", bridge, re.MULTILINE)
    code = re.sub(r"/\*.*?\*/|//.*", "", bridge, flags=re.DOTALL)
    assert not re.findall(r"""["'`]https?:""", code)
    assert not re.findall(r"\beval\(|new Function\(", code)


def test_the_pyscript_example_names_this_wheel_and_keeps_its_cache(wheel: Path) -> None:
    """PyScript erases its cache at every load of a local wheel, unless it is told not to."""
    config = json.loads((ROOT / "web" / "pyscript" / "pyscript.json").read_text("utf-8"))
    assert f"../durably/{wheel.name}" in config["packages"]
    assert config["packages_cache"] == "all"
