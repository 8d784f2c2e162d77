"""The record: one entry of a data source with its place, what table cells become, and its JSON line. Reads nothing."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

MAX_RECORD_BYTES = 32 << 20
"""The longest record that is read, in bytes: what is beyond it is a broken file, or belongs in an image file."""


@dataclass(frozen=True)
class Record:
    """One record of a data source.

    Attributes:
        value: what it holds, a dict where all is well; None with a problem.
        path: the file (of a source of several files, the shard) it came from.
        line: the line on which it starts; of tables the row, of tar files the sample; counted from 1.
        problem: why it cannot be read, and the mend, where the source goes on behind it.
    """

    value: Any
    path: Path
    line: int
    problem: str = ""

    @property
    def place(self) -> str:
        """`file:line`, the place that error messages name."""
        return f"{self.path}:{self.line}"


def cell_value(value: Any) -> Any:
    """Return what a table's cell becomes in a record: numbers are text, an empty cell is None.

    A whole number is written without a point, since pandas makes floats of whole numbers where a cell is empty.

    >>> [cell_value(value) for value in (3, 3.0, 2.5, float("nan"), "", "3.0", None, True)]
    ['3', '3', '2.5', None, None, '3.0', None, True]
    """
    if value is None or value == "":
        return None
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    return value


def to_line(value: Any) -> str:
    """Return a JSON value as one line, in plain characters where UTF-8 can hold them."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can spell
        return json.dumps(value)
    return text
