"""A `Run` in an interpreter and in a notebook: one line, and a card that shows stored text as text."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from contract_kit import contract, finished, opened

from durably import Progress, Run, StepContext, job
from durably.texts import span

HOSTILE = '<img src=x onerror="alert(1)">&amp;\x1b[2J\n'


@job
async def hostile(step: StepContext, payload: dict[str, str]) -> None:
    await step.run("first", lambda: 1)
    step.progress(1, 4, HOSTILE)
    raise ValueError(HOSTILE)


@job
async def waits(step: StepContext, payload: None) -> str:
    await step.sleep(HOSTILE, timedelta(days=1))
    return HOSTILE


class Card(HTMLParser):
    """What a browser would make of a card: its elements, and the text that a reader sees."""

    def __init__(self, run: Run[Any]) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(run._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= dict(attrs)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data}"


@contract
async def test_what_is_stored_is_shown_as_text_and_can_be_read_without_style() -> None:
    """A notebook puts the card into its own page, where an element or a handler of a payload's would be alive."""
    durably, clock = await opened(":memory:", hostile, waits)
    labels = {"site": HOSTILE}
    failed = await finished(durably, await durably.jobs.hostile.trigger({HOSTILE: HOSTILE}, labels=labels))
    waiting = await finished(durably, await durably.jobs.waits.trigger(None, labels=labels))
    await clock.advance(timedelta(days=1))
    completed = await finished(durably, waiting)

    shown = [Card(run) for run in (failed, waiting, completed)]
    assert failed.error is not None
    for card in shown:
        assert card.elements <= {"div", "style", "strong", "code", "table", "tr", "th", "td", "progress", "br"}
        assert not {name for name in card.attributes if name.startswith("on") or name in ("src", "href")}
        assert '<img src=x onerror="alert(1)">&amp;\\x1b[2J' in card.text
        assert "\x1b" not in card.text
    for words in ("hostile", "failed", failed.id, "1 of 4", "1 step completed", "ended after 0 ms"):
        assert words in shown[0].text
    assert shown[0].attributes["value"] == "0.2500"
    assert "waits for sleep:<img" in shown[1].text
    assert "output" in shown[2].text
    await durably.stop()


@contract
async def test_the_repr_of_a_run_is_one_line_that_says_how_far_it_is() -> None:
    durably, _ = await opened(":memory:", hostile, waits)
    pending = await durably.jobs.hostile.trigger({})
    assert repr(pending) == f"<Run {pending.id} hostile: pending, 0 steps>"
    failed = await finished(durably, pending)
    said = '<img src=x onerror="alert(1)">&amp;\\x1b[2J\\n'
    assert repr(failed) == f"<Run {failed.id} hostile: failed, 1 of 4 ({said}), 1 step>"
    waiting = await finished(durably, await durably.jobs.waits.trigger(None))
    assert repr(waiting) == f"<Run {waiting.id} waits: pending, waits for sleep:{said}, 0 steps>"
    await durably.stop()


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    ("progress", "words", "bar"),
    [
        (Progress(3), "3", None),
        (Progress(2.5, 10), "2.50 of 10", "0.2500"),
        (Progress(20, 10), "20 of 10", "1.0000"),
        (Progress(-1, 10), "-1 of 10", "0.0000"),
        (Progress(1, 0), "1 of 0", None),
        (Progress(float("nan"), float("inf")), "nan of inf", None),
    ],
)
def test_whatever_a_job_says_of_its_progress_can_be_shown(progress: Progress, words: str, bar: str | None) -> None:
    """Neither the numbers nor the payload need make sense: a list of runs must be readable all the same."""
    run = dataclasses.replace(asleep(), progress=progress, payload=Unspeakable(), output=["x" * 100_000])
    assert f"pending, {words}, 0 steps" in repr(run)
    card = Card(run)
    assert words in card.text
    assert card.attributes.get("value") == bar
    assert "<Unspeakable>" in card.text
    assert len(card.text) < 2_000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 ms"),
        (0.012, "12 ms"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (7205, "2 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_span_is_said_in_the_units_of_its_size(seconds: float, words: str) -> None:
    assert span(seconds) == words


def asleep() -> Run[Any]:
    found: list[Run[Any]] = []

    @contract
    async def trigger() -> None:
        durably, _ = await opened(":memory:", waits)
        found.append(await durably.jobs.waits.trigger(None))
        await durably.stop()

    trigger()
    return found[0]
