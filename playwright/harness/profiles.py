"""Profiles with a snapshot of Python: what a test begins with, so that it need not wait for Python to start anew."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Playwright

from .browser import Browser, Engine
from .server import Server
from .snapshots import make_snapshot


class Profiles:
    """One for each engine, made when it is first asked for. A snapshot belongs to an origin, so also to a server."""

    def __init__(self, playwright: Playwright, server: Server, folder: Path) -> None:
        self._playwright = playwright
        self._server = server
        self._folder = folder

    def copy(self, engine: Engine, profile: Path) -> None:
        """Make `profile` one that has been used for nothing but to keep a snapshot."""
        whole = self._folder / engine.name
        if not whole.exists():
            self._make(engine)
        shutil.copytree(whole, profile, symlinks=True)

    def _make(self, engine: Engine) -> None:
        profile = self._folder / f"{engine.name}-in-the-making"
        browser = Browser(getattr(self._playwright, engine.kind), profile, self._server, engine)
        try:
            make_snapshot(browser.tab())
        finally:
            browser.stop()
        browser.check()
        profile.rename(self._folder / engine.name)
