import csv
import tracemalloc
from datetime import date, datetime

import openpyxl
import pytest
from reading import error_of

from mmtune.data.records import read_records


def found(path):
    return [(record.line, record.problem or record.value) for record in read_records(path)]


def write_sheets(path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("data.csv", ","), ("data.TSV", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_of_separated_files_become_records(tmp_path, name, delimiter, encoding):
    path = tmp_path / name
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["image", " question ", "回答"], ["a.jpg", 'Say "x",\tor\ny?', "眼"], ["", "2 + 2?", "4.0"]])
    first = {"image": "a.jpg", "question": 'Say "x",\tor\ny?', "回答": "眼"}
    assert found(path) == [(1, first), (2, {"image": None, "question": "2 + 2?", "回答": "4.0"})]
    assert next(iter(read_records(path))).place == f"{path}:1"


def test_bad_rows_are_problems_and_the_table_goes_on(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"q,a\n1,2\n1,2,3\n1\n\n,\ncaf\xe9,x\n#REF!,x\n7,8\n")
    cells = "cells, the header has 2. Put a cell that holds separators in quotes."
    assert found(path) == [
        (1, {"q": "1", "a": "2"}),
        (2, f"the row has 3 {cells}"),
        (3, f"the row has 1 {cells}"),
        (6, "column 'q' holds bytes that are not UTF-8. Save the file as UTF-8."),
        (7, "column 'q' holds #REF!, the error of a formula. Mend the cell."),
        (8, {"q": "7", "a": "8"}),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the table has no header. Its first row names the columns."),
        (",,\n1,2,3\n", "the table has no header"),
        ("q,a\n", "the table has a header and no rows"),
        ("q,a,q\n1,2,3\n", "has two columns 'q'. Rename one of them."),
        ("q;a\n1;2\n", "its cells are separated by ';'. Save it with commas."),
        ('q,a\n1,2\n1,"2\n3,4\n', "data.csv:4: broken table: unexpected end of data. Mend the quotes"),
        ('q,a\n"1"x,2\n', "data.csv:2: broken table: ',' expected after '\"'"),
    ],
)
def test_broken_tables_say_why(tmp_path, text, words):
    path = tmp_path / "data.csv"
    path.write_text(text)
    assert words in error_of(path)


def test_a_header_that_is_not_utf8_is_an_error(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes("问题,回答\n1,2\n".encode("gbk"))
    assert "the header holds bytes that are not UTF-8" in error_of(path)


def test_a_long_table_is_streamed_and_a_long_cell_is_read(tmp_path):
    path = tmp_path / "data.csv"
    with path.open("w") as file:
        file.write("q,a\n" + f"{'x' * 1_000_000},y\n")
        file.writelines(f"{'x' * 1000},{number}\n" for number in range(20_000))
    tracemalloc.start()
    assert sum(len(record.value["q"]) for record in read_records(path)) == 21_000_000
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_rows_of_a_workbook_become_records(tmp_path):
    rows = [
        ["question", "answer", None],
        ["2 + 2?", 4],
        ["half?", 0.5],
        [None, None],
        ["day?", date(2024, 5, 1), None],
        ["when?", datetime(2024, 5, 1, 12, 30)],
        ["true?", True],
        ["眼?", 3.0],
        ["open?"],
        ["more", "than", "asked"],
        ["bad", "#N/A"],
    ]
    path = write_sheets(tmp_path / "data.xlsx", rows, [])
    answers = [(1, "4"), (2, "0.5"), (4, "2024-05-01 00:00:00"), (5, "2024-05-01 12:30:00"), (6, "TRUE"), (7, "3")]
    records = found(path)
    assert [(line, value["answer"]) for line, value in records[:6]] == answers
    assert records[6:] == [
        (8, {"question": "open?", "answer": None}),
        (9, "the row has 3 cells, the header has 2. Put a cell that holds separators in quotes."),
        (10, "column 'answer' holds #N/A, the error of a formula. Mend the cell."),
    ]


def test_workbooks_that_cannot_be_read_say_why(tmp_path):
    two = write_sheets(tmp_path / "two.xlsx", [["q"], ["1"]], [["q"], ["2"]])
    assert "has 2 filled sheets (Sheet 1, Sheet 2). Keep one sheet a file." in error_of(two)
    assert "the table has no header" in error_of(write_sheets(tmp_path / "empty.xlsx", []))
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 broken")
    assert "cannot be read as an Excel workbook. Save it again as .xlsx." in error_of(tmp_path / "broken.xlsx")
