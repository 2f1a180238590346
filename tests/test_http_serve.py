"""`python -m durably serve`: what a person at a terminal and a browser see of it, and whom it turns away."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_server import Served, events, program, served

from durably.command.line import main
from durably.command.serving import only_own_pages
from durably.http import HTTPError, Request

JOBS = Path(__file__).with_name("http_jobs.py")
POLICY = {"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"}


def triggered(server: Served, name: str, payload: Any) -> str:
    answer = httpx.post(f"{server.api}/trigger", json={"jobName": name, "input": payload})
    return str(answer.raise_for_status().json()["runId"])


def until(server: Served, run_id: str, path: str, wanted: Any) -> Any:
    """What `wanted(answer)` gives, once that is something."""
    for _ in range(2000):
        answer = httpx.get(f"{server.api}{path}?runId={run_id}").raise_for_status().json()
        if wanted(answer):
            return answer
        time.sleep(0.005)
    raise AssertionError(answer)


def ended(server: Served, run_id: str) -> Any:
    return until(server, run_id, "/run", lambda run: run["isTerminal"])


# --- what it serves ---------------------------------------------------------------------------------


def test_it_serves_the_dashboard_and_the_api_and_nothing_else(tmp_path: Path) -> None:
    with served(tmp_path / "app.sqlite3", JOBS) as server, httpx.Client(base_url=server.url) as client:
        for path, kind in (("/", "text/html; charset=utf-8"), ("/dashboard.mjs", "text/javascript")):
            page = client.get(path)
            assert (page.status_code, page.headers["content-type"]) == (200, kind)
            assert set(page.headers["content-security-policy"].split("; ")) >= POLICY
            assert "unsafe-inline" not in re.findall("(?:default|script)-src[^;]*", str(page.headers))
            assert page.headers["x-content-type-options"] == "nosniff"
            assert "server" not in page.headers
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(page.content))
            assert client.post(path).status_code == 404
        assert "durably-dashboard" in client.get("/").text
        for path in ("/index.html", "/..%2fserving.py", "/../serving.py", "/dashboard.mjs/", "/app.sqlite3", "/web/"):
            assert client.get(path).status_code == 404, path
        names = [each["name"] for each in client.get("/api/durably/jobs").json()]
        assert sorted(names) == ["floods", "greet", "holds", "takes", "varied"]
        assert ended(server, triggered(server, "greet", "ada"))["output"] == "hello ada"
        assert client.get("/api/durably/export").content.startswith(b"SQLite format 3")
        said = server.process.stdout.readline() + server.process.stdout.readline()  # type: ignore[union-attr]
        assert "/api/durably/" in said
        assert "floods, greet, holds, takes, varied" in said


HOSTS = {
    "localhost": True,
    "localhost:8000": True,
    "LOCALHOST:8000": True,
    "127.0.0.1": True,
    "127.0.0.1:99": True,
    "[::1]:8000": True,
    "evil.example": False,
    "evil.example:8000": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "evil.example/localhost": False,
    "evil.example@x": False,
    "localhost, evil.example": False,
    "[::1": False,
    "127.1": False,
    "0.0.0.0": False,  # noqa: S104 - what a browser may ask by
    "": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_was_made_to_lead_here_is_refused(host: str) -> None:
    """DNS rebinding: the page of another site is then of the same origin, but the name it asks by is its own."""
    guard = only_own_pages("127.0.0.1")
    if HOSTS[host]:
        guard(Request("GET", "/api/durably/runs", {"host": host}))
    else:
        with pytest.raises(HTTPError) as refused:
            guard(Request("GET", "/api/durably/runs", {"host": host} if host else {}))
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (None, True),
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1:8001", False),
        ("http://127.0.0.1", False),
        ("http://localhost:8000", False),
        ("https://evil.example", False),
        ("http://127.0.0.1:8000.evil.example", False),
        ("http://127.0.0.1:8000@evil.example", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("http://[", False),
    ],
)
def test_what_the_page_of_another_site_sends_is_refused(origin: str | None, *, is_own: bool) -> None:
    headers = {"host": "127.0.0.1:8000"} | ({} if origin is None else {"origin": origin})
    request = Request("POST", "/api/durably/trigger", headers)
    for guard in (only_own_pages("127.0.0.1"), only_own_pages("0.0.0.0")):  # noqa: S104 - what a person may give
        if is_own:
            guard(request)
        else:
            with pytest.raises(HTTPError) as refused:
                guard(request)
            assert refused.value.status == 403


def test_the_guards_stand_before_every_endpoint(tmp_path: Path) -> None:
    with served(tmp_path / "app.sqlite3", JOBS) as server, httpx.Client(base_url=server.url) as client:
        body = '{"jobName": "greet", "input": "x"}'
        for headers in (
            {"origin": "https://evil.example", "content-type": "text/plain"},
            {"origin": "null"},
            {"host": "evil.example"},
            {"host": f"evil.example:{client.base_url.port}", "origin": f"http://evil.example:{client.base_url.port}"},
            {"sec-fetch-site": "cross-site"},
        ):
            answer = client.post("/api/durably/trigger", content=body, headers=headers)
            assert (answer.status_code, list(answer.json())) == (403, ["error"]), headers
            for path in ("/runs", "/export", "/runs/subscribe", "/jobs", "/nothing"):
                assert client.get(f"/api/durably{path}", headers=headers).status_code == 403, (path, headers)
        assert client.options("/api/durably/trigger", headers={"origin": "https://evil.example"}).status_code == 403
        assert client.get("/api/durably/runs").json() == []
        own = {"origin": server.url, "sec-fetch-site": "same-origin"}
        assert client.post("/api/durably/trigger", content=body, headers=own).status_code == 200


# --- what goes wrong --------------------------------------------------------------------------------

FAULTY = {
    "x = (": "line 1",
    "\n\nraise OSError('no disk')": "line 3: OSError: no disk",
    "import no_such_module_here": "no_such_module_here",
    "x = 1": "no jobs",
    "raise SystemExit(3)": "SystemExit",
}


@pytest.mark.parametrize("text", FAULTY, ids=list(FAULTY.values()))
def test_a_job_file_that_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = tmp_path / f"faulty_{[*FAULTY].index(text)}.py"
    file.write_text(text, "utf-8")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert main(["serve", str(tmp_path / "app.sqlite3"), str(file), "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("durably: ")
    assert said.count("\n") == 1
    assert FAULTY[text] in said
    assert not (tmp_path / "app.sqlite3").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("nowhere.py", "there is no job file"), ("json.py", "rename it"), ("my-jobs.py", "named like")]
)
def test_a_job_file_that_cannot_be_one_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    if name != "nowhere.py":
        (tmp_path / name).write_text("", "utf-8")
    assert main(["serve", str(tmp_path / "app.sqlite3"), str(tmp_path / name)]) == 1
    assert text in capsys.readouterr().err


def test_without_uvicorn_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(tmp_path / "app.sqlite3"), str(JOBS)]) == 1
    assert capsys.readouterr().err == "durably: serving needs the package uvicorn: pip install 'durably[server]'\n"


def outcome(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of a program that ends by itself, and what it says of its fault."""
    with program(*arguments) as process:
        said = process.communicate(timeout=30)[1]
        return process.returncode, said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = str(taken.getsockname()[1])
        code, said = outcome("serve", tmp_path / "app.sqlite3", JOBS, "--port", port, "--host", host)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"durably: port {port} of {host} is taken")


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "a b"])
def test_an_address_that_is_not_ours_is_a_sentence(tmp_path: Path, host: str) -> None:
    code, said = outcome("serve", tmp_path / "app.sqlite3", JOBS, "--port", "0", "--host", host)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"durably: cannot listen at {host}")


