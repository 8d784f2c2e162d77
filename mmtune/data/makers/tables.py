"""Read question-answer tables (xlsx, csv, tsv) and XTuner's `conversation` files as messages records.

A row or record that cannot become a record is reported with its reason, never dropped unseen.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmtune.data.formats import parse_record
from mmtune.data.image_values import IMAGE_MARK
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.data.table_records import FORMULA_ERRORS, opened_workbook
from mmtune.errors import DataError
from mmtune.lookup import nearest

MAX_CELL_CHARS = 1 << 26


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Attributes:
        question: name of the column of questions.
        answer: name of the column of answers.
        system: name of the column of system messages, if any.
        image: name of the column of image paths, if any.
        system_text: one system message for all rows.
    """

    question: str
    answer: str
    system: str | None = None
    image: str | None = None
    system_text: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that must be in the table."""
        return tuple(name for name in (self.question, self.answer, self.system, self.image) if name is not None)


class Converted(NamedTuple):
    """A row or record that was read: the record it became, or the reason why it did not.

    Attributes:
        line: the row of the table, the first one being 1, or the line of the file.
        record: a messages record, or None.
        reason: why there is no record; empty where there is one.
    """

    line: int
    record: dict[str, Any] | None
    reason: str = ""


def rows_to_records(path: Path, columns: Columns, *, sheet: str | None, encoding: str) -> Iterator[Converted]:
    """Yield a messages record for each row under the first one, which names the columns.

    Args:
        path: an .xlsx, .csv or .tsv file.
        columns: which column holds what.
        sheet: the sheet of a workbook; None takes the only one.
        encoding: of a .csv or .tsv file.

    Raises:
        DataError: the table cannot be read, or a column is not in it; the message has the nearest and all names.
    """
    rows = _xlsx_rows(path, sheet) if path.suffix.lower() in (".xlsx", ".xlsm") else _csv_rows(path, encoding)
    header = [_text(cell) for cell in next(rows, (0, []))[1]]
    for name in columns.names:
        if name not in header:
            known = ", ".join(cell for cell in header if cell)
            raise DataError(path, f"no column '{name}'.{nearest(name, header)} Columns: {known or 'none'}.")
        if header.count(name) > 1:
            raise DataError(path, f"{header.count(name)} columns are named '{name}'. Rename all but one.")
    for line, cells in rows:
        # Rows of a file may end early, and may have cells behind the last named column, which nobody asks for.
        values = dict(zip(header, [_text(cell) for cell in cells], strict=False))
        yield _checked(path, line, _row_reason(values, columns), _row_record(values, columns))


def _row_reason(values: dict[str, str], columns: Columns) -> str:
    if not any(values.values()):
        return "the row is empty"
    for what, name in (("question", columns.question), ("answer", columns.answer)):
        text = values.get(name, "")
        if not text:
            return f"no {what}"
        if text in FORMULA_ERRORS:
            return f"the {what} is the error {text}"
    return ""


def _row_record(values: dict[str, str], columns: Columns) -> dict[str, Any]:
    system = (values.get(columns.system, "") if columns.system else "") or columns.system_text
    image = values.get(columns.image, "") if columns.image else ""
    question = values.get(columns.question, "")
    if image and IMAGE_MARK not in question:
        question = f"{IMAGE_MARK}\n{question}"
    turns = [("system", system)] if system else []
    turns += [("user", question), ("assistant", values.get(columns.answer, ""))]
    record: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in turns]}
    return record | ({"images": [image]} if image else {})


def xtuner_to_records(path: Path) -> Iterator[Converted]:
    """Yield a messages record for each record of XTuner's format.

    That is `{"conversation": [{"system": ..., "input": ..., "output": ...}, ...]}`; `system` is optional and stands in
    the first turn.

    Raises:
        DataError: the file cannot be read.
    """
    for record in read_records(path):
        try:
            converted = _from_xtuner(record.value)
        except ValueError as error:
            yield Converted(record.line, None, str(error))
        else:
            yield _checked(path, record.line, "", converted)


def _from_xtuner(value: Any) -> dict[str, Any]:
    turns = value.get("conversation") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not turns:
        raise ValueError("no list 'conversation' of turns with 'input' and 'output'")
    messages = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise ValueError(f"turn {number} is no object with 'input' and 'output'")
        for key in ("system", "input", "output"):
            text = turn.get(key) or ""
            if not isinstance(text, str):
                raise ValueError(f"turn {number}: '{key}' is no text")
            if not text.strip() and key != "system":
                raise ValueError(f"turn {number}: no '{key}'")
            if key == "system" and (not text or (number > 1 and text == (turns[0].get("system") or ""))):
                continue
            if key == "system" and number > 1:
                raise ValueError(f"turn {number} has another system message than turn 1")
            role = {"system": "system", "input": "user", "output": "assistant"}[key]
            messages.append({"role": role, "content": text})
    record = {"messages": messages}
    return {"id": value["id"], **record} if "id" in value else record


def _checked(path: Path, line: int, reason: str, record: dict[str, Any]) -> Converted:
    """Hold a record to the rules of its format."""
    if not reason:
        try:
            parse_record(Record(record, path, line), "messages")
        except DataError as error:
            reason = error.message
    return Converted(line, None if reason else record, reason)


def _text(cell: object) -> str:
    """Return a cell as text: 3.0 as 3, an empty cell as an empty text."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _csv_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_CELL_CHARS)
    try:
        with path.open(encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding, newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            yield from enumerate(reader, 1)
    except OSError as error:
        raise DataError(path, f"cannot be opened: {error.strerror}. Mend the path.") from None
    except UnicodeDecodeError:
        mend = "Save it as UTF-8, or name its encoding, such as --encoding gb18030."
        raise DataError(path, f"is not {encoding}. {mend}") from None
    except LookupError:
        raise DataError(path, f"unknown encoding '{encoding}'. Known are utf-8, gb18030, cp1252 and more.") from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}", f"broken table: {error}. Mend the quotes there.") from None


def _xlsx_rows(path: Path, sheet: str | None) -> Iterator[tuple[int, tuple[object, ...]]]:
    try:
        with opened_workbook(path, "is no Excel workbook (.xlsx). Save it as .xlsx or .csv.") as book:
            names = [worksheet.title for worksheet in book.worksheets]
            if sheet is None and len(names) > 1:
                raise DataError(path, f"has {len(names)} sheets: {', '.join(names)}. Name one with --sheet.")
            if sheet is not None and sheet not in names:
                raise DataError(path, f"no sheet '{sheet}'.{nearest(sheet, names)} Sheets: {', '.join(names)}.")
            yield from enumerate(book[sheet or names[0]].iter_rows(values_only=True), 1)
    except OSError as error:
        raise DataError(path, f"cannot be opened: {error.strerror}. Mend the path.") from None
