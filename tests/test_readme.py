"""The README is true: each Python block runs as it stands, and prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
JOBS, SERVER, USING, WAITING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(program: str, folder: Path) -> str:
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    (folder / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_job_runs_on_a_server_as_the_readme_says(tmp_path: Path) -> None:
    [printed] = re.findall(r"prints `(\d+)`", README)
    assert run(SERVER, tmp_path) == f"{printed}\n"
    assert (tmp_path / "app.sqlite3").exists()


@pytest.mark.parametrize("at", [0, 1])
def test_an_example_of_use_prints_what_the_readme_says(tmp_path: Path, at: int) -> None:
    printed = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert run((USING, WAITING)[at], tmp_path) == printed[at]


def test_what_the_readme_points_to_is_there() -> None:
    root = Path(__file__).resolve().parent.parent
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (root / path).is_file(), path


@pytest.mark.parametrize("verb", ["demo", "test", "site"])
def test_the_commands_are_verbs_of_the_build(verb: str) -> None:
    root = Path(__file__).resolve().parent.parent
    shown = subprocess.run(
        [sys.executable, str(root / "build.py"), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(rf"^\s+{verb}\s", shown.stdout, re.MULTILINE)
    assert f"python build.py {verb}" in README
