"""Texts of models and people as Markdown that shows them as they are: none of it becomes markup."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote


def inline(text: str) -> str:
    r"""Return a text as one line of Markdown, fit for headings, lists and cells of tables.

    >>> inline("<b>1*2</b> | x\ny")
    '&lt;b>1\\*2&lt;/b> \\| x<br>y'
    """
    escaped = re.sub(r"([\\`*_\[\]|#$~])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")
    lines = re.split(r"\r\n|[\n\r\u2028\u2029]", escaped)
    return "<br>".join("".join(sign for sign in line if sign.isprintable()) for line in lines)


def table(titles: Sequence[Any], rows: Sequence[Sequence[Any]], *, right: Collection[int] = ()) -> str:
    r"""Return a table whose cells are `inline` texts; nothing where there is no row.

    Args:
        titles: of the columns.
        rows: cells, as many as there are titles.
        right: columns, from 0, whose cells stand at the right.

    >>> print(table(["step", "answer"], [[10, "a|b"]], right=[0]))
    | step | answer |
    | ---: | --- |
    | 10 | a\|b |
    """
    if not rows:
        return ""
    head, *others = ([inline(str(cell)) for cell in row] for row in (titles, *rows))
    rule = ["---:" if column in right else "---" for column in range(len(titles))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *others))


def image(path: str, folder: Path) -> str:
    """Return an image as Markdown, its path as it is from the folder of the page."""
    try:
        relative = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        relative = Path(path).resolve().as_posix()
    return f"![{inline(path)}]({quote(relative)})"
