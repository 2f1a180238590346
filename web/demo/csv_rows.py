"""CSV files as people have them: found out by looking, checked row by row.

Plain functions from bytes to rows and rejects. They know nothing of jobs, and give the same answer each time.
"""

import csv
import io
import re
from collections import Counter
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, FiniteFloat, TypeAdapter, ValidationError, create_model
from typing_extensions import TypedDict

SAMPLE_ROWS = 1_000  # what a column looks like is decided from so many rows at the top of the file
MOST = 0.95  # a rule about a column holds if this share of the sample keeps it; the rest are its rejects
# What people write into a cell when they have no value. Not "none", which is often an answer (damage: none).
BLANKS = {"", "-", "?", "n/a", "#n/a", "null", "unknown"}


class Column(BaseModel):
    name: str
    type: Literal["integer", "number", "date", "text"]
    required: bool


class Layout(BaseModel):
    """What the file looks like; `group_by` and `average_of` are positions in `columns`."""

    delimiter: str
    columns: list[Column]
    rows: int
    unique_rows: bool
    group_by: int | None
    average_of: int | None


class Reject(TypedDict):
    line: int  # in the file, counted from 1
    kind: str  # the reason without the cell's text, so that like can be counted with like
    reason: str


Record = tuple[int, list[str]]  # the line where it starts, and its cells


def decode(data: bytes, name: str) -> str:
    """Return the text of a file in UTF-8, UTF-16 with a mark, or else Windows' Western code page."""
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ["utf-16"] if marked else ["utf-8-sig", "cp1252"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:  # a spreadsheet or a picture, which some code page can always spell
            break
        if not text.strip():
            raise ValueError(f"{name} is empty.")
        return text
    raise ValueError(f"{name} is not a text file. Export it as CSV, in UTF-8 if there is a choice.")


def parse(text: str, delimiter: str) -> list[Record]:
    """Return the records, header first. A quoted cell may span several lines; blank lines are no records."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records: list[Record] = []
    line = 1
    try:
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"Line {line} cannot be read as CSV: {error}.") from error
    return records


def sniff(data: bytes, name: str) -> Layout:
    text = decode(data, name)
    delimiter = find_delimiter(text)
    (_, header), *records = parse(text, delimiter)
    if not records:
        raise ValueError(f"{name} has a header but no rows.")
    whole = [cells for _, cells in records if len(cells) == len(header)]
    sample = whole[:SAMPLE_ROWS]
    columns = [describe(title, [cells[at] for cells in sample]) for at, title in enumerate(unique_titles(header))]
    values = [Counter(cells[at].strip() for cells in whole) for at in range(len(header))]
    return Layout(
        delimiter=delimiter,
        columns=columns,
        rows=len(records),
        unique_rows=len({tuple(cells) for cells in sample}) >= MOST * len(sample),
        group_by=pick_groups(columns, values),
        average_of=pick_measure(columns, values),
    )


def find_delimiter(text: str) -> str:
    top = text.lstrip("\r\n").splitlines()[:20]
    try:
        for delimiter in "\t;|,":  # the comma last: it alone is often part of a text or a number as well
            widths = {len(cells) for cells in csv.reader(top, delimiter=delimiter) if cells}
            if len(widths) == 1 and widths != {1}:
                return delimiter
        return csv.Sniffer().sniff("\n".join(top), delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def unique_titles(header: list[str]) -> list[str]:
    titles: list[str] = []
    for position, cell in enumerate(header, 1):
        title = cell.strip() or f"Column {position}"
        titles.append(f"{title} ({position})" if title in titles else title)
    return titles


def describe(title: str, cells: list[str]) -> Column:
    """Decide a column's type, and whether it must be filled, from what most of its cells are like."""
    filled = [cell for cell in cells if not is_blank(cell)]
    kind: Literal["integer", "number", "date", "text"] = "text"
    if not filled or any(re.fullmatch(r"\s*-?0\d+\s*", cell) for cell in filled):
        pass  # nothing to go by; or codes such as 00501, which as numbers would lose their zeros
    elif holds("number", filled):
        kind = "number" if any("." in cell for cell in filled) else "integer"
    elif holds("date", filled):
        kind = "date"
    return Column(name=title, type=kind, required=len(filled) >= MOST * max(len(cells), 1))


def is_blank(cell: str) -> bool:
    return cell.strip().casefold() in BLANKS


def holds(kind: str, cells: list[str]) -> bool:
    misfits_left = len(cells) - MOST * len(cells)
    for cell in cells:
        try:
            ADAPTERS[kind].validate_python(cell)
        except ValidationError:
            misfits_left -= 1
            if misfits_left < 0:
                return False
    return True


def pick_groups(columns: list[Column], values: list[Counter[str]]) -> int | None:
    """Return the text column with 2 to 12 values, not all different: by few blanks, then by many values."""
    fitting = [
        at
        for at, column in enumerate(columns)
        if column.type == "text" and 2 <= len(values[at]) <= 12 and max(values[at].values()) > 1
    ]
    return min(fitting, key=lambda at: (blanks_among(values[at]), -len(values[at])), default=None)


def pick_measure(columns: list[Column], values: list[Counter[str]]) -> int | None:
    """Return the number column that varies most, row numbers (every value once) aside."""
    fitting = [
        at
        for at, column in enumerate(columns)
        if column.type == "number" or (column.type == "integer" and max(values[at].values()) > 1)
    ]
    return max(fitting, key=lambda at: len(values[at]), default=None)


def blanks_among(values: Counter[str]) -> int:
    return sum(count for cell, count in values.items() if is_blank(cell))


def repeated_lines(records: list[Record]) -> dict[int, int]:
    """Return, for each record that says the same as an earlier one, both lines."""
    first: dict[tuple[str, ...], int] = {}
    return {line: at for line, cells in records if (at := first.setdefault(tuple(cells), line)) != line}


def as_date(cell: object) -> date:
    """Read 1990-01-31, 1/31/1990 (month first) or 31.1.1990."""
    text = str(cell).strip()
    if found := re.fullmatch(r"(\d\d?)([/.])(\d\d?)\2(\d{4})", text):
        first, mark, second, year = found.groups()
        month, day = (first, second) if mark == "/" else (second, first)
        return date(int(year), int(month), int(day))
    return date.fromisoformat(text)


TYPES: dict[str, Any] = {
    "integer": int,
    "number": FiniteFloat,
    "date": Annotated[date, BeforeValidator(as_date)],
    "text": str,
}
IN_WORDS = {"integer": "a whole number", "number": "a number", "date": "a date", "text": "a text"}
ADAPTERS: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(type_) for kind, type_ in TYPES.items()}


