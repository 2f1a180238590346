"""What `web/worker.js` calls once Python is up: load the job files, start durably, serve the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from ..database import Statement
from ..engine import create_durably
from ..errors import DurablyError, describe
from ..events import logger
from ..http import create_durably_handler
from ..jobfiles import import_job_file, register_jobs_of, require_job_file_name
from ..ledger import cancel_statements
from ..migrations import newest_version
from ..plugins import with_log_persistence
from ..queries import REQUIRE_VERSION, RUN_BY_ID
from . import interrupts, page
from .port import Port, Post

JOBS_FOLDER = Path("/durably-jobs")


async def boot(database: str, files: str, durability: str, left: str, post: Post, way_in: Any) -> Port | None:
    """Start, and tell the page by `post`.

    That is `{"worker": id, "cancel": requests}` and `{"ready": true}`, or `{"failed": {name, status, message}}`.
    `files` is a JSON list of `[name, source]`; each becomes a module named like the file. `left` is a JSON list of the
    workers that are known to have left in order. `way_in` is an `Interrupts`
    of the bridge, or null. Returns the port to serve the page with, or `None` after a failure.
    """
    if way_in:
        interrupts.of_this_worker = interrupts.Interrupts(way_in)
    try:
        port = await _start(database, files, durability, left, post)
    except DurablyError as error:
        failure = {"name": type(error).__name__, "status": error.status, "message": error.message}
    except Exception as error:  # noqa: BLE001 - the page gets a sentence, the console the traceback
        logger.exception("durably could not start")
        sentence = f"durably could not start: {type(error).__name__}: {describe(error)}"
        failure = {"name": "DurablyError", "status": 500, "message": sentence}
    else:
        post(json.dumps({"ready": True}))
        return port
    post(json.dumps({"failed": failure}))
    return None


async def _start(database: str, files: str, durability: str, left: str, post: Post) -> Port:
    modules = [load_job_file(name, source) for name, source in json.loads(files)]
    durably = create_durably(database, durability=durability)
    durably.use(with_log_persistence())  # a page has no other way to ask for it
    for module in modules:
        register_jobs_of(durably, module)
    page.of_this_worker = page.Page(post, json.loads(left))
    # Before it has any run: where the page goes, it leaves a mark for this worker.
    post(json.dumps({"worker": durably.worker_id, "cancel": cancel_requests()}))
    await durably.init()
    # Between a worker and its page nothing is far, nothing falls silent by itself, and nobody is a stranger.
    handler = create_durably_handler(durably, sse_throttle=0, sse_heartbeat=math.inf, max_body_size=None)
    return Port(handler, page.of_this_worker, post)


def cancel_requests() -> list[str]:
    """What the page's deputy sends to cancel a run while Python is busy: a look at it, and the deed.

    Requests of the bridge, whose parameters `id`, `run_id` and `now` are left open.
    """
    find = Statement(RUN_BY_ID, {"id": None})
    cancel = [*cancel_statements(None, None), Statement(REQUIRE_VERSION, {"known": newest_version()})]
    return [
        json.dumps([mode, [[one.sql, one.params] for one in statements]])
        for mode, statements in (("read", [find]), ("write", cancel))
    ]


def load_job_file(name: str, source: str) -> ModuleType:
    """Import a job file from its source. Raises `ValidationError` that says where it is wrong."""
    file = JOBS_FOLDER / name.rsplit("/", 1)[-1]
    require_job_file_name(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(source, "utf-8")
    return import_job_file(file)
