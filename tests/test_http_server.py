"""The HTTP API over real sockets: every endpoint, every way to mount it, and requests that nobody means well."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_jobs import holds
from http_server import Site, events, in_thread
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from durably import Durably, StepContext, create_durably, job, with_log_persistence
from durably.http import create_durably_handler
from durably.http.asgi import durably_app
from durably.http.handler import ROUTES

ENDPOINTS = [(method, path) for path, methods in ROUTES.items() for method in methods]
MOST_BYTES = 10_000_000


class Person(BaseModel):
    name: str


@job
async def greet(step: StepContext, payload: Person) -> str:
    step.log.info("begun", {"name": payload.name})
    step.progress(1, 1)
    return await step.run("greet", lambda: f"hello {payload.name}")


@job
async def waits(step: StepContext, payload: Any) -> Any:
    return await step.wait_for_signal("go")


JOBS = [greet, waits, holds]


def durably_of(file: Path | str) -> Durably:
    durably = create_durably(file, jobs=JOBS, polling_interval=0.02, max_concurrent_runs=4)
    durably.use(with_log_persistence())
    return durably


class Api:
    """The API behind a URL, as a client has it."""

    def __init__(self, client: httpx.Client, base: str, site: Site) -> None:
        self.client = client
        self.base = base
        self.site = site

    def newest(self) -> str | None:
        """The id of the newest run, which may still be executed."""
        return next((run["id"] for run in self.ask("GET", "/runs?limit=1")), None)

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        content = None if body is None else json.dumps(body)
        response = self.client.request(method, self.base + path, content=content)
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        return response.json()

    def triggered(self, name: str, payload: Any = None, **more: Any) -> str:
        answer = self.ask("POST", "/trigger", {"jobName": name, "input": payload, **more})
        assert answer.keys() == {"runId", "disposition"}
        return str(answer["runId"])

    def until(self, run_id: str, *statuses: str) -> dict[str, Any]:
        for _ in range(1000):
            run: dict[str, Any] = self.ask("GET", f"/run?runId={run_id}")
            if run["status"] in statuses:
                return run
            time.sleep(0.005)
        raise AssertionError(f"the run is {run['status']}")

    def greeted(self) -> str:
        """A run that has completed."""
        run_id = self.triggered("greet", {"name": "ada"})
        self.until(run_id, "completed")
        return run_id

    def heard(self, method: str, path: str, until: str, body: Any = None) -> list[dict[str, Any]]:
        """What a stream tells, up to an event of the type `until`."""
        content = None if body is None else json.dumps(body)
        told = []
        with self.client.stream(method, self.base + path, content=content) as response:
            assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
            for _, event in events(response):
                told.append(event)
                if event["type"] == until:
                    return told
        raise AssertionError(f"no {until} among {told}")


@contextmanager
def site_of(mounting: str) -> Iterator[Api]:
    durably = durably_of(":memory:")
    handler = create_durably_handler(durably)
    app: Any
    if mounting.startswith("mounted"):

        @asynccontextmanager
        async def lifespan(_: Starlette) -> Any:
            async with durably:
                yield

        path = "/jobs" if mounting == "mounted elsewhere" else "/api/durably"
        inner = durably_app(handler, "") if mounting == "mounted bare" else durably_app(handler)
        app, base = Starlette(routes=[Mount(path, inner)], lifespan=lifespan), path
    else:
        base = "" if mounting == "bare" else "/api/durably"
        app = durably_app(handler) if mounting == "alone" else durably_app(handler, base)
    with in_thread(app, handler) as site, httpx.Client(base_url=site.url, timeout=20) as client:
        assert site.failed is None
        yield Api(client, base, site)


MOUNTINGS = ["alone", "bare", "mounted", "mounted elsewhere", "mounted bare"]


@pytest.fixture(scope="module", params=MOUNTINGS)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with site_of(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def alone() -> Iterator[Api]:
    with site_of("alone") as made:
        yield made


# --- every endpoint ---------------------------------------------------------------------------------


def trigger(api: Api) -> None:
    body = {"jobName": "greet", "input": {"name": "ada"}, "idempotencyKey": f"at {api.base}", "labels": {"a/b": "c"}}
    first, second = api.ask("POST", "/trigger", body), api.ask("POST", "/trigger", body)
    assert (first["disposition"], second) == ("created", {"runId": first["runId"], "disposition": "idempotent"})


def trigger_subscribe(api: Api) -> None:
    body = {"jobName": "greet", "input": {"name": "ada"}}
    told = [event["type"] for event in api.heard("POST", "/trigger/subscribe", "run:complete", body)]
    assert told[:2] == ["run:trigger", "run:start"]
    assert {"log:write", "run:progress", "step:start", "step:complete"} < {*told}


def triggers(api: Api) -> None:
    items = [{"jobName": "greet", "input": {"name": name}} for name in ("ada", "bob")]
    answers = api.ask("POST", "/triggers", items)
    assert [answer["run"]["payload"]["name"] for answer in answers] == ["ada", "bob"]


def subscribe(api: Api) -> None:
    run_id = api.greeted()
    [told] = api.heard("GET", f"/subscribe?runId={run_id}", "run:complete")
    assert (told["runId"], told["output"]) == (run_id, "hello ada")


def runs_subscribe(api: Api) -> None:
    with api.client.stream("GET", f"{api.base}/runs/subscribe?jobName=greet&label.org=x%2Fy") as response:
        api.greeted()
        run_id = api.triggered("greet", {"name": "bob"}, labels={"org": "x/y"})
        told = next(event for _, event in events(response))
        assert (told["type"], told["runId"]) == ("run:trigger", run_id)


def runs(api: Api) -> None:
    run_id = api.triggered("greet", {"name": "ada"}, labels={"list": "yes"})
    assert [run["id"] for run in api.ask("GET", "/runs?label.list=yes&jobName=greet&jobName=waits&limit=1")] == [run_id]
    assert api.ask("GET", "/runs?label.list=yes&offset=1") == []


def run(api: Api) -> None:
    assert api.ask("GET", f"/run?runId={api.greeted()}")["output"] == "hello ada"
    assert "nobody" in api.ask("GET", "/run?runId=nobody", status=404)["error"]


def delete(api: Api) -> None:
    run_id = api.greeted()
    assert api.ask("DELETE", f"/run?runId={run_id}") == {"success": True}
    api.ask("GET", f"/run?runId={run_id}", status=404)


def steps(api: Api) -> None:
    [step] = api.ask("GET", f"/steps?runId={api.greeted()}")
    assert (step["name"], step["status"], step["output"]) == ("greet", "completed", "hello ada")


def logs(api: Api) -> None:
    [line] = api.ask("GET", f"/logs?runId={api.greeted()}")
    assert (line["id"], line["message"], line["data"]) == (1, "begun", {"name": "ada"})


def cancel(api: Api) -> str:
    run_id = api.triggered("waits")
    assert api.ask("POST", f"/cancel?runId={run_id}") == {"success": True}
    assert api.until(run_id, "cancelled")["isTerminal"] is True
    assert "cancelled" in api.ask("POST", f"/cancel?runId={run_id}", status=409)["error"]
    return run_id


def retry(api: Api) -> None:
    run_id = cancel(api)
    assert api.ask("POST", f"/retry?runId={run_id}") == {"success": True}
    assert api.until(run_id, "pending", "running")["isActive"] is True


def retrigger(api: Api) -> None:
    answer = api.ask("POST", f"/retrigger?runId={api.greeted()}")
    assert api.until(answer["runId"], "completed")["payload"] == {"name": "ada"}


def signal(api: Api) -> None:
    run_id = api.triggered("waits")
    assert api.ask("POST", f"/signal?runId={run_id}", {"name": "go", "payload": [1]}) == {"success": True}
    assert api.until(run_id, "completed")["output"] == [1]


def jobs(api: Api) -> None:
    assert [each["name"] for each in api.ask("GET", "/jobs")] == ["greet", "waits", "holds"]


def storage(api: Api) -> None:
    assert api.ask("GET", "/storage")["kind"] == "memory"


def export(api: Api) -> None:
    run_id = api.greeted()
    response = api.client.get(f"{api.base}/export")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/vnd.sqlite3")
    copy = sqlite3.connect(":memory:")
    copy.deserialize(response.content)
    assert (run_id,) in copy.execute("SELECT id FROM durably_runs").fetchall()
    copy.close()


def openapi(api: Api) -> None:
    document = api.ask("GET", "/openapi.json")
    assert document["servers"] == [{"url": api.base or "/"}]
    assert document["paths"].keys() == ROUTES.keys()


CHECKS: dict[tuple[str, str], Callable[[Api], Any]] = {
    ("POST", "/trigger"): trigger,
    ("POST", "/trigger/subscribe"): trigger_subscribe,
    ("POST", "/triggers"): triggers,
    ("GET", "/subscribe"): subscribe,
    ("GET", "/runs/subscribe"): runs_subscribe,
    ("GET", "/runs"): runs,
    ("GET", "/run"): run,
    ("DELETE", "/run"): delete,
    ("GET", "/steps"): steps,
    ("GET", "/logs"): logs,
    ("POST", "/retry"): retry,
    ("POST", "/retrigger"): retrigger,
    ("POST", "/cancel"): cancel,
    ("POST", "/signal"): signal,
    ("GET", "/jobs"): jobs,
    ("GET", "/storage"): storage,
    ("GET", "/export"): export,
    ("GET", "/openapi.json"): openapi,
}


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_an_endpoint_does_over_a_socket_what_it_says(api: Api, method: str, path: str) -> None:
    """Alone and mounted. A route that is not in `CHECKS` fails here."""
    CHECKS[method, path](api)


def test_mounted_it_answers_below_its_own_base_path_too() -> None:
    with site_of("mounted") as api:
        assert api.ask("GET", "/api/durably/jobs") == api.ask("GET", "/jobs")
        api.ask("GET", "/api/durably/api/durably/jobs", status=404)


# --- life -------------------------------------------------------------------------------------------


def test_alone_it_starts_and_stops_with_its_server(tmp_path: Path) -> None:
    """A run in flight is handed back when the server stops, and completed by the next one."""
    file, sign = tmp_path / "app.sqlite3", tmp_path / "sign"
    for server in range(2):
        durably = durably_of(file)
        handler = create_durably_handler(durably)
        with (
            in_thread(durably_app(handler, stop_timeout=0.1), handler) as site,
            httpx.Client(base_url=site.url) as client,
        ):
            api = Api(client, "/api/durably", site)
            if server == 0:
                api.greeted()
                run_id = api.triggered("holds", str(sign))
                while not api.ask("GET", f"/steps?runId={run_id}"):
                    time.sleep(0.005)
            else:
                sign.touch()
                assert api.until(run_id, "completed")["output"] == "seen"
                [before, _] = api.ask("GET", f"/steps?runId={run_id}")
                assert before["output"] == "kept"
        assert site.failed is None
        with sqlite3.connect(file) as connection:
            [status] = connection.execute("SELECT status FROM durably_runs WHERE id = ?", [run_id]).fetchone()
        connection.close()
        assert status == ("pending" if server == 0 else "completed")


def test_a_server_that_cannot_start_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "app.sqlite3"
    file.write_bytes(b"this is a letter, and no database" * 100)
    handler = create_durably_handler(durably_of(file))
    with in_thread(durably_app(handler), handler, log_level="error", log_config=None) as site:
        pass
    assert isinstance(site.failed, SystemExit)
    assert not site.server.started
    assert "durably could not start: " in caplog.text
    assert "app.sqlite3" in caplog.text
    assert "Traceback" not in caplog.text
    assert file.read_bytes().startswith(b"this is a letter")


def test_a_websocket_is_refused_and_nothing_else_is_said(alone: Api) -> None:
    headers = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
    assert alone.client.get("/api/durably/runs", headers=headers).status_code in (200, 400, 403, 426)
    alone.greeted()


# --- what nobody means well -------------------------------------------------------------------------


def told_properly(response: httpx.Response, *statuses: int) -> str:
    """The sentence of a refusal, which shows nothing of the inside."""
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert response.headers["durably-error"]
    for inside in ("Traceback", ".py", str(Path.home()), str(Path(__file__).parent.parent)):
        assert inside not in answer["error"]
    return str(answer["error"])


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_another_method_is_answered_with_those_that_there_are(alone: Api, method: str, path: str) -> None:
    for other in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X"):
        if other not in ROUTES[path]:
            response = alone.client.request(other, f"{alone.base}{path}?runId=x")
            assert path in told_properly(response, 405)
            assert response.headers["allow"].split(", ") == list(ROUTES[path])
    response = alone.client.head(f"{alone.base}{path}")
    assert (response.status_code, response.content) == (405, b"")


def test_a_method_may_be_written_small_and_is_the_same(alone: Api) -> None:
    assert alone.client.request("get", f"{alone.base}/jobs").json() == alone.ask("GET", "/jobs")
    assert alone.client.request("delete", f"{alone.base}/jobs").status_code == 405


OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override", "_method")


@pytest.mark.parametrize("header", OVERRIDES)
def test_a_header_does_not_change_the_method(alone: Api, header: str) -> None:
    run_id = alone.greeted()
    response = alone.client.get(f"{alone.base}/run?runId={run_id}&_method=DELETE", headers={header: "DELETE"})
    assert response.json()["id"] == run_id
    response = alone.client.post(f"{alone.base}/run?runId={run_id}", headers={header: "DELETE"})
    told_properly(response, 405)
    response = alone.client.get(f"{alone.base}/nothing", headers={"x-original-url": "/api/durably/runs"})
    told_properly(response, 404)
    alone.ask("GET", f"/run?runId={run_id}")


PATHS = [
    "",
    "/",
    "/api/durably",
    "/api/durably/",
    "/api/durably/runs/",
    "/api/durably//runs",
    "//api/durably/runs",
    "/api//durably/runs",
    "/api/durably/./runs",
    "/api/durably/x/../runs",
    "/api/durably/%2e%2e/durably/runs",
    "/api/durably/%72uns",
    "/api/durably%2Fruns",
    "/api/durably/runs%2Fsubscribe",
    "/api%2fdurably/runs",
    "/api/durably/RUNS",
    "/API/durably/runs",
    "/api/durably/runs;x=1",
    "/api/durably/runs%00",
    "/api/durably/runs%0d%0aset-cookie:x",
    "/api/durably/runs%20",
    "/api/durably/%ff%fe",
    "/api/durably/%c3%28",
    "/api/durably/r%C3%BCns",
    "/api/durably/runs\\",
    "/api/durably/../../etc/passwd",
    "/api/durably/runs.json",
    "/runs",
    "/api/durablyruns",
    "/api/durably/run%",
    "/api/durably/" + "x" * 10_000,
]


def raw(site: Site, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request that is sent as it is."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return int(status.split()[1]), {line.split(":")[0].lower(): line.split(": ")[1] for line in lines}, body


@pytest.mark.parametrize("path", PATHS[2:], ids=lambda path: repr(path[:40]))
def test_a_path_that_is_written_otherwise_is_another_one(alone: Api, path: str) -> None:
    target = path.encode("latin-1")
    request = b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % target
    status, headers, body = raw(alone.site, request)
    assert status == 404, body
    assert headers["durably-error"] == "NotFoundError"
    assert b"there is nothing at" in body
    alone.ask("GET", "/jobs")


@pytest.mark.parametrize("mounting", ["mounted", "mounted elsewhere"])
def test_mounted_a_path_that_is_written_otherwise_is_another_one_too(mounting: str) -> None:
    with site_of(mounting) as api:
        for path in ("/runs/", "//runs", "/%72uns", "/./runs", "/x/../runs", "/runs%2Fsubscribe", "/RUNS", "/%2e/runs"):
            target = (api.base + path).encode()
            status, _, body = raw(api.site, b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % target)
            assert status == 404, (path, body)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(
    "path", ["/trigger", "/triggers", "/trigger/subscribe", "/signal?runId=x", "/jobs", "/nowhere"]
)
def test_a_body_of_50_mb_is_refused(alone: Api, path: str, *, is_chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1_000_000

    content: Any = chunks() if is_chunked else b" " * 50_000_000
    response = alone.client.post(alone.base + path, content=content)
    assert str(MOST_BYTES) in told_properly(response, 413)
    alone.ask("GET", "/jobs")


def test_a_body_is_as_large_as_is_allowed(alone: Api) -> None:
    body = json.dumps({"jobName": "greet", "input": {"name": "ada"}}).encode()
    response = alone.client.post(f"{alone.base}/trigger", content=body.ljust(MOST_BYTES))
    assert response.status_code == 200
    told_properly(alone.client.post(f"{alone.base}/trigger", content=body.ljust(MOST_BYTES + 1)), 413)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    inside = opening * levels + ("1" if closing == "}" else "") + closing * levels
    return b'{"jobName": "waits", "input": %s}' % inside.encode()


BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "bad UTF-8": b'{"jobName": "\xff\xfe"}',
    "truncated UTF-8": b'{"jobName": "\xe2\x82',
    "UTF-16": '{"jobName": "waits"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"jobName": "waits"}',
    "overlong": b'{"jobName": "\xc0\xae"}',
    "encoded surrogate": b'{"jobName": "\xed\xa0\x80"}',
    "no JSON": b"jobName=waits",
    "truncated": b'{"jobName": "waits"',
    "two values": b'{"jobName": "waits"} {}',
    "single quotes": b"{'jobName': 'waits'}",
    "NaN": b'{"jobName": "waits", "input": NaN}',
    "Infinity": b'{"jobName": "waits", "input": [-Infinity]}',
    "float that is too large": b'{"jobName": "waits", "input": 1e400}',
    "large negative float": b'{"jobName": "waits", "input": [-1e999]}',
    "huge number": b'{"jobName": "waits", "input": %s}' % (b"9" * 5000),
    "null": b"null",
    "number": b"5",
    "list": b"[[]]",
    "text": b'"waits"',
    "deep": nested(200),
    "very deep": nested(1_000_000),
    "very deep objects": nested(500_000, '{"a":', "}"),
    "job is a list": b'{"jobName": ["waits"]}',
    "job is null": b'{"jobName": null}',
    "job is a surrogate": b'{"jobName": "\\ud800"}',
    "job has NUL": b'{"jobName": "waits\\u0000"}',
    "labels are a list": b'{"jobName": "waits", "labels": ["a"]}',
    "label is a number": b'{"jobName": "waits", "labels": {"a": 1}}',
    "label is null": b'{"jobName": "waits", "labels": {"a": null}}',
    "label has NUL": b'{"jobName": "waits", "labels": {"a": "b\\u0000c"}}',
    "label is a surrogate": b'{"jobName": "waits", "labels": {"a": "\\ud800"}}',
    "label's key is a surrogate": b'{"jobName": "waits", "labels": {"\\udfff": "a"}}',
    "label's key is empty": b'{"jobName": "waits", "labels": {"": "a"}}',
    "label's key is odd": b'{"jobName": "waits", "labels": {"a b": "a"}}',
    "key is a number": b'{"jobName": "waits", "idempotencyKey": 1}',
    "key is a list": b'{"jobName": "waits", "idempotencyKey": []}',
    "key is empty": b'{"jobName": "waits", "idempotencyKey": ""}',
    "key is a surrogate": b'{"jobName": "waits", "idempotencyKey": "\\ud800"}',
    "concurrency key is a number": b'{"jobName": "waits", "concurrencyKey": 1.5}',
    "concurrency key is a surrogate": b'{"jobName": "waits", "concurrencyKey": "\\ud83d"}',
    "concurrency key is false": b'{"jobName": "waits", "concurrencyKey": false}',
    "coalesce is odd": b'{"jobName": "waits", "concurrencyKey": "a", "coalesce": "all"}',
    "coalesce is a list": b'{"jobName": "waits", "concurrencyKey": "a", "coalesce": ["skip"]}',
    "coalesce is true": b'{"jobName": "waits", "concurrencyKey": "a", "coalesce": true}',
    "coalesce alone": b'{"jobName": "waits", "coalesce": "skip"}',
    "more than there is": b'{"jobName": "waits", "priority": 9}',
    "odd names": b'{"jobName": "waits", "__class__": 1, "\\ud800": 2, "\\u0000": 3}',
    "payload is wrong": b'{"jobName": "greet", "input": {"name": 1}}',
    "payload is a surrogate": b'{"jobName": "greet", "input": {"name": {"\\ud800": 1}}}',
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_makes_no_sense_is_refused(alone: Api, kind: str) -> None:
    """On each endpoint that takes one; nothing is stored."""
    body = BODIES[kind]
    before = alone.newest()
    for path, content in (
        ("/trigger", body),
        ("/trigger/subscribe", body),
        ("/triggers", b"[" + body + b"]" if body.strip() else body),
    ):
        told_properly(alone.client.post(alone.base + path, content=content), 400, 404)
    assert alone.newest() == before


TAKEN: dict[str, bytes] = {
    "many digits": b'{"jobName": "waits", "input": %s}' % (b"9" * 4000),
    "large float": b'{"jobName": "waits", "input": [1e308, -1e308, 1e-400]}',
    "surrogate": b'{"jobName": "waits", "input": {"\\ud800": "\\udfff"}}',
    "NUL": b'{"jobName": "waits", "input": "a\\u0000b"}',
    "duplicate keys": b'{"jobName": "greet", "jobName": "waits"}',
    "deep": nested(99),
    "tags": b'{"jobName": "waits", "input": {"$": "bytes", "$type": "set", "__proto__": {}}}',
    "nothing": b'{"jobName": "waits"}',
    "nulls": b'{"jobName": "waits", "input": null, "labels": null, "coalesce": null, "idempotencyKey": null}',
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_payload_that_is_odd_is_kept_and_shown_or_refused(alone: Api, kind: str) -> None:
    """Whatever is stored must not break the lists and streams of others."""
    with alone.client.stream("GET", f"{alone.base}/runs/subscribe") as response:
        answer = alone.client.post(f"{alone.base}/trigger", content=TAKEN[kind])
        if answer.status_code != 200:
            told_properly(answer, 400)
            return
        run_id = answer.json()["runId"]
        assert any(event["runId"] == run_id for _, event in events(response))
    shown = alone.ask("GET", f"/run?runId={run_id}")
    assert [shown["payload"]] == [each["payload"] for each in alone.ask("GET", "/runs?limit=1")]
    alone.ask("POST", f"/signal?runId={run_id}", {"name": "go"})
    alone.until(run_id, "completed")
    alone.ask("POST", f"/retrigger?runId={run_id}")


SIGNALS: dict[str, bytes] = {
    **{kind: BODIES[kind] for kind in ("empty", "bad UTF-8", "NaN", "null", "list", "deep", "very deep")},
    "no name": b"{}",
    "name is a number": b'{"name": 1}',
    "name is empty": b'{"name": ""}',
    "name is a surrogate": b'{"name": "\\ud800"}',
    "name has NUL": b'{"name": "a\\u0000"}',
    "huge payload": b'{"name": "x", "payload": 1e999}',
    "odd payload": b'{"name": "x", "payload": "\\ud800"}',
}


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_that_is_odd_is_refused_or_does_no_harm(alone: Api, kind: str) -> None:
    run_id = alone.triggered("waits")
    response = alone.client.post(f"{alone.base}/signal?runId={run_id}", content=SIGNALS[kind])
    if response.status_code != 200:
        told_properly(response, 400)
    alone.ask("POST", f"/signal?runId={run_id}", {"name": "go"})
    alone.until(run_id, "completed")


QUERIES = [
    ("/run", 400),
    ("/run?", 400),
    ("/run?runId=", 400),
    ("/run?runId=a&runId=b", 400),
    ("/run?runid=a", 400),
    ("/run?runId=%FF%FE", 400),
    ("/run?runId=%ED%A0%80", 400),
    ("/run?runId=%00", 404),
    ("/run?runId=%F0%9F%98%80", 404),
    ("/run?runId=../../etc/passwd", 404),
    ("/run?runId=%27%20OR%201=1--", 404),
    ("/run?runId=" + "x" * 30_000, 404),
    ("/run?" + "a=1&" * 10_000 + "runId=x", 400),
    ("/run?" + "&" * 100 + "runId=x", 404),
    ("/steps?runId=%00", 404),
    ("/logs?runId=%FF", 400),
    ("/subscribe?runId=%00", 404),
    ("/runs?" + "jobName=a&" * 6_000, 400),
    ("/runs?%FF=%FF", 400),
    ("/runs?status=done", 400),
    ("/runs?status=", 400),
    ("/runs?status=%00", 400),
    ("/runs?limit=x", 400),
    ("/runs?limit=", 400),
    ("/runs?limit=-1", 400),
    ("/runs?limit=1.5", 400),
    ("/runs?limit=1e3", 400),
    ("/runs?limit=%D9%A3", 400),
    ("/runs?limit=" + "9" * 5000, 400),
    ("/runs?limit=1&limit=2", 400),
    ("/runs?offset=" + "9" * 16, 400),
    ("/runs?label.=x", 400),
    ("/runs?label.a=1&label.a=2", 400),
    ("/runs/subscribe?label.a=1&label.a=2", 400),
    ("/runs/subscribe?jobName=%FF", 400),
    ("/runs?offset=999999999999999", 200),
    ("/runs?limit=0", 200),
    ("/runs?jobName=%00&label.x=%00&label.%00=y", 200),
    ("/runs?jobName=", 200),
    ("/runs?jobName=[]&jobName=%22", 200),
    ("/runs?limit=0&%5B%5D=1&nothing", 200),
]


@pytest.mark.parametrize(("query", "status"), QUERIES, ids=lambda value: str(value)[:40])
def test_a_query_that_makes_no_sense_is_refused(alone: Api, query: str, status: int) -> None:
    response = alone.client.get(alone.base + query)
    if status == 200:
        assert isinstance(response.json(), list)
    told = "" if status == 200 else told_properly(response, status)
    assert len(told) < 40_000
    assert response.status_code == status
    alone.ask("GET", "/jobs")


HEADERS: list[dict[str, str]] = [
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": "application/json; charset=utf-16"},
    {"content-type": ""},
    {"content-encoding": "gzip"},
    {"accept": "text/html"},
    {"last-event-id": "x" * 10_000},
    {"last-event-id": "-1"},
    {"last-event-id": "1e9"},
    {"last-event-id": "99999999999999999"},
    {"last-event-id": "999999999999999999999"},
    {"cookie": "; ".join(["a=b"] * 1000)},
    {"forwarded": "for=_x;proto=https;host=evil"},
    {"x-forwarded-for": "1.2.3.4", "x-forwarded-prefix": "/evil"},
    {"expect": "100-continue"},
    {"if-none-match": "*", "range": "bytes=0-0"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: repr(headers)[:50])
def test_odd_headers_change_nothing(alone: Api, headers: dict[str, str]) -> None:
    body = json.dumps({"jobName": "greet", "input": {"name": "ada"}})
    response = alone.client.post(f"{alone.base}/trigger", content=body, headers=headers)
    assert response.status_code in (200, 400, 501), response.text
    run_id = alone.greeted()
    response = alone.client.get(f"{alone.base}/runs?limit=1", headers=headers)
    assert response.status_code in (200, 400, 501)
    with alone.client.stream("GET", f"{alone.base}/subscribe?runId={run_id}", headers=headers) as response:
        assert response.status_code in (200, 204, 400, 501)
    with alone.client.stream("GET", f"{alone.base}/runs/subscribe", headers=headers) as response:
        assert response.status_code in (200, 400, 501)
    alone.greeted()


RAW: dict[str, bytes] = {
    "a header twice": b"GET /api/durably/jobs HTTP/1.1\r\nhost: x\r\nx: \xff\r\nx: \xfe\r\nconnection: close\r\n\r\n",
    "old": b"GET /api/durably/jobs HTTP/1.0\r\n\r\n",
    "absolute": b"GET http://evil/api/durably/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "a bare bracket": b"GET http://[/api/durably/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "bytes in the path": b"GET /api/durably/\xff\xfe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "bytes in the query": b"GET /api/durably/run?runId=\xff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "a fragment": b"GET /api/durably/jobs#x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "body without length": b"POST /api/durably/trigger HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n{}",
    "two lengths": b"POST /api/durably/trigger HTTP/1.1\r\nhost: x\r\n"
    b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "length and chunks": b"POST /api/durably/trigger HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", RAW)
def test_a_request_that_no_library_would_send_is_answered(alone: Api, kind: str) -> None:
    status, _, body = raw(alone.site, RAW[kind])
    assert status < 500, body
    assert b"Traceback" not in body
    alone.ask("GET", "/jobs")


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(alone: Api) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", alone.site.port)) as connection:
            connection.sendall(b"POST /api/durably/trigger HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    alone.greeted()


def test_many_clients_at_once_are_each_answered(alone: Api) -> None:
    answers: list[str] = []

    def trigger_some() -> None:
        with httpx.Client(base_url=alone.site.url, timeout=20) as client:
            own = Api(client, alone.base, alone.site)
            for _ in range(10):
                answers.append(own.greeted())

    threads = [threading.Thread(target=trigger_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 80
