"""The HTTP API and its OpenAPI document say the same, whatever is asked.

`DURABLY_HTTP_CASES=10000` asks so many questions that schemathesis makes up; a usual test run asks fewer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import pytest
import requests
from contract_kit import contract, until
from http_server import Site, in_thread
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable

from durably import Durably, StepContext, create_durably, job, with_log_persistence
from durably.events import EVENT_CLASSES, TERMINAL_TYPES
from durably.http import DurablyHandler, Request, create_durably_handler
from durably.http.asgi import durably_app
from durably.http.handler import ROUTES
from durably.records import Progress

with warnings.catch_warnings():
    # What it imports says of itself that it is outdated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CASES = int(os.environ.get("DURABLY_HTTP_CASES", "1000"))
AT_ONCE = 20
"""Questions of each kind in a row, before it is the next kind's turn."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
BASE = "/api/durably"
ENDPOINTS = [(method, path) for path, methods in ROUTES.items() for method in methods]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@job
async def greet(step: StepContext, payload: Any) -> Any:
    step.log.info("begun", payload)
    step.progress(0.5, None, "half")
    return await step.run("greet", lambda: [payload])


@job
async def breaks(step: StepContext, payload: Any) -> None:
    def fail() -> None:
        raise ValueError(f"no luck with {payload}")

    await step.run("fail", fail)


@job
async def waits(step: StepContext, payload: Any) -> Any:
    return await step.wait_for_signal("go")


JOBS = [greet, breaks, waits]


def made() -> tuple[Durably, DurablyHandler]:
    durably = create_durably(":memory:", jobs=JOBS, polling_interval=0.02, max_concurrent_runs=4)
    durably.use(with_log_persistence())
    return durably, create_durably_handler(durably)


def document() -> dict[str, Any]:
    _, handler = made()
    response = asyncio.run(handler.handle(Request("GET", f"{BASE}/openapi.json"), BASE))
    assert isinstance(response.body, bytes)
    described = json.loads(response.body)
    assert isinstance(described, dict)
    return described


DOCUMENT = document()


