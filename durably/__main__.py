"""`python -m durably`: the runs of a file, in a terminal. What it can do is in `durably.command`."""

from __future__ import annotations

import sys

from .command.line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
