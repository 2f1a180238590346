"""What the worker asks its page, the one place that outlives it: which workers took their leave.

Before a page goes it leaves a mark for its workers, in a way that is done before it is gone (`web/durably.js`).
A worker that died without one has crashed. The questions go by message, `{"ask": id, "left": [...]}`, and are
answered by `told`. The page is also told, by `{"active": [...], "at": ms}`, which runs are executed here: it must end
the worker to cancel one that blocks it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection

from ..clock import SystemClock

_ANSWER_SECONDS = 2.0
"""A page whose main thread is blocked for longer is not waited for."""


class Page:
    """The page behind this worker."""

    def __init__(self, post: Callable[[str], None], left: Collection[str]) -> None:
        """`post` sends one JSON text to it; `left` are the workers of which it has said that they left."""
        self._post = post
        self._left = set(left)
        self._asked: dict[int, asyncio.Future[set[str]]] = {}
        self._last_id = 0

    async def left(self, worker_ids: Collection[str]) -> set[str]:
        """Those of these workers that have left a mark. All of them, if the page does not answer."""
        if self._left.issuperset(worker_ids):
            return set(worker_ids)
        self._last_id += 1
        answer: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
        ask = self._last_id
        self._asked[ask] = answer
        self._post(json.dumps({"ask": ask, "left": list(worker_ids)}))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            return set(worker_ids)
        finally:
            del self._asked[ask]

    def executes(self, run_ids: Collection[str]) -> None:
        """Tell it which runs are executed here from now on."""
        self._post(json.dumps({"active": sorted(run_ids), "at": SystemClock().now()}))

    def told(self, ask: int, left: str) -> None:
        """The page's answer: a JSON list."""
        answer = self._asked.get(ask)
        if answer is not None and not answer.done():
            answer.set_result(set(json.loads(left)))


of_this_worker: Page | None = None
"""Set by `boot`. A worker that a page of somebody else has made has none."""
