"""The demonstration's job: how it reads files, what it makes of their columns, which rows it refuses and why."""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from durably import Progress, RunFailedError, create_durably

DEMO = Path(__file__).parent.parent / "web" / "demo"
SAMPLE = DEMO / "birdstrikes.csv"


sys.path.insert(0, str(DEMO))  # as in the page, where the two files lie in one folder
csv_rows: Any = importlib.import_module("csv_rows")
jobs: Any = importlib.import_module("jobs")


class Transaction:
    """What the job's SQL needs of a transaction, on a database of the test's own."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        return self.connection.execute(sql, params).fetchall()

    def rows(self) -> list[Any]:
        return self.connection.execute("SELECT * FROM imported_rows ORDER BY line").fetchall()


def sniff(text: str) -> Any:
    return csv_rows.sniff(text.encode(), "test.csv")


def check(text: str) -> tuple[list[Any], list[Any]]:
    """Good rows and rejects of a whole file."""
    layout = sniff(text)
    records = csv_rows.parse(text, layout.delimiter)[1:]
    repeats = csv_rows.repeated_lines(records) if layout.unique_rows else {}
    good, rejects = csv_rows.check(records, layout, csv_rows.build_row_model(layout), repeats)
    return good, rejects


def reasons(text: str) -> list[tuple[int, str]]:
    return [(reject["line"], reject["reason"]) for reject in check(text)[1]]


def rows_of(cells: list[str]) -> str:
    """A file of one column beside a row number, which keeps its rows different."""
    return "id,value\n" + "".join(f"r{at},{cell}\n" for at, cell in enumerate(cells))


# -- the shipped data ---------------------------------------------------------------------------------------


def test_the_sample_has_five_thousand_rows_which_are_fifty_batches() -> None:
    layout = csv_rows.sniff(SAMPLE.read_bytes(), SAMPLE.name)

    assert layout.rows == 5_000
    assert layout.rows / jobs.BATCH_ROWS == 50


def test_the_sample_s_columns_are_what_a_reader_would_say_they_are() -> None:
    layout = csv_rows.sniff(SAMPLE.read_bytes(), SAMPLE.name)
    columns = {column.name: (column.type, column.required) for column in layout.columns}

    assert layout.delimiter == ","
    assert columns["Airport Name"] == ("text", True)
    assert columns["Flight Date"] == ("date", True)
    assert columns["Cost Total $"] == ("integer", True)
    assert columns["Speed IAS in knots"] == ("integer", False), "one in eight is empty: not a mistake"
    assert layout.columns[layout.group_by].name == "Phase of flight"
    assert layout.columns[layout.average_of].name == "Speed IAS in knots"


def test_the_sample_s_rejects_are_the_ones_that_its_data_sheet_names() -> None:
    good, rejects = check(SAMPLE.read_text(encoding="utf-8"))
    kinds = [reject["kind"] for reject in rejects]

    assert len(good) == 4_946
    assert kinds.count("Aircraft Airline Operator is missing") == 46
    assert kinds.count("Repeats an earlier line") == 8
    assert len(rejects) == 54
    assert f"stores {len(good):,} rows and rejects {len(rejects)}" in (DEMO / "DATA.md").read_text("utf-8")


def test_a_reject_s_line_is_the_one_that_an_editor_shows() -> None:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()

    for reject in check(SAMPLE.read_text(encoding="utf-8"))[1]:
        line = lines[reject["line"] - 1]
        assert "UNKNOWN" in line or lines.index(line) + 1 < reject["line"]


def test_stored_rows_are_typed_json() -> None:
    good, _ = check(SAMPLE.read_text(encoding="utf-8"))
    line, cells = good[0]

    assert line == 2
    assert cells[3:5] == ["1990-01-08", "MILITARY"]
    assert cells[-1] == 300
    assert json.loads(json.dumps(cells)) == cells


# -- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_file_reads_the_same_in_every_usual_encoding(encoding: str) -> None:
    assert csv_rows.decode("city,été\nZürich,1".encode(encoding), "a.csv") == "city,été\nZürich,1"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b" \r\n\r\n", "\ufeff\n".encode("utf-16-le")])
def test_an_empty_file_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a\.csv is empty\.$"):
        csv_rows.decode(data, "a.csv")


@pytest.mark.parametrize("data", [b"PK\x03\x04\x00\x00", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x8d\x81"])
def test_a_spreadsheet_or_a_picture_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a text file"):
        csv_rows.decode(data, "a.xlsx")


def test_a_header_alone_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="has a header but no rows"):
        sniff("a,b,c\n\n")


def test_a_quoted_cell_over_several_lines_is_one_record_and_the_lines_are_counted_on() -> None:
    records = csv_rows.parse('a,b\n\n1,"two\nlines"\r\n   \n2,x\n', ",")

    assert records == [(1, ["a", "b"]), (3, ["1", "two\nlines"]), (6, ["2", "x"])]


def test_what_no_csv_reader_takes_is_named_by_its_line() -> None:
    with pytest.raises(ValueError, match=r"^Line 2 cannot be read as CSV: .*\.$"):
        csv_rows.parse('a,b\n1,"' + "x" * 200_000, ",")


@pytest.mark.parametrize(
    ("delimiter", "cells"),
    [
        (",", ["name", "size"]),
        ("\t", ["name", "size, in cm"]),
        (";", ["name", "size, in cm"]),
        ("|", ["name", "size"]),
    ],
)
def test_the_delimiter_is_found(delimiter: str, cells: list[str]) -> None:
    text = "\n".join([delimiter.join(cells), *(delimiter.join([f"n{at}", "1,5"]) for at in range(9))])
    if delimiter == ",":
        text = text.replace("1,5", '"1,5"')

    layout = sniff(text)

    assert layout.delimiter == delimiter
    assert [column.name for column in layout.columns] == cells


def test_a_file_of_one_column_needs_no_delimiter() -> None:
    layout = sniff("colour\nred\ngreen\nblue\n")

    assert [column.name for column in layout.columns] == ["colour"]
    assert layout.rows == 3


def test_columns_without_a_title_and_with_the_same_one_can_be_told_apart() -> None:
    layout = sniff("a,,a,\n1,2,3,4\n")

    assert [column.name for column in layout.columns] == ["a", "Column 2", "a (3)", "Column 4"]


# -- what a column is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "type_"),
    [
        (["1", "-20", " 300 "], "integer"),
        (["1", "2.5", "-3e2"], "number"),
        (["1990-01-31", "2024-02-29"], "date"),
        (["1/31/1990", "12/1/2024"], "date"),
        (["31.1.1990", "01.12.2024"], "date"),
        (["red", "12"], "text"),
        (["00501", "94103"], "text"),
        (["nan", "inf"], "text"),
        (["", "?"], "text"),
    ],
)
def test_a_column_s_type_is_the_narrowest_that_fits(cells: list[str], type_: str) -> None:
    assert csv_rows.describe("c", cells).type == type_


def test_a_type_holds_until_more_than_one_cell_in_twenty_misfits() -> None:
    assert csv_rows.describe("c", ["7"] * 95 + ["many"] * 5).type == "integer"
    assert csv_rows.describe("c", ["7"] * 94 + ["many"] * 6).type == "text"


def test_a_column_is_required_if_nineteen_in_twenty_cells_are_filled() -> None:
    assert csv_rows.describe("c", ["7"] * 95 + [""] * 5).required
    assert not csv_rows.describe("c", ["7"] * 94 + ["", "n/a", "NULL", "-", "?", " unknown "]).required


def test_none_is_an_answer_and_not_a_blank() -> None:
    """A damage of "None" means that there was none; taking it for a blank would refuse nine strikes in ten."""
    assert not csv_rows.is_blank("None")


# -- why a row is refused -----------------------------------------------------------------------------------


def test_a_missing_cell_is_said_to_be_missing() -> None:
    text = rows_of(["7"] * 98 + ["", "N/A"])

    assert reasons(text) == [(100, "value is missing"), (101, "value is missing: it says 'N/A'")]


@pytest.mark.parametrize(
    ("usual", "odd", "reason"),
    [
        ("1990-12-31", "1990-13-45", "value: '1990-13-45' is not a date"),
        ("12/31/1990", "31/12/1990", "value: '31/12/1990' is not a date"),
        ("7", "7 or 8", "value: '7 or 8' is not a whole number"),
        ("7.5", "about 7", "value: 'about 7' is not a number"),
        ("7", "x" * 50, f"value: '{'x' * 39}…' is not a whole number"),
    ],
)
def test_a_cell_that_does_not_fit_its_column_is_quoted(usual: str, odd: str, reason: str) -> None:
    assert reasons(rows_of([usual] * 99 + [odd])) == [(101, reason)]


def test_a_row_with_too_few_or_too_many_cells_is_refused_with_their_number() -> None:
    text = "a,b,c\n" + "1,2,3\n" * 2 + "1,2\n" + "1\n" + "1,2,3,4\n"

    assert reasons(text) == [
        (4, "2 cells instead of 3"),
        (5, "1 cell instead of 3"),
        (6, "4 cells instead of 3"),
    ]


def test_a_row_that_repeats_an_earlier_one_is_refused() -> None:
    text = rows_of([str(at) for at in range(100)]) + "r7,7\n"

    assert reasons(text) == [(102, "Repeats line 9")]


def test_where_rows_are_often_the_same_repeating_is_no_fault() -> None:
    """A file of measurements in which the same value comes again and again is as it should be."""
    good, rejects = check("colour,size\n" + "red,1\nblue,2\n" * 20)

    assert len(good) == 40
    assert rejects == []


def test_rejects_of_one_column_and_kind_are_counted_together() -> None:
    _, rejects = check(rows_of(["7"] * 98 + ["few", "many"]))

    assert {reject["kind"] for reject in rejects} == {"value is not a whole number"}


def test_a_title_need_not_be_a_python_name() -> None:
    good, rejects = check("class,model_config,_id\nx,y,z\nu,v,w\n")

    assert [cells for _, cells in good] == [["x", "y", "z"], ["u", "v", "w"]]
    assert rejects == []


# -- storing and summing up ---------------------------------------------------------------------------------


def test_storing_a_batch_again_changes_nothing() -> None:
    tx = Transaction()
    rows = [(2, ["été", 1]), (3, [None, 2.5])]

    for _ in range(2):
        asyncio.run(jobs.store_rows(tx, "run-1", rows))

        assert tx.rows() == [("run-1", 2, '["été",1]'), ("run-1", 3, "[null,2.5]")]


def test_the_summary_counts_its_own_import_only() -> None:
    tx = Transaction()
    text = "phase,speed\n" + "climb,100\nclimb,200\nlanding,50\n" * 5
    good, rejects = check(text)
    asyncio.run(jobs.store_rows(tx, "run-1", good))
    asyncio.run(jobs.store_rows(tx, "run-2", good))

    report = asyncio.run(jobs.summarise(tx, "run-1", "flights.csv", sniff(text), rejects))

    assert (report.rows, report.stored, report.rejected) == (15, 15, 0)
    assert (report.grouped_by, report.average_of) == ("phase", "speed")
    assert [(group.label, group.count, group.average) for group in report.groups] == [
        ("climb", 10, 150.0),
        ("landing", 5, 50.0),
    ]


def test_a_summary_needs_neither_groups_nor_numbers() -> None:
    tx = Transaction()
    text = "name\n" + "".join(f"n{at}\n" for at in range(20))
    asyncio.run(jobs.store_rows(tx, "run-1", check(text)[0]))

    report = asyncio.run(jobs.summarise(tx, "run-1", "names.csv", sniff(text), []))

    assert report.stored == 20
    assert report.grouped_by is None
    assert report.groups == []


# -- the whole job on CPython -------------------------------------------------------------------------------


def test_the_sample_is_imported_in_fifty_three_steps(tmp_path: Path) -> None:
    async def scenario() -> None:
        durably = create_durably(str(tmp_path / "test.sqlite3"), jobs=[jobs.import_csv])
        await durably.init()
        try:
            started = await durably.jobs["import-csv"].trigger({"source": str(SAMPLE), "name": SAMPLE.name})
            run = await durably.wait_for_run(started.id, timeout=30)
            steps = await durably.get_steps(run.id)
        finally:
            await durably.stop()

        assert (run.output.rows, run.output.stored, run.output.rejected) == (5_000, 4_946, 54)
        assert [step.name for step in steps][:3] == ["read", "sniff", "batch-001"]
        assert [step.name for step in steps][-2:] == ["batch-050", "summary"]
        assert steps[0].output == SAMPLE.read_bytes()
        assert run.progress == Progress(50, 50, "5,000 of 5,000 rows")

    asyncio.run(scenario())


def test_an_import_that_was_stopped_goes_on_although_its_file_is_gone(tmp_path: Path) -> None:
    """The bytes are the first checkpoint: what happens to the file later must not matter."""
    source = tmp_path / "test.csv"
    source.write_text(rows_of([str(at) for at in range(500)]), encoding="utf-8")

    async def scenario() -> None:
        first = create_durably(str(tmp_path / "test.sqlite3"), jobs=[jobs.import_csv])
        await first.init()
        request = {"source": str(source), "name": "test.csv", "pause": 60}
        stored = asyncio.Event()
        first.on("step:complete", lambda event: stored.set() if event.step_name == "batch-001" else None)
        started = await first.jobs["import-csv"].trigger(request)
        await asyncio.wait_for(stored.wait(), timeout=30)
        await first.stop(timeout=0)
        source.unlink()

        second = create_durably(str(tmp_path / "test.sqlite3"), jobs=[jobs.import_csv])
        logged: asyncio.Queue[str] = asyncio.Queue()
        second.on("log:write", lambda event: logged.put_nowait(event.message))
        await second.init()
        try:
            message = await asyncio.wait_for(logged.get(), timeout=30)
            steps = await second.get_steps(started.id)
        finally:
            await second.stop(timeout=0)

        assert message == "Batch 2: 100 stored, 0 rejected", "a batch that is done is not told of again"
        assert [step.name for step in steps] == ["read", "sniff", "batch-001", "batch-002"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "test.csv is empty."),
        ("a,b\n", "test.csv has a header but no rows."),
        (None, "test.csv could not be opened: No such file or directory."),
    ],
)
def test_a_file_that_cannot_be_imported_fails_the_run_with_a_sentence(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    source = tmp_path / "test.csv"
    if text is not None:
        source.write_text(text, encoding="utf-8")

    async def scenario() -> None:
        durably = create_durably(str(tmp_path / "test.sqlite3"), jobs=[jobs.import_csv])
        await durably.init()
        try:
            started = await durably.jobs["import-csv"].trigger({"source": str(source), "name": "test.csv"})
            with pytest.raises(RunFailedError) as failure:
                await durably.wait_for_run(started.id, timeout=30)
        finally:
            await durably.stop()

        assert failure.value.run.error is not None
        assert failure.value.run.error.endswith(sentence)

    asyncio.run(scenario())
