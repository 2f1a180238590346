"""The shared scenarios on CPython: SQLite files. `playwright/test_scenarios.py` runs them on OPFS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    asyncio.run(SCENARIOS[name](lambda label: str(tmp_path / f"{label}.sqlite3")))
