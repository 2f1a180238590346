"""The figures of a page that is up: steps and runs a second, triggers, replay. Ours, the limit and the peer in turns.

Each is a tab of its own that is closed before the next one opens, for all of them do a little while they are idle.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.browser import Browser

from .pages import Machine, ask
from .recording import Recording
from .samples import Samples

RECORDING = "/bench/recording.json"
FIGURES = {"steps", "runs", "trigger", "replay"}


@dataclass(frozen=True)
class Sizes:
    """How much is done in a round."""

    steps: int = 500
    runs: int = 200
    triggers: int = 10
    replayed: int = 1000
    replays: int = 3
    warm_up: int = 50
    """Steps before those that are timed."""


def measure(
    machine: Machine, samples: Samples, chosen: set[str], rounds: int, sizes: Sizes, recording: Recording
) -> None:
    """`recording` is of `warm_up` and `steps` steps together."""
    machine.server.put(RECORDING, recording.as_json())
    with machine.profile() as browser:
        for number in range(rounds):
            turns = [_ours, _raw, _peer]
            for turn in turns if number % 2 == 0 else reversed(turns):
                turn(machine, browser, samples, chosen, sizes)


def _ours(machine: Machine, browser: Browser, samples: Samples, chosen: set[str], sizes: Sizes) -> None:
    with machine.page(browser, "/bench/ours.html", database=machine.name()) as tab:
        samples.facts.setdefault("storage", ask(tab, "facts"))
        ask(tab, "stepsPerSecond", sizes.warm_up)
        if "steps" in chosen:
            samples.add("steps.ours", ask(tab, "stepsPerSecond", sizes.steps))
        if "runs" in chosen:
            samples.add("runs.ours", ask(tab, "runsPerSecond", sizes.runs))
        if "trigger" in chosen:
            samples.add("trigger.ours", *ask(tab, "triggerToStart", sizes.triggers))
        if "replay" in chosen:
            found = ask(tab, "replay", sizes.replayed, sizes.replays)
            samples.add("replay.ours", *(one["all"] for one in found))
            samples.add("replay.loop", *(one["loop"] for one in found))


def _raw(machine: Machine, browser: Browser, samples: Samples, chosen: set[str], sizes: Sizes) -> None:
    if "steps" not in chosen:
        return
    with machine.page(browser, "/bench/raw.html") as tab:
        found = ask(tab, "commitsPerSecond", machine.name(), RECORDING, sizes.warm_up)
        samples.add("steps.raw", found)


def _peer(machine: Machine, browser: Browser, samples: Samples, chosen: set[str], sizes: Sizes) -> None:
    if not chosen & {"steps", "runs", "trigger"}:
        return
    with machine.page(browser, "/peer/peer.html", database=machine.name()) as tab:
        samples.facts.setdefault("peer", ask(tab, "facts"))
        ask(tab, "stepsPerSecond", min(5, sizes.steps))
        if "steps" in chosen:
            samples.add("steps.peer", ask(tab, "stepsPerSecond", sizes.steps))
        if "runs" in chosen:
            samples.add("runs.peer", ask(tab, "runsPerSecond", sizes.runs))
        if "trigger" in chosen:
            samples.add("trigger.peer", *ask(tab, "triggerToStart", sizes.triggers))
