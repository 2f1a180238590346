"""The peer on CPython, run by its own environment's Python: `python on_dbos.py FILE WARM_UP STEPS`. Prints JSON."""

from __future__ import annotations

import json
import logging
import sys
from time import perf_counter

from dbos import DBOS


@DBOS.step()
def give(number: int) -> int:
    """A step that costs nothing."""
    return number


@DBOS.workflow()
def steps(count: int) -> float:
    """Seconds that so many steps take."""
    began = perf_counter()
    for number in range(count):
        give(number)
    return perf_counter() - began


def main() -> None:
    file, warm_up, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.WARNING)
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{file}", "run_admin_server": False})
    DBOS.launch()
    steps(warm_up)
    seconds = steps(count)
    DBOS.destroy()
    print(json.dumps(count / seconds))


if __name__ == "__main__":
    main()
