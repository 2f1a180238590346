"""The HTTP API behind real sockets: `in_thread` runs an application under uvicorn in this process, `served` is
`python -m durably serve` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from durably.http import DurablyHandler

Told = tuple[int, dict[str, Any]]
"""An event's id, and the event."""

START_SECONDS = 20.0
LIMIT_SECONDS = 60.0

T = TypeVar("T")


class Site:
    """A server in a thread of this process, whose event loop tests can look into by `do`."""

    def __init__(self, app: Any, handler: DurablyHandler | None, options: dict[str, Any]) -> None:
        usual = {"port": 0, "log_level": "critical", "lifespan": "on", "timeout_graceful_shutdown": 2}
        self.server = uvicorn.Server(uvicorn.Config(app, **(usual | options)))
        self.handler = handler
        self.failed: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="uvicorn")

    @property
    def port(self) -> int:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_SECONDS / 0.005)):
            if self.server.started or not self._thread.is_alive():
                return
            waited.wait(0.005)
        raise AssertionError("uvicorn does not start")

    def do(self, work: Callable[[], Awaitable[T] | T], seconds: float = 10) -> T:
        """What `work()`, plain or async, gives in the server's event loop."""

        async def call() -> T:
            outcome = work()
            return await outcome if isinstance(outcome, Awaitable) else outcome

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(seconds)

    def stop(self) -> None:
        """Stop it as Ctrl-C does, once its streams have been ended; harmless when it has stopped."""
        if self._thread.is_alive():
            if self.handler is not None:
                self._loop.call_soon_threadsafe(self.handler.end_streams)
            self.server.should_exit = True
        self._thread.join(LIMIT_SECONDS)
        assert not self._thread.is_alive(), "uvicorn does not stop"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self.server.serve())
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.failed = error


@contextmanager
def in_thread(app: Any, handler: DurablyHandler | None = None, **options: Any) -> Iterator[Site]:
    """A server of `app` that has started, or has failed to. `options` are uvicorn's."""
    site = Site(app, handler, options)
    site.start()
    try:
        yield site
    finally:
        site.stop()


class Served:
    """A process of `python -m durably serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.api = f"{url}/api/durably"


@contextmanager
def served(*arguments: str | Path, **options: Any) -> Iterator[Served]:
    """`python -m durably serve ARGUMENTS --port 0`, once it says where; it is killed with the block."""
    with program("serve", *arguments, "--port", "0", **options) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", first)
        if found is None:
            process.kill()
            raise AssertionError(f"serve said {first!r} and {process.communicate()!r}")
        url = found[0]
        with httpx.Client() as client:  # its socket is there before the server is: what is asked now waits for it
            assert client.get(f"{url}/api/durably/jobs", timeout=START_SECONDS).status_code == 200
        yield Served(process, url)


@contextmanager
def program(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`python -m durably ARGUMENTS`; one that hangs is killed."""
    command = [sys.executable, "-m", "durably", *map(str, arguments)]
    usual = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ}}
    with subprocess.Popen(command, text=True, **(usual | options)) as process:
        watchdog = threading.Timer(LIMIT_SECONDS, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()
            if process.stdout is not None:
                process.stdout.close()
            if process.stderr is not None:
                process.stderr.close()


def events(response: httpx.Response) -> Iterator[Told]:
    """The events of a stream, as they come."""
    event_id = 0
    for line in response.iter_lines():
        if line.startswith("id: "):
            event_id = int(line[4:])
        elif line.startswith("data: "):
            yield event_id, json.loads(line[6:])
