"""Many short-lived processes for tests that kill them: each a fork of one that has imported durably already.

As a program it is that parent: for each line of JSON on its standard input it forks a child that calls a
function of `killed_program`, or waits for one to end, and answers with a line. A fork costs a hundredth of
a fresh process, so that a test can afford hundreds.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from typing import Any


class Forks:
    """The parent, for a test. `with Forks() as forks:`"""

    def __enter__(self) -> Forks:
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._running: set[int] = set()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self._running):
            self.kill(pid)
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=10)
        self._parent.stdout.close()

    def start(self, program: str, *args: Any) -> int:
        """Begin `killed_program.PROGRAM(*args)`, a coroutine function, in a child; its process id."""
        pid = int(self._ask({"program": program, "args": args}))
        self._running.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def wait(self, pid: int) -> int:
        """Wait for its end; its exit status, negative the number of the signal that ended it."""
        self._running.discard(pid)
        return int(self._ask({"wait": pid}))

    def _ask(self, question: dict[str, Any]) -> str:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        return self._parent.stdout.readline()


def _answer(question: dict[str, Any]) -> int:
    import killed_program

    if "wait" in question:
        _, status = os.waitpid(question["wait"], 0)
        return os.waitstatus_to_exitcode(status)
    pid = os.fork()
    if pid:
        return pid
    try:
        # Its own: what it prints is no answer, and what the parent is asked next is not for it.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        asyncio.run(getattr(killed_program, question["program"])(*question["args"]))
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must never go on as its parent
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    for line in sys.stdin:
        print(_answer(json.loads(line)), flush=True)
