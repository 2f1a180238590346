"""The README is true: each Python block runs as it stands, and prints what the README says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
OPENING, GUIDE = re.split(r"^## The guide$", README, flags=re.MULTILINE)
JOBS, SERVER = re.findall(r"```python\n(.*?)```", OPENING, re.DOTALL)

SECTIONS = {
    section.splitlines()[0]: section
    for section in re.split(r"^###? ", GUIDE, flags=re.MULTILINE)
    if "```python" in section
}


def program_of(section: str) -> str:
    """The Python of a section as a program: what is defined stands at the top, the rest in an async function."""
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    defined, done = ["import asyncio", "from durably import *"], []
    names: set[str] = set()
    for statement in ast.parse(code).body:
        is_definition = isinstance(
            statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        )
        (defined if is_definition else done).append(ast.unparse(statement))
        if not is_definition:
            names |= {
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
    main = "\n".join([f"global {', '.join(sorted(names))}", *done])
    return "\n".join([*defined, "async def main():", textwrap.indent(main, "    "), "asyncio.run(main())"])


def printed_by(section: str) -> str:
    """What a section says that its lines print: the text under them, or else the comments behind them."""
    if texts := re.findall(r"```text\n(.*?)```", section, re.DOTALL):
        return "".join(texts)
    return "".join(f"{said}\n" for said in re.findall(r"print.*\)  +# (.+)$", section, re.MULTILINE))


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


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_of_the_guide_prints_what_it_says(tmp_path: Path, name: str) -> None:
    expected = printed_by(SECTIONS[name])
    assert expected
    assert run(program_of(SECTIONS[name]), tmp_path) == expected


def test_every_example_is_run() -> None:
    assert README.count("```python") == 2 + len(SECTIONS)


def test_what_the_readme_points_to_is_there() -> None:
    root = Path(__file__).resolve().parent.parent
    titles = re.findall(r"^##+ (.+)$", README, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert path in anchors or (root / path).is_file(), path


@pytest.mark.parametrize("verb", ["demo", "test", "site", "wheel"])
def test_the_commands_are_verbs_of_the_build(verb: str) -> None:
    root = Path(__file__).resolve().parent.parent
    shown = subprocess.run(
        [sys.executable, str(root / "build.py"), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(rf"^\s+{verb}\s", shown.stdout, re.MULTILINE)
    assert f"python build.py {verb}" in README
