"""The HTTP API as far as it goes: the wire's names, its errors, its streams."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durably import Durably, RunStatus, StepContext, create_durably, job, with_log_persistence
from durably.events import LogWritten
from durably.http import DurablyHandler, Request, create_durably_handler


class SyncInput(BaseModel):
    org_id: str


@job
async def sync_users(step: StepContext, payload: SyncInput) -> dict[str, Any]:
    await step.run("fetch-users", lambda: {"some_key": 1})
    step.progress(1, 2, "half")
    return {"synced_count": 1}


Scene = Callable[[Durably, DurablyHandler], Awaitable[None]]


def play(scene: Scene) -> None:
    async def run() -> None:
        durably = create_durably(":memory:", jobs=[sync_users], polling_interval=0.02)
        await durably.migrate()
        await scene(durably, create_durably_handler(durably))
        await durably.stop()

    asyncio.run(run())


async def ask(handler: DurablyHandler, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    content = b"" if body is None else json.dumps(body).encode()
    response = await handler.handle(Request(method, url, {}, content))
    assert isinstance(response.body, bytes)
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(response.body)


def test_a_run_from_trigger_to_steps() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        body = {"jobName": "sync-users", "input": {"org_id": "o1"}, "labels": {"src": "csv"}, "idempotencyKey": "k"}
        status, answer = await ask(handler, "POST", "/trigger", body)
        assert (status, answer["disposition"]) == (200, "created")
        run_id = answer["runId"]
        assert await ask(handler, "POST", "/trigger", body) == (200, {"runId": run_id, "disposition": "idempotent"})
        await durably.process_one()

        status, run = await ask(handler, "GET", f"/run?runId={run_id}")
        assert status == 200
        assert run["jobName"] == "sync-users"
        assert run["payload"] == {"org_id": "o1"}
        assert run["output"] == {"synced_count": 1}
        assert run["progress"] == {"current": 1, "total": 2, "message": "half"}
        assert (run["status"], run["isTerminal"], run["isActive"]) == ("completed", True, False)
        assert run["createdAt"].endswith("Z")
        hidden = {"idempotencyKey", "concurrencyKey", "workerId", "generation", "heartbeatAt", "updatedAt"}
        assert not hidden & run.keys()

        assert (await ask(handler, "GET", "/runs?jobName=sync-users&status=completed&label.src=csv"))[1] == [run]
        assert (await ask(handler, "GET", "/runs?label.src=other"))[1] == []
        status, [step] = await ask(handler, "GET", f"/steps?runId={run_id}")
        assert (step["name"], step["index"], step["output"]) == ("fetch-users", 0, {"some_key": 1})
        assert "startedAt" in step

    play(scene)


GOOD = {"jobName": "sync-users", "input": {"org_id": "o1"}}


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "name", "text"),
    [
        ("POST", "/trigger", {"jobName": "nope"}, 404, "NotFoundError", "registered: sync-users"),
        ("POST", "/trigger", {"jobName": "sync-users", "input": {}}, 400, "ValidationError", "org_id"),
        ("POST", "/trigger", {"input": {}}, 400, "ValidationError", "jobName"),
        ("POST", "/trigger", [], 400, "ValidationError", "object"),
        ("POST", "/trigger", {"jobName": "sync-users", "x": 1}, 400, "ValidationError", "unknown fields: x"),
        ("POST", "/trigger", {"jobName": "sync-users", "coalesce": "skip"}, 400, "ValidationError", "concurrency_key"),
        ("POST", "/trigger/subscribe", {"jobName": "nope"}, 404, "NotFoundError", "registered: sync-users"),
        ("POST", "/triggers", {"jobName": "sync-users"}, 400, "ValidationError", "list"),
        ("POST", "/triggers", [GOOD, {"jobName": "nope"}], 404, "NotFoundError", "item 1: no job named 'nope'"),
        ("POST", "/triggers", [GOOD, {"jobName": "sync-users"}], 400, "ValidationError", "item 1: invalid payload"),
        ("POST", "/triggers", [GOOD] * 10_001, 400, "ValidationError", "at most 10000"),
        ("POST", "/trigger", {**GOOD, "labels": {str(n): "x" for n in range(33)}}, 400, "ValidationError", "32 labels"),
        ("GET", "/logs?runId=nope", None, 404, "NotFoundError", "nope"),
        ("POST", "/retrigger?runId=nope", None, 404, "NotFoundError", "nope"),
        ("DELETE", "/run?runId=nope", None, 404, "NotFoundError", "nope"),
        ("GET", "/run?runId=nope", None, 404, "NotFoundError", "nope"),
        ("GET", "/run", None, 400, "ValidationError", "runId"),
        ("GET", "/runs?status=odd", None, 400, "ValidationError", "odd"),
        ("GET", "/runs?limit=-1", None, 400, "ValidationError", "limit"),
        ("POST", "/cancel?runId=nope", None, 404, "NotFoundError", "nope"),
        ("GET", "/nowhere", None, 404, "NotFoundError", "/nowhere"),
        ("GET", "/subscribe?runId=nope", None, 404, "NotFoundError", "nope"),
    ],
)
def test_what_goes_wrong_is_answered_in_json(
    method: str, url: str, body: Any, status: int, name: str, text: str
) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        response = await handler.handle(Request(method, url, {}, content))
        assert isinstance(response.body, bytes)
        assert (response.status, response.headers["durably-error"]) == (status, name)
        answer = json.loads(response.body)
        assert list(answer) == ["error"]
        assert text in answer["error"]
        assert await durably.get_runs() == []

    play(scene)


@pytest.mark.parametrize("item", [7, {"input": {}}, {"jobName": "nope"}, {"jobName": "sync-users", "input": {}}])
def test_a_batch_of_one_is_refused_as_it_would_be_alone(item: Any) -> None:
    """The page's client triggers each run so, and whoever reads the sentence knows of no items."""

    async def scene(_: Durably, handler: DurablyHandler) -> None:
        assert await ask(handler, "POST", "/triggers", [item]) == await ask(handler, "POST", "/trigger", item)

    play(scene)


