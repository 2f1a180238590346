"""`python -m durably`: what a person at a terminal sees of a file, and what the command never does to one."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import command_worker
import pytest

from durably import StepContext, create_durably, job, with_log_persistence
from durably.command import opening
from durably.command.line import command_line, main
from durably.command.terminal import Terminal, cells

IDS: dict[str, str] = {}
"""The runs of the file, by job."""

LIMIT_SECONDS = 30.0


@job
async def imports(step: StepContext, pages: int) -> dict[str, int]:
    for page in range(pages):
        await step.run(f"page-{page}", lambda page=page: ("row", page))
        step.progress(page + 1, pages, "日本語 \x1b[2J")
    step.log.warning("nearly full \x1b]0;title\x07", {"percent": 93})
    return {"rows": pages}


@job
async def breaks(step: StepContext, payload: dict[str, str]) -> None:
    def fail() -> None:
        raise OSError("no \x1b[31mconnection\nbehind the wall")

    await step.with_options(retry=1).run("call", fail)


@job(name="naps-" + "and-naps-" * 20)
async def naps(step: StepContext, payload: None) -> None:
    await step.sleep("until-monday", timedelta(days=3))


async def fill(file: Path) -> None:
    durably = create_durably(file, jobs={"imports": imports, "breaks": breaks, "naps": naps})
    durably.use(with_log_persistence())
    await durably.migrate()
    for key, payload, labels in (
        ("imports", 3, {"day": "monday", "site": "a"}),
        ("breaks", {"long": "x" * 3000}, {"day": "monday"}),
        ("naps", None, {}),
    ):
        IDS[key] = (await durably.jobs[key].trigger(payload, labels=labels)).id
    await durably.process_until_idle()
    await durably.stop()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("command") / "made.sqlite3"
    asyncio.run(fill(file))
    return file


@pytest.fixture
def file(made: Path, tmp_path: Path) -> str:
    """A file with a completed, a failed and a sleeping run, of which this test may do what it likes."""
    return str(shutil.copy(made, tmp_path / "app.sqlite3"))


@pytest.fixture
def durably(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """The command, with its output in a pipe: its exit code, and what it has written on either stream."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


