"""A job that tells what must not be the same, or has to be right, in every Python that wakes up from one snapshot."""

import os
import random
import secrets
import sys
import time
import uuid
from datetime import datetime

from durably import StepContext, job

drawn_at_import = random.random()


@job(name="look")
async def look(step: StepContext, payload: None) -> dict[str, list[str]]:
    return {
        "unique": [
            str(drawn_at_import),
            str(random.random()),
            str(random.Random().random()),
            os.urandom(8).hex(),
            secrets.token_hex(8),
            str(uuid.uuid4()),
            step.run_id,
        ],
        "clock": [str(time.time()), datetime.now().astimezone().isoformat(), time.tzname[0], str(time.timezone)],
        "modules": [name for name in ("pydantic", "durably", "micropip") if name in sys.modules],
    }


@job(name="add")
async def add(step: StepContext, numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        total = await step.run(f"add-{number}", lambda total, number: total + number, total, number)
    return total
