"""The bridge to SQLite (`web/sqlite.js`), wherever Python runs in a worker: the one that is there, or the wheel's own.

`web/worker.js` registers the bridge as the module `durably_bridge`. In any other worker (PyScript's, a notebook's, a
program's own) nobody has, and Python cannot import JavaScript without `eval`. It can start a worker, though: the
bridge is in the wheel as one file, it is started in a worker of its own from a Blob, and is called by message.

A page's Content-Security-Policy may forbid workers from `blob:`. Then the environment variable `DURABLY_BRIDGE_URL`
names a copy of that file on the page's own site.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from importlib.resources import files
from typing import Any

import js  # noqa: TID251 - this module's purpose
from pyodide.ffi import JsException, create_proxy, to_js  # noqa: TID251 - as above

from ..errors import StorageError

URL_VARIABLE = "DURABLY_BRIDGE_URL"
_BRIDGE, _SQLITE = "bridge.mjs", "wa-sqlite.wasm"
_COMES_UP_SECONDS = 30.0
"""A browser that is about to end the workers of the page before may never start a new one."""
_REFUSED = (
    "the browser does not start durably's bridge to SQLite from {url}; if this site's Content-Security-Policy forbids "
    f"workers from blob:, copy durably/databases/web/{_BRIDGE} out of the wheel to this site and set the environment "
    f"variable {URL_VARIABLE} to its address before the database is opened"
)

_starting: asyncio.Future[RemoteBridge] | None = None


async def bridge() -> Any:
    """The bridge: `openDatabase`, `startPulse`, `stopPulse`. Raises `StorageError` where there cannot be one."""
    if importlib.util.find_spec("durably_bridge") is not None:
        import durably_bridge  # type: ignore[import-not-found]  # made of JavaScript when the worker starts

        return durably_bridge
    global _starting
    if _starting is None or (_starting.done() and _starting.exception() is not None):
        _starting = asyncio.ensure_future(_start())
    return await asyncio.shield(_starting)


class BridgeError(Exception):
    """What the bridge has thrown; `code` is SQLite's, if it has one."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class RemoteBridge:
    """The bridge in a worker of its own. As in JavaScript, what takes time is answered by a future."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._asked: dict[int, tuple[asyncio.Future[Any], RemoteConnection | None]] = {}
        self._last_id = 0
        worker.onmessage = create_proxy(self._hear)

    def openDatabase(self, name: str, durability: str) -> asyncio.Future[RemoteConnection]:  # noqa: N802 - JavaScript's
        return asyncio.ensure_future(self.connection("openDatabase", name, durability))

    def startPulse(self, channel: str, text: str, every_ms: float) -> asyncio.Future[None]:  # noqa: N802 - as above
        return self.ask("startPulse", channel, text, every_ms)

    def stopPulse(self) -> asyncio.Future[None]:  # noqa: N802 - as above
        return self.ask("stopPulse")

    async def connection(self, call: str, *given: Any) -> RemoteConnection:
        """The connection that a call opens."""
        number, set_aside = await self.ask(call, *given)
        return RemoteConnection(self, number, set_aside)

    def ask(self, call: str, *given: Any, of: RemoteConnection | None = None) -> asyncio.Future[Any]:
        """Make a call there."""
        self._last_id += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[self._last_id] = answer, of
        self._worker.postMessage(to_js([self._last_id, call, *given]))
        return answer

    def _hear(self, message: Any) -> None:
        number, failed, *result = message.data
        answer, connection = self._asked.pop(number)
        if failed is not None:
            if not answer.done():
                answer.set_exception(BridgeError(*failed))
            return
        value, is_doubtful = result
        if connection is not None:
            connection.isDoubtful = is_doubtful
        if not answer.done():
            answer.set_result(value)


class RemoteConnection:
    """A connection of `web/sqlite.js`, by its number there."""

    isDoubtful = False  # noqa: N815 - JavaScript's

    def __init__(self, bridge: RemoteBridge, number: int, set_aside: str) -> None:
        self._bridge = bridge
        self._number = number
        self.setAside = set_aside

    def execute(self, request: Any, *blobs: Any) -> asyncio.Future[Any]:
        return self._ask("execute", request, *blobs)

    def dump(self) -> asyncio.Future[Any]:
        return self._ask("dump")

    def stage(self, image: Any) -> asyncio.Future[RemoteConnection]:
        return asyncio.ensure_future(self._bridge.connection("stage", self._number, image))

    def load(self, image: Any, unless: str) -> asyncio.Future[bool]:
        return self._ask("load", image, unless)

    def describe(self) -> asyncio.Future[str]:
        return self._ask("describe")

    def rest(self) -> asyncio.Future[None]:
        return self._ask("rest")

    def close(self) -> asyncio.Future[None]:
        return self._ask("close")

    def _ask(self, call: str, *given: Any) -> asyncio.Future[Any]:
        return self._bridge.ask(call, self._number, *given, of=self)


async def _start() -> RemoteBridge:
    if not hasattr(js, "DedicatedWorkerGlobalScope"):
        raise StorageError(
            "durably cannot open a file here: only a dedicated web worker may. Use a worker: in PyScript "
            '<script type="py" worker>, elsewhere load Pyodide in a worker of the page'
        )
    folder = files("durably.databases") / "web"
    url = os.environ.get(URL_VARIABLE)
    if url:
        address = js.URL.new(url, js.location.origin).href
    else:
        source = (folder / _BRIDGE).read_text("utf-8")
        address = js.URL.createObjectURL(js.Blob.new(to_js([source]), type="text/javascript"))
    try:
        worker = js.Worker.new(address, type="module", name="durably-bridge")
        comes_up = await _first_word(worker)
    except JsException:
        comes_up = False
    if not comes_up:
        raise StorageError(_REFUSED.format(url=url or "a blob: URL"))
    worker.postMessage(to_js((folder / _SQLITE).read_bytes()))
    return RemoteBridge(worker)


async def _first_word(worker: Any) -> bool:
    """Wait for what a new worker says first; whether it could be started at all."""
    heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def hear(event: Any) -> None:
        if not heard.done():
            heard.set_result(event.type == "message")

    hears = create_proxy(hear)
    worker.onmessage = worker.onerror = hears
    try:
        async with asyncio.timeout(_COMES_UP_SECONDS):
            return await heard
    except TimeoutError:
        worker.terminate()
        return False
    finally:
        worker.onmessage = worker.onerror = None
        hears.destroy()
