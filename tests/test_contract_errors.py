"""API.md section 8: the tree of errors, their statuses, and what they carry."""

from __future__ import annotations

import asyncio
import copy
import logging
from typing import Any

import pydantic
import pytest
from contract_kit import body_job, contract, echo, executed, finished, opened, quick

import durably as package
from durably import (
    ConflictError,
    DuplicateStepError,
    DurablyError,
    LeaseLostError,
    NonRetryableError,
    NotFoundError,
    RetryAfter,
    Run,
    RunCancelledError,
    RunFailedError,
    RunTimeoutError,
    SchemaVersionError,
    StepContext,
    StepOutputError,
    StepTimeoutError,
    StorageError,
    StorageFullError,
    ValidationError,
)

TREE = {
    NotFoundError: DurablyError,
    ValidationError: DurablyError,
    ConflictError: DurablyError,
    RunFailedError: DurablyError,
    RunTimeoutError: DurablyError,
    RunCancelledError: DurablyError,
    NonRetryableError: DurablyError,
    RetryAfter: DurablyError,
    DuplicateStepError: DurablyError,
    StepOutputError: DurablyError,
    StepTimeoutError: DurablyError,
    StorageError: DurablyError,
    StorageFullError: StorageError,
    SchemaVersionError: StorageError,
}


@pytest.mark.parametrize(("kind", "parent"), TREE.items(), ids=lambda kind: kind.__name__)
def test_errors_form_a_tree_that_one_except_catches(kind: type[Exception], parent: type[Exception]) -> None:
    """'`DurablyError(message, status)` with ...'; storage errors are a branch of their own."""
    assert issubclass(kind, parent)
    assert issubclass(kind, DurablyError)
    assert issubclass(kind, Exception)
    assert getattr(package, kind.__name__) is kind
    assert kind.__name__ in package.__all__
    assert (kind.__doc__ or "").strip()


def test_a_lost_lease_passes_through_except_exception() -> None:
    """'`LeaseLostError`, which user code should not catch': `except Exception` does not."""
    assert issubclass(LeaseLostError, BaseException)
    assert not issubclass(LeaseLostError, Exception)


@pytest.mark.parametrize(
    ("kind", "status"), [(NotFoundError, 404), (ValidationError, 400), (ConflictError, 409)], ids=lambda v: str(v)
)
def test_an_error_has_a_message_and_a_status(kind: type[DurablyError], status: int) -> None:
    """'`DurablyError(message, status)` with `NotFoundError` 404, `ValidationError` 400, `ConflictError` 409'"""
    error = kind("what and where")
    assert str(error) == error.message == "what and where"
    assert error.status == status
    assert DurablyError("teapot", 418).status == 418
    assert isinstance(DurablyError("no status given").status, int)


def test_durablys_validation_error_is_not_pydantics() -> None:
    """'(not pydantic's; wraps its text)'"""
    assert not issubclass(ValidationError, pydantic.ValidationError)


@contract
async def test_a_validation_error_wraps_pydantics_text() -> None:
    """'wraps its text': where, and what is wrong; without the long way that pydantic prints it."""

    class Order(pydantic.BaseModel):
        items: list[int]

    async def buy(step: StepContext, payload: Order) -> None:
        return None

    durably, _ = await opened(":memory:", package.define_job(name="buy", input=Order, run=buy))
    with pytest.raises(ValidationError) as caught:
        await durably.jobs.buy.trigger({"items": [1, "x"]})
    assert "items.1" in str(caught.value)
    assert "valid integer" in str(caught.value)
    assert "buy" in str(caught.value)
    await durably.stop()


