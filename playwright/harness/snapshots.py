"""The snapshot of Python's memory that a page keeps for the next visit (`web/snapshot.js`), as a test sees it."""

from __future__ import annotations

import time
from typing import Any

from .browser import Browser, Tab

AWAKE = "Waking Python up"
"""What a page is told where Python comes from a snapshot."""

HEADER_SIZE = 4096
_PATIENCE_SECONDS = 60
_FOLDER = "(await navigator.storage.getDirectory()).getDirectoryHandle('.durably-snapshots', { create: true })"
_LOOK = f"""async () => {{
  const headers = []
  for await (const file of (await {_FOLDER}).values()) {{
    const written = (error) => {{ if (error.name !== "NotReadableError") throw error; return "" }} // at this moment
    const text = await (await file.getFile()).slice(0, {HEADER_SIZE}).text().catch(written)
    headers.push(text.startsWith("{{") ? JSON.parse(text) : null)
  }}
  return headers
}}"""
_CHANGE = f"""async ([at, bytes, size]) => {{
  for await (const file of (await {_FOLDER}).values()) {{
    const writable = await file.createWritable({{ keepExistingData: true }})
    await writable.write({{ type: "write", position: at, data: new Uint8Array(bytes) }})
    if (size !== null) await writable.truncate(size)
    await writable.close()
  }}
}}"""
_MAKE = """() => new Promise((resolve, reject) => {
  const maker = new Worker("./durably/snapshot-maker.js", { type: "module" })
  maker.onmessage = () => resolve(maker.terminate())
  maker.onerror = ({ message }) => reject(new Error(message))
})"""
_HOLD = f"""async () => {{
  for await (const file of (await {_FOLDER}).values()) {{
    window.held = [file.name, await (await file.getFile()).arrayBuffer()]
  }}
}}"""
_GIVE_BACK = f"""async () => {{
  const [name, content] = held
  const file = await (await {_FOLDER}).getFileHandle(name, {{ create: true }})
  const writable = await file.createWritable()
  await writable.write(content)
  await writable.close()
}}"""


def headers(tab: Tab) -> list[dict[str, Any] | None]:
    """Of each snapshot that is kept; `None` for one that has none."""
    found: list[dict[str, Any] | None] = tab.js(_LOOK)
    return found


def wait_for_snapshot(tab: Tab, other_than: dict[str, Any] | None = None) -> dict[str, Any]:
    """The header of the only snapshot, once there is a whole one."""
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        kept = headers(tab)
        if len(kept) == 1 and kept[0] and kept[0] != other_than:
            return kept[0]
        said = [message.text for message in tab.page.console_messages()]
        assert time.monotonic() < give_up_at, f"no snapshot: {kept}, {said}"
        tab.page.wait_for_timeout(200)


def change_snapshot(tab: Tab, at: int, content: bytes = b"", *, size: int | None = None) -> None:
    """Write into the file of the snapshot, and cut it to a `size`."""
    tab.js(_CHANGE, [at, list(content), size])


def is_awake(tab: Tab) -> bool:
    """Whether Python came from a snapshot."""
    return AWAKE in tab.js("() => window.boots")


def make_snapshot(tab: Tab) -> None:
    """Have a whole one, as a page has it made some seconds after its first visit."""
    tab.js(_MAKE)
    [header] = headers(tab)
    assert header is not None


def keep_snapshot(browser: Browser) -> Tab:
    """A tab that is not connected, and a snapshot."""
    tab = browser.tab()
    if not browser.has_snapshot:
        make_snapshot(tab)
    return tab


def hold_snapshot(tab: Tab) -> None:
    """Remember it as it is, as long as the page is there."""
    tab.js(_HOLD)


def give_snapshot_back(tab: Tab) -> None:
    """Have it again as the page remembers it, whatever has become of it."""
    tab.js(_GIVE_BACK)
