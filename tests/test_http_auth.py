"""Who may do what over HTTP: the hooks of `Auth`, on every endpoint, and that there is no way around them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from durably import Durably, Run, StepContext, create_durably, job
from durably.http import (
    Auth,
    DurablyHandler,
    HTTPError,
    Request,
    Response,
    RunFilter,
    TriggerRequest,
    create_durably_handler,
)
from durably.http.handler import ROUTES

BASE = "/api/durably"
ENDPOINTS = [(method, path) for path, methods in ROUTES.items() for method in methods]
METHODS = {
    ("POST", "/trigger"): "trigger",
    ("POST", "/trigger/subscribe"): "trigger_subscribe",
    ("POST", "/triggers"): "triggers",
    ("GET", "/run"): "run",
    ("DELETE", "/run"): "delete",
    ("GET", "/steps"): "steps",
    ("GET", "/logs"): "logs",
    ("POST", "/retry"): "retry",
    ("POST", "/retrigger"): "retrigger",
    ("POST", "/cancel"): "cancel",
    ("POST", "/signal"): "signal",
    ("GET", "/runs"): "runs",
    ("GET", "/jobs"): "jobs",
    ("GET", "/storage"): "storage",
    ("GET", "/export"): "export",
    ("GET", "/openapi.json"): "openapi",
    ("GET", "/subscribe"): "subscribe",
    ("GET", "/runs/subscribe"): "runs_subscribe",
}
OPERATIONS = {
    ("GET", "/run"): "read",
    ("DELETE", "/run"): "delete",
    ("GET", "/steps"): "steps",
    ("GET", "/logs"): "logs",
    ("POST", "/retry"): "retry",
    ("POST", "/retrigger"): "retrigger",
    ("POST", "/cancel"): "cancel",
    ("POST", "/signal"): "signal",
    ("GET", "/subscribe"): "subscribe",
}


@job
async def report(step: StepContext, month: str) -> str:
    await step.run("write", lambda: month)
    return month


def of_org(org: str, run: Run[Any], operation: str) -> bool:
    return run.labels.get("org") == org


def only_own(org: str, runs: RunFilter) -> RunFilter:
    return replace(runs, labels={**runs.labels, "org": org})


def as_own(org: str, trigger: TriggerRequest) -> TriggerRequest:
    return replace(trigger, labels={**trigger.labels, "org": org})


def by_token(request: Request) -> str:
    token = request.headers.get("authorization", "")
    if token not in ("acme", "umbrella"):
        raise HTTPError(401, headers={"www-authenticate": "Bearer"})
    return token


TENANTS = Auth(
    authenticate=by_token, on_trigger=as_own, on_run_access=of_org, scope_runs=only_own, on_export=lambda _: False
)


@asynccontextmanager
async def site(auth: Auth | None, **options: Any) -> AsyncIterator[tuple[Durably, DurablyHandler]]:
    durably = create_durably(":memory:", jobs=[report], polling_interval=0.02)
    await durably.migrate()
    try:
        yield durably, create_durably_handler(durably, auth, **options)
    finally:
        await durably.stop()


def play(auth: Auth | None, scene: Callable[[Durably, DurablyHandler], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with site(auth, **options) as (durably, handler):
            await scene(durably, handler)

    asyncio.run(run())


async def ask(
    handler: DurablyHandler, method: str, path: str, body: Any = None, *, who: str = "acme", **headers: str
) -> Response:
    content = b"" if body is None else json.dumps(body).encode()
    return await handler.handle(Request(method, BASE + path, {"Authorization": who, **headers}, content), BASE)


def told(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


async def ended(durably: Durably, **labels: str) -> Run[Any]:
    """A run that has completed."""
    run = await durably.jobs.report.trigger("may", labels=labels)
    await durably.process_until_idle()
    return run


def a_body_for(path: str) -> Any:
    trigger = {"jobName": "report", "input": "may"}
    return {"/trigger": trigger, "/trigger/subscribe": trigger, "/triggers": [trigger], "/signal": {"name": "go"}}.get(
        path
    )


# --- authenticate -----------------------------------------------------------------------------------


def test_every_endpoint_is_named_here() -> None:
    assert set(METHODS) == set(ENDPOINTS)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("way", ["handle", "method"])
def test_a_stranger_is_refused_on_every_endpoint_before_anything_else(method: str, path: str, way: str) -> None:
    """Not even a body that is too large, a run that is not there, nor a query that cannot be read is told to a
    stranger."""

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        request = Request(method, f"{BASE}{path}?runId=nobody&q=%ff", {"Authorization": "eve"}, b"x" * 100)
        if way == "handle":
            response = await handler.handle(request, BASE)
        else:
            response = await getattr(handler, METHODS[method, path])(request)
        assert (response.status, told(response)) == (401, {"error": "Unauthorized"})
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["durably-error"] == "HTTPError"
        assert await durably.get_runs() == []
        assert not asked

    asked: list[Request] = []
    play(TENANTS, scene, max_body_size=10, on_request=asked.append)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/nowhere", {}),
        ("GET", "/runs/", {}),
        ("GET", "//runs", {}),
        ("GET", "/x/../runs", {}),
        ("GET", "/%72uns", {}),
        ("GET", "/runs%2Fsubscribe", {}),
        ("GET", "/runs;jsessionid=1", {}),
        ("PUT", "/runs", {}),
        ("OPTIONS", "/runs", {}),
        ("HEAD", "/runs", {}),
        ("get", "/runs", {}),
        ("POST", "/runs", {"X-HTTP-Method-Override": "GET"}),
        ("GET", "/runs?_method=POST", {"X-Original-URL": "/public", "X-Rewrite-URL": "/public"}),
        ("GET", "/runs#/public", {}),
    ],
)
def test_no_spelling_of_a_request_passes_the_door(method: str, path: str, headers: dict[str, str]) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        response = await ask(handler, method, path, who="eve", **headers)
        assert response.status == 401

    play(TENANTS, scene)


def test_a_method_is_not_overridden_by_a_header() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await ended(durably, org="acme")
        override = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
        response = await ask(handler, "GET", f"/run?runId={run.id}&_method=DELETE", **override)
        assert told(response)["id"] == run.id
        assert await durably.get_run(run.id) is not None

    play(TENANTS, scene)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_authenticate_gives_is_what_the_other_hooks_get(is_async: bool) -> None:
    context = object()
    heard: list[Any] = []

    def hook(*arguments: Any) -> Any:
        heard.append(arguments[0])
        return arguments[1] if isinstance(arguments[-1], RunFilter) else None

    async def async_hook(*arguments: Any) -> Any:
        return hook(*arguments)

    async def authenticate(_: Request) -> object:
        return context

    each: Any = async_hook if is_async else hook
    auth = Auth(
        authenticate=authenticate if is_async else lambda _: context,
        on_trigger=each,
        on_run_access=each,
        scope_runs=each,
        on_export=each,
    )

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run_id = told(await ask(handler, "POST", "/trigger", {"jobName": "report", "input": "may"}))["runId"]
        for path in (f"/run?runId={run_id}", "/runs", "/export"):
            assert (await ask(handler, "GET", path)).status == 200
        stream = await ask(handler, "GET", "/runs/subscribe")
        await stream.body.aclose()
        assert heard == [context] * 5

    play(auth, scene)


@pytest.mark.parametrize(("answer", "status"), [(False, 401), (None, 200), (0, 200)])
def test_authenticate_refuses_with_false_and_nothing_else_that_it_may_give(answer: Any, status: int) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        assert (await ask(handler, "GET", "/runs")).status == status

    play(Auth(authenticate=lambda _: answer), scene)


@pytest.mark.parametrize("name", ["authenticate", "on_trigger", "on_run_access", "scope_runs", "on_export"])
def test_a_hook_that_breaks_down_lets_nobody_through_and_shows_nothing(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("what nobody is to know")

    requests = {
        "authenticate": ("GET", "/jobs"),
        "on_trigger": ("POST", "/trigger"),
        "on_run_access": ("GET", "/run"),
        "scope_runs": ("GET", "/runs"),
        "on_export": ("GET", "/export"),
    }

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await ended(durably)
        method, path = requests[name]
        response = await ask(handler, method, f"{path}?runId={run.id}", a_body_for(path))
        assert response.status == 500
        assert "nobody" not in told(response)["error"]
        assert "what nobody is to know" in caplog.text
        assert len(await durably.get_runs()) == 1

    play(Auth(**{name: broken}), scene)


def test_an_error_of_a_hook_has_an_error_s_status() -> None:
    with pytest.raises(ValueError, match="from 400 to 599, not 200"):
        HTTPError(200)
    assert HTTPError(402).message == "Payment Required"
    assert HTTPError(499).message == "refused with status 499"


# --- one run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_on_run_access_is_asked_for_each_operation_with_the_run(method: str, path: str) -> None:
    heard: list[tuple[str, str]] = []

    def on_run_access(org: str, run: Run[Any], operation: str) -> None:
        heard.append((run.id, operation))
        raise HTTPError(404, "no such thing")

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await ended(durably)
        response = await ask(handler, method, f"{path}?runId={run.id}", a_body_for(path))
        assert (response.status, told(response)) == (404, {"error": "no such thing"})
        assert heard == [(run.id, OPERATIONS[method, path])]
        assert await durably.get_runs() == [run_now := await durably.get_run(run.id)]
        assert run_now is not None
        assert run_now.status == "completed"

    play(replace(TENANTS, on_run_access=on_run_access), scene)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_run_of_somebody_else_is_out_of_reach(method: str, path: str) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await ended(durably, org="umbrella")
        # What the client writes beside the id changes nothing.
        query = f"runId={run.id}&label.org=acme&org=acme"
        assert (await ask(handler, method, f"{path}?{query}", a_body_for(path))).status == 403
        twice = f"runId={run.id}&runId={(await ended(durably, org='acme')).id}"
        assert (await ask(handler, method, f"{path}?{twice}", a_body_for(path))).status == 400
        assert len(await durably.get_runs()) == 2

    play(TENANTS, scene)


# --- lists and streams ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?label.org=umbrella",
        "?label.org=acme&label.org=umbrella",
        "?label.org=",
        "?label.=umbrella",
        "?label.org%00=umbrella",
        "?label%2Eorg=umbrella",
        "?LABEL.org=umbrella",
        "?status=completed&jobName=report&limit=1000",
        "?offset=0&labels=%7B%22org%22:%22umbrella%22%7D",
    ],
)
def test_a_client_cannot_widen_what_it_is_shown(query: str) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        own = await ended(durably, org="acme")
        await ended(durably, org="umbrella")
        await ended(durably)
        response = await ask(handler, "GET", f"/runs{query}")
        if response.status == 200:
            assert {run["id"] for run in told(response)} <= {own.id}
        else:
            assert response.status == 400

        stream = await ask(handler, "GET", f"/runs/subscribe{query}", **{"Last-Event-ID": "1"})
        if isinstance(stream.body, bytes):
            assert stream.status == 400
            return
        other, mine = await ended(durably, org="umbrella"), await ended(durably, org="acme")
        handler.end_streams()
        heard = b"".join([chunk async for chunk in stream.body])
        assert other.id.encode() not in heard
        if query == "":
            assert own.id.encode() in heard
            assert mine.id.encode() in heard

    play(TENANTS, scene)


def test_a_filter_may_be_changed_in_place_or_made_anew() -> None:
    def changed(org: str, runs: RunFilter) -> RunFilter:
        runs.labels["org"] = org
        runs.job_name = "report"
        return runs

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        own = await ended(durably, org="acme")
        await ended(durably, org="umbrella")
        assert [run["id"] for run in told(await ask(handler, "GET", "/runs"))] == [own.id]
        stream = await ask(handler, "GET", "/runs/subscribe", **{"Last-Event-ID": "1"})
        assert not isinstance(stream.body, bytes)
        assert b"listening" in await anext(stream.body)
        assert own.id.encode() in await anext(stream.body)
        await stream.body.aclose()

    play(Auth(authenticate=by_token, scope_runs=changed), scene)


def test_streams_have_a_scope_of_their_own_if_they_need_one() -> None:
    def completed_ones(_: str, runs: RunFilter) -> RunFilter:
        return replace(runs, status=["completed"])

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        # Events cannot be told by status, and what was meant to be kept back must not get through.
        assert (await ask(handler, "GET", "/runs/subscribe")).status == 500
        assert (await ask(handler, "GET", "/runs")).status == 200

    play(Auth(scope_runs=completed_ones), scene)

    async def other_scene(durably: Durably, handler: DurablyHandler) -> None:
        stream = await ask(handler, "GET", "/runs/subscribe")
        assert stream.status == 200
        await stream.body.aclose()

    play(Auth(scope_runs=completed_ones, scope_runs_subscribe=lambda _, runs: runs), other_scene)


@pytest.mark.parametrize("answer", [None, {"labels": {}}, True])
def test_a_scope_that_gives_no_filter_shows_nothing(answer: Any) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        await ended(durably)
        response = await ask(handler, "GET", "/runs")
        assert response.status == 500
        assert "RunFilter" in told(response)["error"]

    play(Auth(scope_runs=lambda _, __: answer), scene)


# --- triggering -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/trigger", "/trigger/subscribe", "/triggers"])
def test_on_trigger_may_refuse_and_nothing_is_stored(path: str) -> None:
    heard: list[TriggerRequest] = []

    def on_trigger(org: str, trigger: TriggerRequest) -> bool:
        heard.append(trigger)
        return False

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        assert (await ask(handler, "POST", path, a_body_for(path))).status == 403
        assert heard == [TriggerRequest("report", "may")]
        assert await durably.get_runs() == []

    play(replace(TENANTS, on_trigger=on_trigger), scene)


@pytest.mark.parametrize("path", ["/trigger", "/trigger/subscribe", "/triggers"])
def test_on_trigger_decides_the_labels_whatever_the_client_writes(path: str) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        body = {"jobName": "report", "input": "may", "labels": {"org": "umbrella", "kind": "x"}}
        response = await ask(handler, "POST", path, [body] if path == "/triggers" else body)
        assert response.status == 200
        [run] = await durably.get_runs()
        assert run.labels == {"org": "acme", "kind": "x"}
        if not isinstance(response.body, bytes):
            await response.body.aclose()

    play(TENANTS, scene)


def test_a_key_of_somebody_else_s_does_not_show_their_run() -> None:
    """Idempotency and concurrency keys are the job's, not the client's: a known key finds a run that is not theirs."""

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        theirs = await durably.jobs.report.trigger("secret", idempotency_key="k", labels={"org": "umbrella"})
        body = {"jobName": "report", "input": "may", "idempotencyKey": "k"}
        [answer] = told(await ask(handler, "POST", "/triggers", [body]))
        assert answer == {"runId": theirs.id, "disposition": "idempotent"}
        assert (await ask(handler, "POST", "/trigger/subscribe", body)).status == 403
        assert (await ask(handler, "GET", f"/run?runId={theirs.id}")).status == 403

    play(TENANTS, scene)


# --- the rest ---------------------------------------------------------------------------------------


def test_the_whole_database_is_given_to_nobody_who_is_not_allowed_to_have_it() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        await ended(durably)
        response = await ask(handler, "GET", "/export")
        assert response.status == 403

    play(TENANTS, scene)  # its on_export says no
    play(replace(TENANTS, on_export=None), scene)

    async def open_scene(durably: Durably, handler: DurablyHandler) -> None:
        await ended(durably)
        response = await ask(handler, "GET", "/export")
        assert response.status == 200
        assert isinstance(response.body, bytes)
        assert response.body.startswith(b"SQLite format 3")

    play(None, open_scene)
    play(replace(TENANTS, on_export=lambda org: org == "acme"), open_scene)


@pytest.mark.parametrize("takes_request", [True, False])
def test_on_request_is_called_once_the_client_is_in(takes_request: bool) -> None:
    calls: list[Any] = []

    async def with_it(request: Request) -> None:
        calls.append(request.path)

    def without() -> None:
        calls.append(f"{BASE}/jobs")

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        assert (await ask(handler, "GET", "/jobs", who="eve")).status == 401
        assert (await ask(handler, "GET", "/jobs")).status == 200
        assert calls == [f"{BASE}/jobs"]

    play(TENANTS, scene, on_request=with_it if takes_request else without)


def test_on_request_can_start_durably() -> None:
    async def run() -> None:
        durably = create_durably(":memory:", jobs=[report])
        handler = create_durably_handler(durably, on_request=durably.init)
        answers = [await ask(handler, "GET", "/runs") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        await durably.stop()

    asyncio.run(run())
