"""200 clients follow events at once, some of which drop and come back: each is told every end that belongs to it.

`DURABLY_CROWD_SECONDS=60` lets it go on for a minute; a usual test run lasts a third of one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from asyncio import StreamReader
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

SECONDS = float(os.environ.get("DURABLY_CROWD_SECONDS", "15"))
GROUPS = 10
OF_GROUPS, OF_ALL, OF_ONE = 150, 10, 40
LATEST_SECONDS = 60.0
PROGRAM = Path(__file__).with_name("http_crowd_program.py")
TERMINAL = {"run:complete", "run:fail", "run:cancel"}
ENDS = {"completed": "run:complete", "failed": "run:fail", "cancelled": "run:cancel"}
BASE = "/api/durably"

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@contextmanager
def serving(file: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    with subprocess.Popen([sys.executable, str(PROGRAM), str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.send_signal(signal.SIGKILL)


class Crowd:
    """What all clients share."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.events = 0
        self.drops = 0
        self.listening = 0
        self.is_over = asyncio.Event()
        self.runs: list[str] = []
        self.followed: Counter[str] = Counter()
        self.told_to_stay_away = 0

    @asynccontextmanager
    async def answer(self, path: str, heard: bytes | None) -> AsyncIterator[tuple[int, StreamReader]]:
        """The status of an answer, and what follows its head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            last = b"last-event-id: %s\r\n" % heard if heard else b""
            writer.write(b"GET %s%s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (BASE.encode(), path.encode(), last))
            head = await reader.readuntil(b"\r\n\r\n")
            yield int(head.split()[1]), reader
        finally:
            writer.close()


class Client:
    """Follows a stream, comes back when it has dropped or was dropped, and notes the ends that it is told."""

    def __init__(self, crowd: Crowd, path: str, chance: random.Random, *, is_dropping: bool) -> None:
        self.crowd = crowd
        self.path = path
        self.chance = chance
        self.is_dropping = is_dropping
        self.heard: bytes | None = None
        self.ends: dict[str, str] = {}
        self.ids: list[int] = []
        self.is_first = True

    async def follow(self) -> None:
        """Until the crowd is over, or the end of the one run that is followed has been told."""
        while not self.crowd.is_over.is_set():
            patience = self.chance.uniform(0.1, 3) if self.is_dropping else None
            if not await self.follow_once(patience):
                return
            self.crowd.drops += 1
            await asyncio.sleep(self.chance.uniform(0, 1))

    async def follow_once(self, patience: float | None) -> bool:
        """Whether to come back."""
        loop = asyncio.get_running_loop()
        leave_at = None if patience is None else loop.time() + patience
        async with self.crowd.answer(self.path, self.heard) as (status, reader):
            if status == 204:
                assert self.ends, "only who has heard the end is told to stay away"
                self.crowd.told_to_stay_away += 1
                return False
            assert status == 200
            last = 0
            while line := await reader.readline():
                if line.startswith(b": listening") and self.is_first:
                    self.is_first = False
                    self.crowd.listening += 1
                elif line.startswith(b"id: "):
                    event_id = line[4:].strip()
                    assert int(event_id) > last
                    last = int(event_id)
                elif line.startswith(b"data: "):
                    self.crowd.events += 1
                    self.heard = event_id
                    event: dict[str, Any] = json.loads(line[6:])
                    if event["type"] in TERMINAL:
                        assert self.ends.setdefault(event["runId"], event["type"]) == event["type"]
                    if leave_at is not None and loop.time() > leave_at:
                        return True
            return not ("runId" in self.path and self.ends and self.chance.random() < 0.5)


async def follow_some(crowd: Crowd, chance: random.Random) -> None:
    """One run after the other, each to its end."""
    crowd.listening += 1
    while not crowd.is_over.is_set():
        if not crowd.runs:
            await asyncio.sleep(0.05)
            continue
        run_id = chance.choice(crowd.runs[-20:])
        client = Client(crowd, f"/subscribe?runId={run_id}", chance, is_dropping=chance.random() < 0.5)
        await client.follow()
        if client.ends:
            [(ended, kind)] = client.ends.items()
            assert ended == run_id
            crowd.followed[kind] += 1


async def work(crowd: Crowd, asking: httpx.AsyncClient) -> None:
    """Trigger runs for as long as it lasts, and cancel those that would not end."""
    numbers = iter(range(10**9))
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    waiting: list[tuple[float, str]] = []
    while loop.time() < end or waiting:
        if loop.time() < end:
            payloads = [next(numbers) for _ in range(4)]
            items = [{"jobName": "varied", "input": n, "labels": {"group": str(n // 5 % GROUPS)}} for n in payloads]
            for n, answer in zip(payloads, (await asking.post("/triggers", json=items)).json(), strict=True):
                crowd.runs.append(answer["runId"])
                if n % 5 == 4:
                    waiting.append((loop.time() + 1, answer["runId"]))
        while waiting and waiting[0][0] < loop.time():
            _, run_id = waiting.pop(0)
            (await asking.post(f"/cancel?runId={run_id}")).raise_for_status()
        await asyncio.sleep(0.3)


async def eventually(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(LATEST_SECONDS):
        while True:
            outcome = condition()
            if await outcome if isinstance(outcome, Awaitable) else outcome:
                return
            await asyncio.sleep(0.1)


async def play(port: int) -> tuple[Crowd, dict[str, int]]:
    crowd = Crowd(port)
    chance = random.Random(1)
    followers = [
        Client(crowd, f"/runs/subscribe?label.group={n % GROUPS}", random.Random(n), is_dropping=n % 3 == 0)
        for n in range(OF_GROUPS)
    ] + [Client(crowd, "/runs/subscribe", random.Random(1000 + n), is_dropping=n % 3 == 0) for n in range(OF_ALL)]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{BASE}", timeout=60) as asking:
        tasks = [asyncio.ensure_future(follower.follow()) for follower in followers]
        tasks += [asyncio.ensure_future(follow_some(crowd, random.Random(chance.random()))) for _ in range(OF_ONE)]
        try:
            await eventually(lambda: crowd.listening == OF_GROUPS + OF_ALL + OF_ONE)
            await work(crowd, asking)

            async def is_idle() -> bool:
                return (await asking.get("/runs?status=pending&status=running")).json() == []

            await eventually(is_idle)
            rows = (await asking.get("/runs")).json()
            expected = [
                {
                    row["id"]: ENDS[row["status"]]
                    for row in rows
                    if "group" not in follower.path or follower.path.endswith(f"={row['labels']['group']}")
                }
                for follower in followers
            ]

            def are_told() -> bool:
                return any(task.done() for task in tasks) or all(
                    follower.ends == wanted for follower, wanted in zip(followers, expected, strict=True)
                )

            await eventually(are_told)
        finally:
            crowd.is_over.set()
            for task in tasks:
                if not task.done():
                    task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, Exception)]
        assert not failed, failed[0]
        for follower, wanted in zip(followers, expected, strict=True):
            assert follower.ends == wanted
            assert len(wanted) > len(rows) / GROUPS / 2
    return crowd, Counter(row["status"] for row in rows)


def test_each_of_200_clients_is_told_every_end(tmp_path: Path) -> None:
    assert OF_GROUPS + OF_ALL + OF_ONE == 200
    with serving(tmp_path / "app.sqlite3") as (port, process):
        crowd, ended = asyncio.run(play(port))
        spent = Path(f"/proc/{process.pid}/stat")
        if spent.exists():  # on Linux
            user, system = spent.read_text().rpartition(") ")[2].split()[11:13]
            [memory] = [line for line in Path(f"/proc/{process.pid}/status").read_text().split("\n") if "VmHWM" in line]
            seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
            print(f"\n{crowd.events} events in {SECONDS:.0f} s ({crowd.events / SECONDS:.0f}/s), {crowd.drops} drops; ")
            print(f"runs {dict(ended)}; followed singly {dict(crowd.followed)}, 204: {crowd.told_to_stay_away}")
            print(f"the server: {seconds:.1f} s of processor time, {memory.split()[1]} kB at most")
    assert crowd.drops > 100
    assert set(crowd.followed) == TERMINAL
    assert crowd.told_to_stay_away
    assert sum(ended.values()) == len(crowd.runs) > 5 * SECONDS