def require_valid(schema: dict[str, Any], value: Any) -> None:
    """Raises what tells where `value` is not as the schema of the document says."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": DOCUMENT["components"], **schema}
    jsonschema_rs.validator_for(whole).validate(value)


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    broken = {**DOCUMENT, "info": {}}
    with pytest.raises(Exception, match="title"):
        schemathesis.openapi.from_dict(broken).validate()


def test_the_document_has_the_routes_that_there_are_and_no_others() -> None:
    described = {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert described == set(ENDPOINTS)
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert operation["summary"].endswith((".", ":")) or "`" in operation["summary"]


@contract
async def test_every_endpoint_answers_as_the_document_says() -> None:
    durably, handler = made()
    await durably.init()
    answered: Counter[tuple[str, str, int]] = Counter()

    async def ask(method: str, path: str, query: str = "", body: Any = None, *, content: bytes | None = None) -> Any:
        content = (b"" if body is None else json.dumps(body).encode()) if content is None else content
        response = await handler.handle(Request(method, BASE + path + query, {}, content), BASE)
        answered[method, path, response.status] += 1
        described = DOCUMENT["paths"][path][method.lower()]["responses"][str(response.status)]
        if response.status == 204:
            assert "content" not in described
            return None
        [media_type] = described["content"]
        assert response.headers["content-type"] == media_type
        if not isinstance(response.body, bytes):
            await anext(response.body)
            event = (await anext(response.body)).decode()
            await response.body.aclose()
            require_valid({"$ref": "#/components/schemas/Event"}, json.loads(event.partition("data: ")[2]))
            return event
        if media_type != "application/json":
            return response.body
        answer = json.loads(response.body)
        require_valid(described["content"][media_type]["schema"], answer)
        if response.status >= 400:
            assert set(described["headers"]) <= {name.lower() for name in response.headers}
        return answer

    async def triggered(name: str, *statuses: str) -> str:
        run_id = (await ask("POST", "/trigger", body={"jobName": name, "input": {"a": [1]}, "labels": {"l": "x"}}))[
            "runId"
        ]

        async def is_so() -> bool:
            run = await durably.get_run(run_id)
            return run is not None and run.status in statuses

        await until(is_so)
        return f"?runId={run_id}"

    done = await triggered("greet", "completed")
    failed = await triggered("breaks", "failed")
    waiting = await triggered("waits", "pending")
    for run_id in (done, failed, waiting, "?runId=nobody", ""):
        for path in ("/run", "/steps", "/logs", "/subscribe"):
            await ask("GET", path, run_id)
        for path in ("/retrigger", "/retry") if run_id != waiting else ("/retrigger",):
            await ask("POST", path, run_id)
        for body in ({"name": "other", "payload": None}, {}):
            await ask("POST", "/signal", run_id, body)
        await ask("POST", "/cancel", run_id)
    await durably.process_until_idle()
    for run_id in (done, await triggered("waits", "pending"), "?runId=nobody", ""):
        await ask("DELETE", "/run", run_id)
    one = {"jobName": "greet", "idempotencyKey": "k", "concurrencyKey": "c", "coalesce": "skip"}
    for path in ("/trigger", "/trigger/subscribe", "/triggers"):
        for item in (one, {**one, "idempotencyKey": None}, {"jobName": "nope"}, {"jobName": 1}):
            await ask("POST", path, body=[item] if path == "/triggers" else item)
        await ask("POST", path, content=b" " * 10_000_001)
    await ask("POST", "/signal", waiting, content=b" " * 10_000_001)
    for query in ("", "?status=failed&status=completed&label.l=x&limit=1&offset=0", "?status=odd"):
        await ask("GET", "/runs", query)
    await ask("GET", "/runs/subscribe", "?label.=x")
    handler.durably.jobs.waits  # noqa: B018 - it is there
    response = await handler.handle(Request("GET", f"{BASE}/subscribe{failed}", {"last-event-id": "9" * 17}), BASE)
    assert response.status == 204
    for path in ("/jobs", "/storage", "/export", "/openapi.json"):
        await ask("GET", path)
    assert {(method, path) for method, path, status in answered if status == 200} == set(ENDPOINTS) - {
        ("GET", "/runs/subscribe")  # see the test of events
    }
    described = {
        (method.upper(), path, int(status))
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
        if status.isdigit() and status not in ("200", "204", "500")
    }
    seen = {each for each in answered if each[2] != 200}
    assert seen == described, (described - seen, seen - described)
    await durably.stop()


STEP = {"step_name": "a", "step_index": 0}
FACTS: dict[str, dict[str, Any]] = {
    "run:trigger": {"payload": {"a": 1}},
    "run:coalesced": {"skipped_payload": None, "skipped_labels": {"a": "b"}},
    "run:start": {"payload": 1, "worker_id": "w", "generation": 3},
    "run:complete": {"output": [1.5], "duration": 0.1},
    "run:fail": {"error": "no", "failed_step_name": None},
    "run:cancel": {},
    "run:retry": {},
    "run:delete": {},
    "run:progress": {"progress": Progress(1, 2.5, None)},
    "run:stale": {},
    "step:start": STEP,
    "step:complete": {**STEP, "output": {1, 2}, "duration": 1},
    "step:fail": {**STEP, "error": "no"},
    "step:cancel": STEP,
    "step:retry": {**STEP, "error": "no", "attempt": 1, "next_attempt_at": NOON},
    "log:write": {"level": "info", "message": "hi", "data": NOON, "step_name": None},
    "worker:error": {"error": "no", "context": "claiming"},
}


@contract
async def test_every_kind_of_event_is_told_as_the_document_says() -> None:
    assert FACTS.keys() == {kind.type for kind in EVENT_CLASSES}
    durably, handler = made()
    await durably.migrate()
    response = await handler.handle(Request("GET", "/runs/subscribe"))
    assert not isinstance(response.body, bytes)
    await anext(response.body)
    for kind in EVENT_CLASSES:
        about = {} if kind.type == "worker:error" else {"run_id": "r", "job_name": "j", "labels": {"a": "b"}}
        durably._services.bus.emit(kind, **about, **FACTS[kind.type])
        event = json.loads((await anext(response.body)).decode().partition("data: ")[2])
        assert event["type"] == kind.type
        require_valid({"$ref": "#/components/schemas/Event"}, event)
        with pytest.raises(jsonschema_rs.ValidationError):
            require_valid({"$ref": "#/components/schemas/Event"}, {**event, "workerId": "w"})
    await response.body.aclose()
    assert FACTS.keys() >= TERMINAL_TYPES
    await durably.stop()


# --- schemathesis -----------------------------------------------------------------------------------

Message = MutableMapping[str, Any]


def brief(app: Any) -> Any:
    """The application, whose streams end after their first piece: a client that checks answers reads them whole."""

    async def shortened(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        told = asyncio.Event()

        async def received() -> Message:
            if not told.is_set():
                hearing = asyncio.ensure_future(receive())
                ending = asyncio.ensure_future(told.wait())
                await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                if hearing.done():
                    return hearing.result()
                hearing.cancel()
            return {"type": "http.disconnect"}

        async def sent(message: Message) -> None:
            if not told.is_set():
                await send(message)
            if message["type"] == "http.response.body" and message.get("more_body"):
                told.set()

        await app(scope, received, sent)
        if told.is_set():
            await send({"type": "http.response.body", "body": b""})

    return shortened


class Known:
    """Ids of runs that there are, so that not every question is about none."""

    def __init__(self, site: Site, durably: Durably) -> None:
        self._site = site
        self._durably = durably
        self._turn = itertools.count()
        self._left: dict[bool, list[str]] = {True: [], False: []}

    def some(self, *, is_active: bool) -> str:
        left = self._left[is_active]
        if not left:
            left = self._left[is_active] = self._site.do(lambda: self._triggered(is_active))
        turn = next(self._turn)
        return left.pop() if turn % 3 == 0 else left[turn % len(left)]

    async def _triggered(self, is_active: bool) -> list[str]:
        names = ["waits"] * 4 if is_active else ["greet", "breaks", "waits"]
        runs = [await self._durably.jobs[name].trigger({"a": 1}, labels={"l": "x"}) for name in names]
        if not is_active:
            await self._durably.cancel(runs[-1].id)
            for run in runs[:-1]:
                await wait_for_end(self._durably, run.id)
        return [run.id for run in runs]


async def wait_for_end(durably: Durably, run_id: str) -> None:
    async for event in durably.subscribe(run_id):
        if event.type in TERMINAL_TYPES:
            return


@contextmanager
def site() -> Iterator[tuple[Site, Durably]]:
    durably, handler = made()
    with in_thread(brief(durably_app(handler)), handler) as running:
        yield running, durably


@pytest.mark.slow
def test_no_question_that_schemathesis_makes_up_is_answered_otherwise_than_described(
    record_property: Callable[[str, object], None],
) -> None:
    """Sensible questions and such as break the schema, half of them about runs and jobs that there are."""
    answers: Counter[tuple[str, int]] = Counter()
    started = time.monotonic()
    with site() as (running, durably), requests.Session() as session:
        known = Known(running, durably)
        schema = schemathesis.openapi.from_dict(DOCUMENT)
        schema.config.update(base_url=f"{running.url}{BASE}")
        operations = [operation.ok() for operation in schema.get_all_operations()]
        assert len(operations) == len(ENDPOINTS)
        asked_of = [(operation, mode) for operation in operations for mode in schemathesis.GenerationMode]
        questions = [(operation, operation.as_strategy(generation_mode=mode)) for operation, mode in asked_of]
        for number in itertools.count():
            if sum(answers.values()) >= CASES:
                break
            for operation, cases in questions:
                ask_of(operation, cases, number, known, session, answers)
        assert requests.get(f"{running.url}{BASE}/jobs", timeout=20).ok
    seconds = time.monotonic() - started
    statuses = Counter(status for (_, status), count in answers.items() for _ in range(count))
    print(f"\n{sum(answers.values())} cases in {seconds:.0f} s, by status {dict(sorted(statuses.items()))}")
    record_property("cases", sum(answers.values()))
    assert {label for label, status in answers if status == 200} == {operation.label for operation in operations}
    assert statuses[200] > sum(statuses.values()) / 4
    assert threading.active_count() < 20


def ask_of(
    operation: Any,
    cases: Any,
    number: int,
    known: Known,
    session: requests.Session,
    answers: Counter[tuple[str, int]],
) -> None:
    turn = itertools.count()

    @seed(number)
    @settings(
        max_examples=AT_ONCE,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
        deadline=None,
        database=None,
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        if next(turn) % 2:
            if isinstance(case.query, dict) and "runId" in case.query:
                case.query["runId"] = known.some(is_active=operation.path in ("/signal", "/cancel"))
            for item in case.body if isinstance(case.body, list) else [case.body]:
                if isinstance(item, dict) and "jobName" in item:
                    item["jobName"] = "greet"
        response = case.call(session=session)
        answers[operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    with suppress(Unsatisfiable):  # there is no wrong way to ask for what takes nothing
        ask()
