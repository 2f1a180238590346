"""A job that the other pages of the tests do not know."""

from __future__ import annotations

from durably import StepContext, job


@job
async def greet(step: StepContext, name: str) -> str:
    return await step.run("greet", "Hello, {}".format, name)
