"""`unbroken`: what must not be left half done is done to its end, and then its caller is cancelled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from contract_kit import contract

from durably.clock import unbroken


class Work:
    """Goes on in stages, each of which the test lets pass."""

    def __init__(self, stages: int = 2) -> None:
        self.gates = [asyncio.get_running_loop().create_future() for _ in range(stages)]
        self.tasks: set[Any] = set()
        self.passed = 0

    async def run(self) -> str:
        for gate in self.gates:
            await gate
            self.passed += 1
            await asyncio.sleep(0)
            self.tasks.add(asyncio.current_task())
        return "done"


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@contract
async def test_it_gives_what_the_work_gives_in_the_callers_own_task() -> None:
    work = Work()
    for gate in work.gates:
        gate.set_result(None)
    assert await unbroken(work.run()) == "done"
    assert work.tasks == {asyncio.current_task()}


@contract
async def test_it_raises_what_the_work_raises() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await unbroken(fail())


async def cancelled_while(run: Callable[[], Awaitable[Any]], between: Callable[[], Awaitable[None]]) -> None:
    """The caller is cancelled, again and again, before the work can end; it ends cancelled."""

    async def call() -> None:
        await unbroken(run())

    task = asyncio.ensure_future(call())
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    task.cancel()
    await between()
    await asyncio.wait({task})
    assert task.cancelled()


@contract
async def test_the_work_is_done_to_its_end_however_often_its_caller_is_cancelled() -> None:
    work = Work(3)

    async def let_pass() -> None:
        for number, gate in enumerate(work.gates, 1):
            gate.set_result(None)
            await turns()
            assert work.passed == number

    await cancelled_while(work.run, let_pass)
    assert work.passed == 3


@contract
async def test_a_cancellation_comes_before_what_the_work_raises() -> None:
    gate = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        await gate
        raise LookupError

    async def let_pass() -> None:
        gate.set_result(None)

    await cancelled_while(fail, let_pass)


@contract
async def test_a_cancellation_does_not_reach_what_the_work_waits_for() -> None:
    waited_for = asyncio.ensure_future(asyncio.sleep(0.01, "rested"))

    async def wait() -> None:
        await waited_for

    async def let_pass() -> None:
        assert await waited_for == "rested"

    await cancelled_while(wait, let_pass)


@contract
async def test_work_that_is_cancelled_itself_is_cancelled() -> None:
    waited_for = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(asyncio.wait_for(unbroken(waited_for), 5))
    await turns()
    waited_for.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@contract
async def test_within_a_time_limit_it_takes_its_time_and_is_late() -> None:
    done: list[str] = []

    async def rest() -> None:
        await asyncio.sleep(0.05)
        done.append("done")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unbroken(rest())
    assert done == ["done"]


@contract
async def test_a_caller_that_is_closed_closes_the_work() -> None:
    closed: list[bool] = []

    async def rest() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            closed.append(True)

    async def call() -> None:
        await unbroken(rest())

    caller = call()
    caller.send(None)
    caller.close()
    assert closed == [True]
