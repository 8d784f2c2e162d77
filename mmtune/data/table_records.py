"""Records of tables with a header row: CSV, TSV and Excel workbooks. Knows no format of conversation."""

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from mmtune.data.extras import import_extra
from mmtune.data.record import MAX_RECORD_BYTES, Record, cell_value
from mmtune.errors import DataError

FORMULA_ERRORS = {"#REF!", "#N/A", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"}
_BROKEN_BYTE = re.compile("[\udc80-\udcff]")


def read_csv(path: Path) -> Iterator[Record]:
    """Yield the rows of a comma-separated file as dicts by header name; row 1 is the one below the header.

    Args:
        path: the file, in UTF-8.

    Raises:
        DataError: the file is empty, its header is malformed, or a quote in it never closes.
        OSError: the file cannot be opened.
    """
    yield from _separated_rows(path, ",")


def read_tsv(path: Path) -> Iterator[Record]:
    """Yield the rows of a tab-separated file as `read_csv` does; cells may be quoted as Excel does it."""
    yield from _separated_rows(path, "\t")


def _separated_rows(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    # Bytes that are not UTF-8 come through as half surrogates, so that the row that holds them can be named.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if delimiter == "," and len(header) == 1 and ";" in header[0]:
                raise DataError(path, "its cells are separated by ';'. Save it with commas.")
            yield from _rows(header, reader, path)
        except csv.Error as error:
            message = f"broken table: {error}. Mend the quotes: a quote inside a quoted cell is doubled."
            raise DataError(f"{path}:{reader.line_num}", message) from None


def read_xlsx(path: Path) -> Iterator[Record]:
    """Yield the rows of the one sheet of an Excel workbook as dicts by header name; row 1 is below the header.

    Formulas count as the value that Excel stored last.

    Raises:
        DataError: openpyxl is missing, or the file is no workbook, empty or of several filled sheets.
        OSError: the file cannot be opened.
    """
    with opened_workbook(path, "cannot be read as an Excel workbook. Save it again as .xlsx.") as workbook:
        sheets = [sheet for sheet in workbook.worksheets if _is_filled(sheet)]
        if len(sheets) > 1:
            names = ", ".join(sheet.title for sheet in sheets)
            raise DataError(path, f"has {len(sheets)} filled sheets ({names}). Keep one sheet a file.")
        cells = (sheet.iter_rows(values_only=True) for sheet in sheets)
        rows = ([_shown(cell) for cell in row] for row in next(cells, iter(())))
        header = next(rows, [])
        while header and not header[-1]:
            header.pop()
        yield from _rows(header, (_of_length(row, len(header)) for row in rows), path)


@contextmanager
def opened_workbook(path: Path, problem: str) -> Iterator[Any]:
    """Open an Excel workbook of openpyxl for reading: values, not formulas.

    Args:
        path: the file.
        problem: the message where it is no workbook.

    Raises:
        DataError: openpyxl is missing, or the file is no workbook.
        OSError: the file cannot be opened.
    """
    openpyxl = import_extra("openpyxl", path)
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, openpyxl.utils.exceptions.InvalidFileException):
        raise DataError(path, problem) from None
    try:
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # what the file says of its own size is often wrong, and rows would be lost
        yield workbook
    finally:
        workbook.close()


def _is_filled(sheet: Any) -> bool:
    return any(cell is not None for row in sheet.iter_rows(max_row=10, values_only=True) for cell in row)


def _shown(value: Any) -> str:
    """A cell as Excel shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return cell_value(value) or ""


def _of_length(row: list[str], length: int) -> list[str]:
    """A row without empty cells behind the header's end, and with those that the file leaves out."""
    while len(row) > length and not row[-1]:
        row.pop()
    return row + [""] * (length - len(row))


def _rows(header: list[str], rows: Iterable[list[str]], path: Path) -> Iterator[Record]:
    names = [name.strip() for name in header]
    if not any(names):
        raise DataError(path, "the table has no header. Its first row names the columns.")
    if any(_has_broken_bytes(name) for name in names):
        raise DataError(path, "the header holds bytes that are not UTF-8. Save the file as UTF-8.")
    doubled = [name for name, count in Counter(names).items() if name and count > 1]
    if doubled:
        raise DataError(path, f"has two columns '{doubled[0]}'. Rename one of them.")
    number = 0
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        if problem := _problem(row, names):
            yield Record(None, path, number, problem)
        else:
            yield Record({name: cell_value(cell) for name, cell in zip(names, row, strict=True)}, path, number)
    if not number:
        raise DataError(path, "the table has a header and no rows. It needs at least one record.")


def _problem(row: list[str], names: list[str]) -> str:
    if len(row) != len(names):
        return f"the row has {len(row)} cells, the header has {len(names)}. Put a cell that holds separators in quotes."
    for name, cell in zip(names, row, strict=True):
        if _has_broken_bytes(cell):
            return f"column '{name}' holds bytes that are not UTF-8. Save the file as UTF-8."
        if cell in FORMULA_ERRORS:
            return f"column '{name}' holds {cell}, the error of a formula. Mend the cell."
    return ""


def _has_broken_bytes(text: str) -> bool:
    return not text.isascii() and _BROKEN_BYTE.search(text) is not None
