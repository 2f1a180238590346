"""What must hold of a run that was interrupted, read from the ledger that its steps wrote."""

from __future__ import annotations

from collections import Counter

from .server import Entry, Ledger

MODULUS = 1_000_003


def chain_names(steps: int = 20) -> list[str]:
    return [f"step-{number:02}" for number in range(1, steps + 1)]


def chain_output(steps: int = 20) -> int:
    """What the jobs `chain` and `think` of `pages/jobs.py` give if each of their steps has got the right input."""
    value = 1
    for number in range(1, steps + 1):
        value = (value * 31 + number) % MODULUS
    return value


def assert_survived(ledger: Ledger, steps: list[str], *, interruptions: int) -> None:
    """All `steps`, one after the other, were executed; again only the one in flight at an interruption.

    That one step follows another shows that the other's checkpoint was committed.
    """
    executed = ledger.names()
    in_order = [name for at, name in enumerate(executed) if at == 0 or name != executed[at - 1]]
    assert in_order == steps, f"executed in this order: {executed}"
    twice = {name: count for name, count in Counter(executed).items() if count > 1}
    assert all(count == 2 for count in twice.values()), f"executed more than twice: {twice}"
    assert len(twice) <= interruptions, f"{interruptions} interruptions, but executed again: {twice}"
    again = executed_after_commit(ledger.entries)
    assert not again, f"executed although their checkpoints were known to be committed: {again}"


def executed_after_commit(entries: list[Entry]) -> list[str]:
    committed: set[str] = set()
    again = []
    for entry in entries:
        if entry.kind == "committed":
            committed.add(entry.name)
        elif entry.kind == "step" and entry.name in committed:
            again.append(entry.name)
    return again


def take_over_ms(ledger: Ledger) -> float:
    """From the moment when the last `connect` resolved to the first step that was executed after it."""
    connected = max(entry.at for entry in ledger.entries if entry.kind == "connected")
    # The worker goes on by itself: the last step may begin before the page's word of its connection arrives.
    return 1000 * (min((at for at in step_times(ledger) if at > connected), default=connected) - connected)


def step_times(ledger: Ledger) -> list[float]:
    return [entry.at for entry in ledger.entries if entry.kind == "step"]