def build_row_model(layout: Layout) -> type[BaseModel]:
    """Return the pydantic model of a row. Fields are numbered: a title need not be a Python name."""
    fields: dict[str, Any] = {
        f"c{at}": (TYPES[column.type], ...) if column.required else (TYPES[column.type] | None, None)
        for at, column in enumerate(layout.columns)
    }
    return create_model("Row", **fields)


def check(
    records: list[Record], layout: Layout, row_model: type[BaseModel], repeats: dict[int, int]
) -> tuple[list[tuple[int, list[Any]]], list[Reject]]:
    """Sort records into rows to store (line, typed cells) and rejects, each with the first reason found."""
    good: list[tuple[int, list[Any]]] = []
    bad: list[Reject] = []
    width = len(layout.columns)
    for line, cells in records:
        if len(cells) != width:
            reason = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} instead of {width}"
            bad.append(Reject(line=line, kind="Wrong number of cells", reason=reason))
            continue
        if line in repeats:
            reason = f"Repeats line {repeats[line]}"
            bad.append(Reject(line=line, kind="Repeats an earlier line", reason=reason))
            continue
        filled = {f"c{at}": cell.strip() for at, cell in enumerate(cells) if not is_blank(cell)}
        try:
            row = row_model.model_validate(filled)
        except ValidationError as error:
            bad.append(explain(line, cells, layout, error))
        else:
            good.append((line, list(row.model_dump(mode="json").values())))
    return good, bad


def explain(line: int, cells: list[str], layout: Layout, error: ValidationError) -> Reject:
    first = error.errors(include_url=False)[0]
    at = int(str(first["loc"][0]).removeprefix("c"))
    title, cell = layout.columns[at].name, cells[at].strip()
    if first["type"] == "missing":
        kind = f"{title} is missing"
        return Reject(line=line, kind=kind, reason=f"{kind}: it says '{cell}'" if cell else kind)
    shown = cell if len(cell) <= 40 else f"{cell[:39]}…"
    what = IN_WORDS[layout.columns[at].type]
    return Reject(line=line, kind=f"{title} is not {what}", reason=f"{title}: '{shown}' is not {what}")