def test_a_file_that_is_no_database_is_a_sentence_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "app.sqlite3"
    file.write_bytes(b"this is a letter, and no database" * 100)
    code, said = outcome("serve", file, JOBS, "--port", "0")
    assert code == 1
    assert "app.sqlite3" in said
    assert "Traceback" not in said
    assert file.read_bytes() == b"this is a letter, and no database" * 100


# --- Ctrl-C -----------------------------------------------------------------------------------------


@pytest.mark.alone
def test_ctrl_c_ends_it_in_time_whatever_is_under_way(tmp_path: Path) -> None:
    """Streams that are open, one of them of a client that does not read, and a run in flight, which goes on when it
    is served again."""
    file, sign = tmp_path / "app.sqlite3", tmp_path / "sign"
    with served(file, JOBS) as server:
        run_id = triggered(server, "holds", str(sign))
        until(server, run_id, "/steps", lambda steps: len(steps) == 1)
        port = int(server.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port)) as stalled,
            httpx.stream("GET", f"{server.api}/runs/subscribe", timeout=10) as every,
            httpx.stream("GET", f"{server.api}/subscribe?runId={run_id}", timeout=10) as one,
        ):
            stalled.sendall(b"GET /api/durably/runs/subscribe HTTP/1.1\r\nhost: localhost\r\n\r\n")
            telling = events(one)
            assert next(telling)[1]["type"] == "run:start"
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert [event["type"] for _, event in telling] == []
            assert [event["type"] for _, event in events(every)] == []
            _, said = server.process.communicate(timeout=20)
            seconds = time.monotonic() - began
        assert said == ""
        assert server.process.returncode == 130
        assert seconds < 10, f"{seconds:.1f} s"
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT status FROM durably_runs").fetchall() == [("pending",)]
    sign.touch()
    with served(file, JOBS) as server:
        assert ended(server, run_id)["output"] == "seen"
        steps = httpx.get(f"{server.api}/steps?runId={run_id}").json()
        assert [(step["name"], step["output"]) for step in steps] == [("before", "kept"), ("look", None)]
        server.process.send_signal(signal.SIGTERM)
        _, said = server.process.communicate(timeout=20)
        assert said == ""


@pytest.mark.alone
def test_ctrl_c_waits_for_no_client_that_has_stopped_reading(tmp_path: Path) -> None:
    with served(tmp_path / "app.sqlite3", JOBS) as server, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        stalled.sendall(b"GET /api/durably/runs/subscribe HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert ended(server, triggered(server, "floods", 8000))["status"] == "completed"
        until(server, triggered(server, "takes", None), "/run", lambda run: run["status"] == "running")
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        _, said = server.process.communicate(timeout=20)
        seconds = time.monotonic() - began
    assert "Traceback" not in said, said
    assert server.process.returncode == 130
    assert seconds < 10, f"{seconds:.1f} s"


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    with served(tmp_path / "app.sqlite3", JOBS) as server:
        run_id = triggered(server, "takes", None)
        until(server, run_id, "/run", lambda run: run["status"] == "running")
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, said = server.process.communicate(timeout=20)
        assert "Traceback" not in said
        assert server.process.returncode != 0