def test_a_batch_stores_runs_of_several_jobs_and_says_what_became_of_each() -> None:
    """`coalesce` and the keys are each item's own."""

    @job
    async def count(step: StepContext, payload: int) -> int:
        return payload

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.register(count)
        keyed = {**GOOD, "concurrencyKey": "org-1", "coalesce": "skip"}
        status, answers = await ask(handler, "POST", "/triggers", [keyed, {"jobName": "count", "input": 3}, keyed])
        assert status == 200
        assert [answer["disposition"] for answer in answers] == ["created", "created", "coalesced"]
        assert answers[0]["runId"] == answers[2]["runId"] == answers[2]["run"]["id"]
        assert [answer["run"]["jobName"] for answer in answers] == ["sync-users", "count", "sync-users"]
        assert answers[1]["run"] == (await ask(handler, "GET", f"/run?runId={answers[1]['runId']}"))[1]
        assert (await ask(handler, "POST", "/trigger", keyed))[1] == {
            "runId": answers[0]["runId"],
            "disposition": "coalesced",
        }
        assert await ask(handler, "POST", "/triggers", []) == (200, [])

    play(scene)


def test_the_logs_of_a_run_are_listed_with_what_they_say() -> None:
    @job
    async def talk(step: StepContext, payload: None) -> None:
        await step.run("whisper", lambda: step.log.warning("nearly full", {"some_key": 93}))
        step.log.info("done")

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.use(with_log_persistence())
        durably.register(talk)
        run = await durably.jobs.talk.trigger(None)
        await durably.process_one()
        status, [first, second] = await ask(handler, "GET", f"/logs?runId={run.id}")
        assert status == 200
        assert first.pop("createdAt").endswith("Z")
        warned = {"stepName": "whisper", "level": "warning", "message": "nearly full", "data": {"some_key": 93}}
        assert first == {"id": 1, **warned}
        assert (second["stepName"], second["level"], second["data"]) == (None, "info", None)
        assert second["id"] == 2

    play(scene)


