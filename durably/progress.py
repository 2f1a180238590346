"""Progress: what a run has said of how far it is, until that is told and stored.

Live progress is told at once. While stored steps are replayed it is held back, and what was said last is told before
anything else is: who watches a run that goes on sees it where it was, and not once more from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from .records import Progress


class ProgressReport:
    """The progress of one execution."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self.said: Progress | None = None
        """What was last said."""
        self._tell = tell
        self._untold: Progress | None = None
        self._unsaved: str | None = None

    @property
    def is_saved(self) -> bool:
        """Whether there is nothing for the store."""
        return self._unsaved is None

    def say(self, progress: Progress, *, in_replay: bool) -> None:
        """Note it; tell it now, or with the next thing that is told."""
        self.said = self._untold = progress
        self._unsaved = json.dumps(asdict(progress))
        if not in_replay:
            self.tell()

    def tell(self) -> None:
        """Tell what was held back."""
        untold, self._untold = self._untold, None
        if untold is not None:
            self._tell(untold)

    def take(self) -> str | None:
        """What is not stored yet, as JSON text, for the caller to store."""
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def put_back(self, unsaved: str) -> None:
        """It could not be stored; what has been said since is newer."""
        self._unsaved = self._unsaved or unsaved