@contract
async def test_the_error_of_a_failed_or_cancelled_run_has_the_run() -> None:
    """'`RunFailedError` (with `.run` and the stored error text)'"""

    async def body(step: StepContext, payload: Any) -> None:
        if payload == "fails":
            raise ValueError("out of milk")
        await step.wait_for_signal("never")

    durably, _ = await opened(":memory:", body_job(body))
    failed = await finished(durably, await durably.jobs.body.trigger("fails"))
    with pytest.raises(RunFailedError, match="out of milk") as caught:
        await durably.wait_for_run(failed.id)
    assert isinstance(caught.value.run, Run)
    assert caught.value.run == failed
    waiting = await finished(durably, await durably.jobs.body.trigger("waits"))
    await durably.cancel(waiting.id)
    with pytest.raises(RunCancelledError) as cancelled:
        await durably.wait_for_run(waiting.id)
    assert (cancelled.value.run.id, cancelled.value.run.status) == (waiting.id, "cancelled")
    await durably.stop()


@contract
async def test_errors_name_the_step_that_they_are_about() -> None:
    """Attributes are plain values, so that a program needs not read sentences."""
    caught: list[Any] = []

    async def body(step: StepContext, payload: Any) -> None:
        for work in (
            lambda: step.run("twice", lambda: 1),
            lambda: step.run("twice", lambda: 1),
            lambda: step.run("odd", lambda: {"rows": [object()]}),
            lambda: step.with_options(timeout=0.01).run("slow", asyncio.sleep, 30),
        ):
            try:
                await work()
            except DurablyError as error:
                caught.append(error)

    async with quick(":memory:", body_job(body)) as durably:
        await durably.jobs.body.trigger_and_wait(1, timeout=30)
    assert [(type(error), error.step_name) for error in caught] == [
        (DuplicateStepError, "twice"), (StepOutputError, "odd"), (StepTimeoutError, "slow"),
    ]  # fmt: skip
    assert "rows" in caught[1].path
    assert caught[2].seconds == 0.01


def test_errors_that_a_job_raises_take_a_text() -> None:
    """'Raising `NonRetryableError` ends the attempts; `RetryAfter(seconds)` sets the next delay.'"""
    assert str(NonRetryableError("card stolen")) == "card stolen"
    assert RetryAfter(30).seconds == 30
    assert "30" in str(RetryAfter(30))


@contract
async def test_every_error_can_be_copied() -> None:
    """Tools copy exceptions, to raise them again elsewhere: class, text and attributes stay."""
    _, _, run = await executed(lambda step, payload: step.run("bad", lambda: 1 / 0))
    errors: list[Any] = [
        RunFailedError(run), RunCancelledError(run), NotFoundError("x"), ValidationError("x"), ConflictError("x"),
        RunTimeoutError(1), StepTimeoutError("s", 2), DuplicateStepError("s"), StepOutputError("s", "$", "why"),
        RetryAfter(3), NonRetryableError("x"), StorageFullError("x"), SchemaVersionError("x"), LeaseLostError("r"),
        DurablyError("teapot", 418),
    ]  # fmt: skip
    for error in errors:
        again = copy.copy(error)
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@contract
async def test_all_that_durably_logs_goes_to_its_one_logger(caplog: pytest.LogCaptureFixture) -> None:
    """'All internal logging goes to `logging.getLogger("durably")`.'"""

    def bad(event: Any) -> None:
        raise ValueError("a listener")

    async def fails(step: StepContext, payload: Any) -> None:
        raise ValueError("a job")

    caplog.set_level(logging.DEBUG)
    durably, _ = await opened(":memory:", body_job(fails), echo)
    durably.on("run:trigger", bad)
    await finished(durably, await durably.jobs.body.trigger(1))
    await finished(durably, await durably.jobs.echo.trigger(1))
    await durably.stop()
    ours = [record for record in caplog.records if record.name != "asyncio"]
    assert ours
    assert {record.name for record in ours} == {"durably"}
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno > logging.INFO]


def test_the_logger_is_left_to_the_program() -> None:
    """A library adds no handler that prints, and sets no level."""
    logger = logging.getLogger("durably")
    assert all(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.level == logging.NOTSET
    assert logger.propagate