def test_an_ended_run_is_triggered_again_and_deleted_and_an_active_one_is_not() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await durably.jobs.sync_users.trigger({"org_id": "o1"}, labels={"src": "csv"})
        for method, path in [("POST", "/retrigger"), ("DELETE", "/run")]:
            status, answer = await ask(handler, method, f"{path}?runId={run.id}")
            assert (status, "pending" in answer["error"]) == (409, True)
        await durably.process_one()
        status, answer = await ask(handler, "POST", f"/retrigger?runId={run.id}")
        assert (status, answer["success"]) == (200, True)
        fresh = await durably.get_run(answer["runId"])
        assert fresh is not None
        assert (fresh.id != run.id, fresh.labels, fresh.status) == (True, {"src": "csv"}, "pending")
        assert await ask(handler, "DELETE", f"/run?runId={run.id}") == (200, {"success": True})
        assert [left.id for left in await durably.get_runs()] == [fresh.id]

    play(scene)


def test_the_jobs_are_listed_with_what_a_form_needs_to_know() -> None:
    """A type without a JSON Schema must not hide the other jobs."""

    @job
    async def peculiar(step: StepContext, payload: type[int]) -> None:
        pass

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.register(peculiar)
        status, [first, second] = await ask(handler, "GET", "/jobs")
        assert (status, first["name"]) == (200, "sync-users")
        assert first["schema"]["properties"]["org_id"] == {"title": "Org Id", "type": "string"}
        assert first["schema"]["required"] == ["org_id"]
        assert second == {"name": "peculiar", "schema": {}}

    play(scene)


def test_the_export_is_a_database_with_the_runs_in_it() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await durably.jobs.sync_users.trigger({"org_id": "o1"})
        response = await handler.handle(Request("GET", "/export"))
        assert (response.status, response.headers["content-type"]) == (200, "application/vnd.sqlite3")
        assert isinstance(response.body, bytes)
        copy = sqlite3.connect(":memory:")
        copy.deserialize(response.body)
        assert copy.execute("SELECT id FROM durably_runs").fetchall() == [(run.id,)]
        copy.close()

    play(scene)


def test_a_wrong_method_names_the_right_ones() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        response = await handler.handle(Request("GET", "/trigger"))
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        response = await handler.handle(Request("POST", "/run"))
        assert (response.status, response.headers["Allow"]) == (405, "GET, DELETE")

    play(scene)


def test_a_failure_inside_shows_nothing_of_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        async def broken(run_id: str) -> None:
            raise RuntimeError("secret detail in /some/file.py")

        monkeypatch.setattr(durably, "get_run", broken)
        status, answer = await ask(handler, "GET", "/run?runId=x")
        assert status == 500
        assert "secret" not in answer["error"]

    play(scene)


def test_numbers_that_json_has_not_go_over_the_wire_as_text() -> None:
    """One of them must not end a stream that everybody listens to."""

    @job
    async def wild(step: StepContext, payload: Any) -> float:
        step.progress(float("nan"))
        return await step.run("infinite", lambda: float("inf"))

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.register(wild)
        every = await handler.handle(Request("GET", "/runs/subscribe"))
        await durably.jobs.wild.trigger({"n": float("nan")})
        await durably.process_one()
        events = await frames(every.body, "run:complete")
        assert [event["output"] for event in events if event["type"] == "step:complete"] == ["Infinity"]
        status, [run] = await ask(handler, "GET", "/runs")
        assert (status, run["payload"], run["progress"]["current"]) == (200, {"n": "NaN"}, "NaN")

    play(scene)


