"""Texts of models and people as Markdown that shows them as they are: none of it becomes markup."""

import os
import re
from pathlib import Path
from urllib.parse import quote


def inline(text: str) -> str:
    r"""Return a text as one line of Markdown, fit for headings, lists and cells of tables.

    >>> inline("<b>1*2</b> | x\ny")
    '&lt;b>1\\*2&lt;/b> \\| x<br>y'
    """
    escaped = re.sub(r"([\\`*_\[\]|#$~])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")
    lines = re.split(r"\r\n|[\n\r\u2028\u2029]", escaped)
    return "<br>".join("".join(sign for sign in line if sign.isprintable()) for line in lines)


def image(path: str, folder: Path) -> str:
    """Return an image as Markdown, its path as it is from the folder of the page."""
    try:
        relative = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        relative = Path(path).resolve().as_posix()
    return f"![{inline(path)}]({quote(relative)})"
