"""A terminal, or a pipe in its place: lines that fit its width, colours where they are wanted, one line that changes.

A line is made of pieces; every piece goes through `printable` here, so no stored text reaches a terminal with a control
character in it. Widths are cells: a wide character takes two, one that is put onto another none. A pipe has no width
unless `COLUMNS` gives it one: then nothing is cut.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

from ..texts import ELLIPSIS, printable

WIDTH_OF_A_PIPE = 1_000_000
USUAL_WIDTH = 80

BOLD, DIM, RED, GREEN, YELLOW, BLUE = "1", "2", "31", "32", "33", "34"
"""Styles, as ANSI's SGR codes."""

_LINE_START, _CLEAR_REST = "\r", "\x1b[K"


@dataclass(frozen=True, slots=True)
class Styled:
    """A piece of a line in a style."""

    text: str
    style: str


Piece = str | Styled


def text_of(piece: Piece) -> str:
    return piece.text if isinstance(piece, Styled) else piece


def cells(text: str) -> int:
    """How many cells a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells_of_one, text))


def padded(piece: Piece, width: int) -> Piece:
    """The piece with spaces behind it, up to a width."""
    blank = " " * (width - cells(printable(text_of(piece))))
    return Styled(piece.text + blank, piece.style) if isinstance(piece, Styled) else piece + blank


def clipped(text: str, width: int) -> str:
    """As much of a printable text as fits, with an ellipsis where some is missing."""
    if cells(text) <= width:
        return text
    kept, used = "", 1
    for each in text:
        used += _cells_of_one(each)
        if used > width:
            break
        kept += each
    return kept + ELLIPSIS if width > 0 else ""


def folded(text: str, width: int) -> Iterator[str]:
    """A printable text in parts that fit, broken wherever the width ends."""
    part, used = "", 0
    for each in text:
        size = _cells_of_one(each)
        if part and used + size > width:
            yield part
            part, used = "", 0
        part += each
        used += size
    yield part


class Terminal:
    """Where the command writes."""

    def __init__(self, stream: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self._stream = sys.stdout if stream is None else stream
        is_terminal = self._stream.isatty()
        is_dumb = environment.get("TERM") == "dumb"
        self.has_colours = is_terminal and not is_dumb and not environment.get("NO_COLOR")
        self.is_live = is_terminal and not is_dumb
        """Whether a line can be written once more in its place."""
        self.width = self._width_of(environment, is_terminal)
        self._live_line: str | None = None

    def say(self, *pieces: Piece) -> None:
        """Write a line."""
        self.leave_live_line()
        self._write(self._line(pieces) + "\n")

    def say_live(self, *pieces: Piece) -> None:
        """Write a line that the next one of this kind replaces; where none can be replaced, only what is new."""
        line = self._line(pieces)
        if line == self._live_line:
            return
        self._live_line = line
        self._write(_LINE_START + line + _CLEAR_REST if self.is_live else line + "\n")

    def leave_live_line(self) -> None:
        """What was written last stays."""
        if self._live_line is not None and self.is_live:
            self._write("\n")
        self._live_line = None

    def say_folded(self, indent: str, text: str, style: str = "") -> None:
        """Write a long text in as many lines as it takes, each line of its own below the other."""
        for line in text.splitlines() or [""]:
            for part in folded(printable(line), max(self.width - len(indent), 1)):
                self.say(indent, Styled(part, style))

    def bar(self, share: float, length: int) -> tuple[Styled, Styled]:
        """A bar, filled to a share from 0 to 1: its two halves."""
        full = min(round(share * length), length)
        whole, rest = ("█", "░") if self._can_show("█░") else ("#", ".")
        return Styled(whole * full, BLUE), Styled(rest * (length - full), DIM)

    def stroke(self, length: int, style: str) -> Styled:
        """A solid bar."""
        return Styled(("█" if self._can_show("█") else "#") * length, style)

    def _line(self, pieces: Iterable[Piece]) -> str:
        # One cell stays free where a line is to be replaced: a full line would move the cursor to the next.
        left = self.width - 1 if self.is_live else self.width
        line = ""
        for piece in pieces:
            whole = printable(text_of(piece))
            text = clipped(whole, left)
            left -= cells(text)
            style = piece.style if isinstance(piece, Styled) else ""
            line += f"\x1b[{style}m{text}\x1b[0m" if style and text and self.has_colours else text
            if text != whole:
                break
        return line if self.has_colours else line.rstrip()

    def _write(self, text: str) -> None:
        if not self._can_show(text):
            encoding = self._stream.encoding
            text = text.encode(encoding, "replace").decode(encoding)
        self._stream.write(text)
        self._stream.flush()

    def _can_show(self, text: str) -> bool:
        try:
            text.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def _width_of(self, environment: Mapping[str, str], is_terminal: bool) -> int:
        columns = environment.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            return int(columns)
        if not is_terminal:
            return WIDTH_OF_A_PIPE
        return os.get_terminal_size(self._stream.fileno()).columns or USUAL_WIDTH


def _cells_of_one(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
