"""The shared scenarios on CPython: SQLite files. `playwright/test_scenarios.py` runs them on OPFS."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # as in the browser, where the files lie in one folder
# Each registers its scenarios in the first one, which the others import.
for file in ("scenarios_durable", "scenarios_storage"):
    importlib.import_module(file)
SCENARIOS = importlib.import_module("scenarios").SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    asyncio.run(SCENARIOS[name](lambda label: str(tmp_path / f"{label}.sqlite3")))
