"""Runs one of the scenarios that CPython runs too; the files they are in are loaded before this one."""

from __future__ import annotations

import traceback

import scenarios

from durably import StepContext, job


@job(name="run-scenario")
async def run_scenario(step: StepContext, name: str) -> str:
    number = list(scenarios.SCENARIOS).index(name)  # the names are too long for a file's
    try:
        await scenarios.SCENARIOS[name](lambda label: f"scenario-{number}-{label}.sqlite3")
    except Exception as error:
        # The place says more than the error alone, which for a bare assert is nothing.
        raise AssertionError(traceback.format_exc()) from error
    return "ok"