def test_the_path_of_the_database_is_not_told(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "no" / "such" / "folder" / "app.sqlite3"
        handler = create_durably_handler(create_durably(path, jobs=[sync_users]))
        status, answer = await ask(handler, "GET", "/runs")
        assert status == 503
        assert "app.sqlite3" in answer["error"]
        assert str(tmp_path) not in answer["error"]
        assert (await ask(handler, "GET", "http://[/runs"))[0] == 400

    asyncio.run(scene())


def test_a_run_that_is_triggered_and_followed_is_heard_from_its_very_beginning() -> None:
    """Between a trigger and a subscription of its own a quick run could be over, and what it logged unheard."""

    @job
    async def brief(step: StepContext, payload: None) -> str:
        step.log.info("begun")
        step.progress(1, 1)
        return "done"

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.register(brief)
        body = json.dumps({"jobName": "brief", "idempotencyKey": "k"}).encode()
        response = await handler.handle(Request("POST", "/trigger/subscribe", {}, body))
        assert response.headers["content-type"] == "text/event-stream"
        await durably.process_one()  # nobody has read yet
        events = await frames(response.body, "run:complete")
        types = [event["type"] for event in events]
        assert types == ["run:trigger", "run:start", "log:write", "run:progress", "run:complete"]
        assert len({event["runId"] for event in events}) == 1

        again = await handler.handle(Request("POST", "/trigger/subscribe", {}, body))
        [present] = await frames(again.body, "run:complete")
        assert (present["type"], present["runId"]) == ("run:complete", events[0]["runId"])

    play(scene)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_run_that_ends_while_its_follower_looks_is_heard_to_its_end(is_told: bool) -> None:
    """Its row may say that it has ended before an event does, and has that event's number not yet."""

    @job
    async def briefer(step: StepContext, payload: None) -> None:
        step.log.info("all that it says")

    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        durably.register(briefer)
        look = durably._run_and_failed_step

        async def look_late(run_id: str) -> Any:
            if is_told:
                await durably.process_one()
                return await look(run_id)
            run, _ = await look(run_id)
            durably._services.bus.emit(LogWritten, run_id=run_id, level="info", message="all that it says")
            return replace(run, status=RunStatus.COMPLETED), None

        durably._run_and_failed_step = look_late  # type: ignore[method-assign]  # to act while it looks
        response = await handler.handle(Request("POST", "/trigger/subscribe", {}, b'{"jobName": "briefer"}'))
        types = [event["type"] for event in await frames(response.body, "run:complete")]
        assert types == ["run:trigger", *["run:start"][: int(is_told)], "log:write", "run:complete"]

    play(scene)


async def frames(body: Any, until: str) -> list[dict[str, Any]]:
    found = []
    async for chunk in body:
        for line in chunk.decode().splitlines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
        if found and found[-1]["type"] == until:
            break
    await body.aclose()
    return found


def test_a_run_is_followed_to_its_end() -> None:
    async def scene(durably: Durably, handler: DurablyHandler) -> None:
        run = await durably.jobs.sync_users.trigger({"org_id": "o1"})
        one = await handler.handle(Request("GET", f"/subscribe?runId={run.id}"))
        every = await handler.handle(Request("GET", "/runs/subscribe?jobName=sync-users"))
        other = await handler.handle(Request("GET", "/runs/subscribe?jobName=another"))
        assert isinstance(one.body, AsyncIterator)
        assert one.headers["content-type"] == "text/event-stream"
        following = asyncio.ensure_future(frames(one.body, "run:complete"))
        await asyncio.sleep(0)
        await durably.process_one()
        events = await asyncio.wait_for(following, 10)
        assert events[0]["type"] == "run:trigger"
        assert events[-1]["type"] == "run:complete"
        assert events[-1]["output"] == {"synced_count": 1}
        [completed] = [event for event in events if event["type"] == "step:complete"]
        assert (completed["stepName"], completed["stepIndex"], completed["runId"]) == ("fetch-users", 0, run.id)

        # Heard from the moment of the request on, though nobody read until now.
        types = [event["type"] for event in await frames(every.body, "run:complete")]
        assert types[0] == "run:start"
        assert isinstance(other.body, AsyncIterator)
        first = await anext(other.body)
        assert first.startswith(b":")
        await other.body.aclose()

    play(scene)


def test_the_state_of_a_run_is_told_by_an_instance_of_which_nothing_was_heard_yet(tmp_path: Path) -> None:
    """After a reload the state comes out of the store, and its event has no number."""

    async def run() -> None:
        file = str(tmp_path / "app.sqlite3")
        async with create_durably(file, jobs=[]) as durably:
            durably.register(sync_users)
            await durably.stop()
            run = await durably.jobs.sync_users.trigger(SyncInput(org_id="o1"))
        durably = create_durably(file)
        response = await create_durably_handler(durably).handle(Request("GET", f"/subscribe?runId={run.id}"))
        assert not isinstance(response.body, bytes)
        assert b"listening" in await anext(response.body)
        async with asyncio.timeout(5):
            assert b'"run:trigger"' in await anext(response.body)
        await response.body.aclose()
        await durably.stop()

    asyncio.run(run())
