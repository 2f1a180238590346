"""On the page: MicroPython, which is up at once, shows what the worker tells, and passes on what is pressed."""

import asyncio
import json

from pyscript import document, when, window, workers

BLOCKS = 50
BLOCK = 2_000_000
STATES = {"pending": "running", "running": "running", "completed": "done", "failed": "failed", "cancelled": "ready"}

page = document.documentElement
shown = None
"""The run that is on the page."""
stored = 0
"""How many of its blocks were in the store when the page was opened."""


def find(name):
    return document.getElementById(name)


def show(run):
    """The newest run, or that there is none."""
    global shown, stored
    state = STATES[run["status"]] if run else "ready"
    if run and (shown is None or run["id"] != shown["id"]):
        is_unfinished = page.dataset.state == "booting" and state == "running"
        stored = len(run["blocks"]) if is_unfinished else 0
    shown = run
    find("booting").hidden = True
    find("start").hidden = state == "running"
    find("running").hidden = not run
    find("stop").hidden = state != "running"
    find("resumed").hidden = not stored
    find("resumed").textContent = f"{stored} blocks were in the store when this page was opened: it goes on from there."
    if run:
        show_blocks(run["blocks"], run["of"])
    say(state, run["error"] if state == "failed" else "")
    page.dataset.blocks = str(len(run["blocks"]) if run else 0)


def say(state, error=""):
    page.dataset.state = state
    find("status").textContent = {
        "ready": "Ready.",
        "running": "Counting in a worker of this page.",
        "done": "Done.",
        "failed": f"It stopped: {error}",
    }[state]


def show_blocks(primes, of):
    chart = find("chart")
    while chart.childElementCount < of:
        chart.append(document.createElement("span"))
    most = max(primes) if primes else 1
    for number in range(of):
        bar = chart.children[number]
        is_done = number < len(primes)
        bar.className = "bar" + ("" if not is_done else " stored" if number < stored else " done")
        bar.style.setProperty("--share", str(primes[number] / most if is_done else 0.02))
    for name, value in (("aria-valuemax", of), ("aria-valuenow", len(primes))):
        chart.setAttribute(name, str(value))
    chart.setAttribute("aria-valuetext", f"{len(primes)} of {of} blocks")
    find("blocks").textContent = f"{len(primes)} of {of}"
    find("below").textContent = grouped(len(primes) * BLOCK)
    find("primes").textContent = grouped(sum(primes))
    find("legend").hidden = not stored


def grouped(number):
    """With commas, for which MicroPython has no format."""
    digits = str(number)
    return digits if len(digits) <= 3 else f"{grouped(digits[:-3])},{digits[-3:]}"


@when("click", "#count")
async def count(_event):
    await (await workers["jobs"]).count(BLOCKS)


@when("click", "#cancel")
async def cancel(_event):
    await (await workers["jobs"]).cancel(shown["id"])


@when("click", "#reload")
def reload(_event):
    window.location.reload()


async def follow():
    try:
        jobs = await workers["jobs"]
        await jobs.begin()
        known = -1
        while True:
            told = json.loads(await jobs.news(known))
            known = told["changes"]
            show(told["run"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the page is to say it
        find("booting").hidden = True
        say("failed", error)


asyncio.create_task(follow())  # noqa: RUF006 - it never ends, and MicroPython keeps what is to run