@contextmanager
def started(*arguments: str, extra: dict[str, str] | None = None, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that is ended with the block; one that hangs is killed, and fails the test by what it has not said."""
    ours = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    usual = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": ours | (extra or {}),
    }
    with subprocess.Popen([sys.executable, *arguments], text=True, **(usual | options)) as process:
        watchdog = threading.Timer(LIMIT_SECONDS, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """All that is written up to the line with `word`."""
    assert process.stdout is not None
    text = ""
    while line := process.stdout.readline():
        text += line
        if word in line:
            return text
    raise AssertionError(f"{word!r} was never said, but {text!r}")


def as_json(answer: tuple[int, str, str]) -> Any:
    assert (answer[0], answer[2]) == (0, "")
    return json.loads(answer[1])


def test_runs_are_listed_newest_first_and_found_by_status_job_and_label(file: str, durably: Any) -> None:
    code, shown, said = durably("list", file)
    assert (code, said) == (0, "")
    title, *lines = shown.splitlines()
    assert title.split() == ["RUN", "STATUS", "JOB", "PROGRESS", "STEPS", "TRIGGERED", "NOTES"]
    assert [line[:26] for line in lines] == [IDS["naps"], IDS["breaks"], IDS["imports"]]
    assert "pending" in lines[0]
    assert "waits for sleep:until-monday" in lines[0]
    assert "day=monday  no \\x1b[31mconnection" in lines[1]
    assert "████████ 3 of 3" in lines[2]

    def found(*options: str) -> list[str]:
        return [run["id"] for run in as_json(durably("list", file, "--json", *options))]

    assert found("--status", "failed", "--status", "pending") == [IDS["naps"], IDS["breaks"]]
    assert found("--job", "imports") == [IDS["imports"]]
    assert found("--label", "day=monday", "--label", "site=a") == [IDS["imports"]]
    assert found("--limit", "1") == [IDS["naps"]]
    assert found("--job", "nobody") == []
    assert "These are the newest 1;" in durably("list", file, "--limit", "1")[1]
    assert durably("list", file, "--job", "nobody") == (0, "There are no such runs.\n", "")


def test_a_run_is_shown_with_its_steps_and_logs_and_nothing_stored_commands_the_terminal(
    file: str, durably: Any
) -> None:
    """What a job has stored may come from anywhere; an escape sequence in it is shown, and not obeyed."""
    code, shown, _ = durably("show", file, IDS["imports"])
    assert code == 0
    for words in ("completed", "day=monday  site=a", '{"rows": 3}', "3 of 3  日本語 \\x1b[2J"):
        assert words in shown
    steps = shown[shown.index("Steps\n") : shown.index("Logs\n")].splitlines()[1:4]
    assert [line.split()[:2] for line in steps] == [[f"page-{page}", "completed"] for page in range(3)]
    assert all("█" in line and line.split()[3] in ("ms", "s") for line in steps)
    assert 'warning  nearly full \\x1b]0;title\\x07  {"percent":93}' in shown.replace(": ", ":")

    failed = durably("show", file, IDS["breaks"])[1]
    assert "    no \\x1b[31mconnection\n    behind the wall\n" in failed
    assert "characters; --json shows them all)" in failed
    assert not {each for each in shown + failed if not each.isprintable()} - {"\n"}

    document = as_json(durably("show", file, IDS["imports"], "--json"))
    assert (document["run"]["jobName"], document["run"]["output"]) == ("imports", {"rows": 3})
    assert [step["name"] for step in document["steps"]] == ["page-0", "page-1", "page-2"]
    assert [line["message"] for line in document["logs"]] == ["nearly full \x1b]0;title\x07"]


@pytest.mark.parametrize("columns", [1, 20, 40, 61, 80, 120])
def test_no_line_is_wider_than_the_terminal(
    file: str, durably: Any, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["list", file], *(["show", file, run_id] for run_id in IDS.values())):
        lines = durably(*arguments)[1].splitlines()
        assert len(lines) > 3
        assert max(map(cells, lines)) <= columns


def test_what_a_file_names_is_not_imported(
    file: str, durably: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's stored result may name a class of any module; to look at a file must not run that module."""
    (tmp_path / "a_module_of_theirs.py").write_text("class Thing: ...", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    stored = '{"$":"dataclass","t":"a_module_of_theirs:Thing","v":{}}'
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE durably_steps SET output = ? WHERE name = 'page-0'", (stored,))
    document = as_json(durably("show", file, IDS["imports"], "--json"))
    assert document["steps"][0]["output"] == json.loads(stored)
    assert "a_module_of_theirs" not in sys.modules


def test_a_run_is_named_by_the_beginning_of_its_id_where_that_is_enough(file: str, durably: Any) -> None:
    others = [run_id for key, run_id in IDS.items() if key != "imports"]
    beginnings = [IDS["imports"][:length] for length in range(1, 27)]
    beginning = next(each for each in beginnings if not any(other.startswith(each) for other in others))
    assert IDS["imports"] in durably("show", file, beginning.lower())[1]
    code, shown, said = durably("cancel", file, IDS["naps"][:1])
    assert (code, shown) == (1, "")
    assert all(run_id in said for run_id in IDS.values())
    assert durably("show", file, "nobody") == (1, "", "durably: there is no run nobody\n")


def test_retry_and_cancel_change_what_the_status_allows(file: str, durably: Any) -> None:
    assert durably("retry", file, IDS["breaks"])[:2] == (0, f"{IDS['breaks']}  pending  0 steps  breaks\n")
    code, shown, said = durably("retry", file, IDS["breaks"])
    assert (code, shown) == (1, "")
    assert said == f"durably: run {IDS['breaks']} is pending and cannot be retried\n"
    code, shown, _ = durably("cancel", file, IDS["breaks"])
    assert (code, shown.split()[1]) == (0, "cancelled")
    assert durably("cancel", file, IDS["imports"])[0] == 1


def test_purge_deletes_only_what_was_agreed_to(file: str, durably: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    def left() -> set[str]:
        return {run["id"] for run in as_json(durably("list", file, "--json"))}

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, shown, _ = durably("purge", file, "--older-than", "30d")
    assert (code, shown[:22]) == (0, "There are no runs that")
    make_older(file)
    code, shown, said = durably("purge", file, "--older-than", "30d")
    assert (code, shown) == (1, "")
    assert "--yes deletes all" in said
    for answer in ("\n", "n\n", ""):
        monkeypatch.setattr(sys, "stdin", Person(answer))
        assert durably("purge", file, "--older-than", "30d")[0] == 1
    assert left() == {*IDS.values()}
    monkeypatch.setattr(sys, "stdin", Person("y\n"))
    code, shown, _ = durably("purge", file, "--older-than", "30d")
    assert code == 0
    assert "Delete 2 runs that ended before" in shown
    assert left() == {IDS["naps"]}
    assert durably("purge", file, "--older-than", "999999999d", "--yes")[0] == 0


def make_older(file: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE durably_runs SET completed_at = completed_at - 31 * 86400000")


def test_an_exported_file_is_as_good(file: str, durably: Any, tmp_path: Path) -> None:
    async def exported() -> bytes:
        original = create_durably(file)
        image = await original.export()
        await original.stop()
        return image

    copy = tmp_path / "exported.sqlite3"
    copy.write_bytes(asyncio.run(exported()))
    before = copy.read_bytes()
    assert as_json(durably("list", str(copy), "--json")) == as_json(durably("list", file, "--json"))
    assert durably("show", str(copy), IDS["imports"])[0] == 0
    assert durably("follow", str(copy), IDS["breaks"])[0] == 1
    assert copy.read_bytes() == before, "to look at it has changed it"
    assert [path.name for path in tmp_path.glob("exported*")] == ["exported.sqlite3"]
    assert durably("retry", str(copy), IDS["breaks"])[0] == 0


def not_there(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def text(file: Path) -> None:
    file.write_text("dear diary\n" * 100, "utf-8")


def of_others(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE diary (line TEXT)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("INSERT INTO durably_schema_versions VALUES (999, 0)")


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (not_there, "there is no file"),
        (empty, "is empty"),
        (folder, "is not a file"),
        (text, "is not a SQLite database"),
        (of_others, "but not one of durably's"),
        (newer, "written by a newer version"),
        (torn, "malformed"),
    ],
)
def test_what_is_no_file_of_this_durably_is_refused_and_left_as_it_is(
    file: str, durably: Any, spoil: Callable[[Path], None], sentence: str
) -> None:
    path = Path(file)
    spoil(path)

    def folder_now() -> dict[str, bytes]:
        return {each.name: each.read_bytes() if each.is_file() else b"" for each in path.parent.iterdir()}

    before = folder_now()
    for arguments in (["list", file], ["cancel", file, IDS["naps"]], ["purge", file, "--older-than", "1s", "--yes"]):
        code, shown, said = durably(*arguments)
        assert (code, shown) == (1, "")
        assert said.startswith("durably: ")
        assert sentence in said
        assert said.count("\n") == 1
    assert folder_now() == before


def test_an_older_file_is_not_migrated(file: str, durably: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program may be an older one that still works on it, and would be locked out."""
    newest = opening.newest_version()
    monkeypatch.setattr(opening, "newest_version", lambda: newest + 1)
    code, _, said = durably("list", file)
    assert code == 1
    assert "written by an older version and is left untouched" in said


def test_the_commands_of_the_readme_are_ones_that_there_are() -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
    shown = [line.split() for line in re.findall(r"^\$ python -m durably (.+)$", readme, re.MULTILINE)]
    assert [words[0] for words in shown] == ["list", "show", "follow", "retry", "cancel", "purge", "serve"]
    for words in shown:
        assert command_line().parse_args(words).action.__name__ == f"{words[0]}_verb"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["list"],
        ["list", "f", "--status", "lost"],
        ["list", "f", "--label", "nameless"],
        ["list", "f", "--limit", "0"],
        ["show", "f", ""],
        ["purge", "f"],
        ["purge", "f", "--older-than", "soon"],
    ],
)
def test_a_wrong_command_line_is_told_apart_by_its_code(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_live_run_is_followed_left_cancelled_and_retried(tmp_path: Path, durably: Any) -> None:
    """The worker is another process, which hears of all this through the file alone."""
    file = str(tmp_path / "live.sqlite3")

    async def do(what: Callable[[Any], Awaitable[Any]]) -> Any:
        instance = create_durably(file, jobs=command_worker.JOBS)
        try:
            return await what(instance)
        finally:
            await instance.stop()

    with started(command_worker.__file__, file) as worker:
        read_until(worker, "ready")
        run_id = asyncio.run(do(lambda it: it.jobs.patient.trigger("Ada"))).id
        follow = ["-m", "durably", "follow", file, run_id]
        with started(*follow, cwd=tmp_path) as follower, started(*follow, cwd=tmp_path) as leaver:
            read_until(leaver, "waits for signal:go")
            leaver.send_signal(signal.SIGINT)
            assert leaver.wait() == 130
            assert leaver.stderr is not None
            assert leaver.stderr.read() == ""
            assert "1 of 3  greeted" in read_until(follower, "waits for signal:go")
            asyncio.run(do(lambda it: it.signal(run_id, "go")))
            last, said = follower.communicate()
            assert "completed" in last
            assert '"bye Ada"' in last
            assert (follower.returncode, said) == (0, "")

        endless_id = asyncio.run(do(lambda it: it.jobs.endless.trigger(None))).id
        read_until(worker, "begun")
        assert durably("cancel", file, endless_id)[0] == 0
        read_until(worker, "let go")
        assert durably("retry", file, endless_id)[0] == 0
        read_until(worker, "begun")
        assert durably("cancel", file, endless_id)[0] == 0
        assert durably("follow", file, endless_id)[0] == 1


def test_a_terminal_gets_colours_and_its_own_width_unless_it_wants_none(file: str, tmp_path: Path) -> None:
    def shown_on_terminal(*arguments: str, **environment: str) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        settings = {"cwd": tmp_path, "stdin": theirs, "stdout": theirs}
        with started("-m", "durably", *arguments, extra=environment, **settings) as process:
            os.close(theirs)
            written = b""
            try:
                while part := os.read(ours, 65536):
                    written += part
            except OSError:  # which is how Linux says that the other end is closed
                pass
            os.close(ours)
            assert process.wait() == 0
        return written.decode()

    coloured = shown_on_terminal("follow", file, IDS["imports"])
    assert "\x1b[32mcompleted\x1b[0m" in coloured
    assert "\r" in coloured.replace("\r\n", "")
    plain = shown_on_terminal("list", file, NO_COLOR="1")
    assert "\x1b" not in plain
    assert max(map(cells, plain.splitlines())) <= 60


def test_a_terminal_that_knows_ascii_alone_gets_ascii() -> None:
    """On such a one a bar, or a letter of a stored text, must not end the command."""
    written = io.BytesIO()
    terminal = Terminal(io.TextIOWrapper(written, encoding="ascii"), {"COLUMNS": "14"})
    terminal.say(*terminal.bar(0.5, 4), " 日本 and so on")
    assert written.getvalue() == b"##.. ?? and?\n"
    assert max(map(cells, written.getvalue().decode().splitlines())) <= 14


def test_whoever_has_read_enough_is_not_told_of_a_broken_pipe(file: str, tmp_path: Path) -> None:
    with started("-m", "durably", "show", file, IDS["imports"], cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1
