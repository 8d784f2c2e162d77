"""Writes docs/reference/verbs.md from the parsers of the verbs, and formats.md from the functions of the formats.

Run `python docs/generate_reference.py` after a change of one of these; a test compares the files with what this makes.
Beside it `generate_config.py` writes the keys of a config, and `generate_library.py` the public names of Python.
"""

import argparse
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtune.cli import VERB_NAMES, build_parser
from mmtune.conversation import Conversation, Document
from mmtune.data.formats import FORMATS, KEYS_OF_FORMATS, parse_record
from mmtune.data.record import Record

DOCS = Path(__file__).parent
FOLDER = DOCS / "reference"
EVERYWHERE = ("--help", "--traceback", "--log-level")
NOTE = "Generated from the code by `docs/generate_reference.py`; do not edit.\n"

# ---------------------------------------------------------------- verbs


def render_verbs() -> str:
    """Return the page of all verbs and their options."""
    subparsers = _subparsers(build_parser())
    parts = ["# Verbs\n", NOTE, "```\nmmtune VERB ... [--traceback] [--log-level debug|info|warning|error]\n```\n"]
    parts.append("`--traceback` shows where in the code an error arose. A mistake is one line and exit code 2.")
    parts.append("A value in brackets behind a meaning is the default. `--help` behind a verb shows the same.\n")
    summaries = {action.dest: action.help or "" for action in subparsers._choices_actions}
    parts.append(_table(("verb", ""), [(f"[`{verb}`](#mmtune-{verb})", summaries[verb]) for verb in VERB_NAMES]))
    for verb in VERB_NAMES:
        parts += _verb(f"mmtune {verb}", subparsers.choices[verb], 2)
    return "\n".join(parts)


def _subparsers(parser: argparse.ArgumentParser) -> Any:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def _verb(name: str, parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    inner = _subparsers(parser)
    given = [action for action in parser._actions if action is not inner and not _is_everywhere(action)]
    yield f"{'#' * level} {name}\n"
    yield f"{_text(parser.description)}\n"
    if inner is None:
        words = [name, *(_place(action) for action in given if not action.option_strings)]
        words += [_place(action) for action in given if action.option_strings and action.required]
        yield f"```\n{' '.join(words)}{' [options]' if any(a.option_strings for a in given) else ''}\n```\n"
    rows = [(_label(action), _text(action.help)) for action in given]
    if rows:
        yield _table(("argument", "meaning"), rows)
    before, _, example = (parser.epilog or "").partition("example:")
    if before.strip():
        yield f"{_text(before)}\n"
    if inner is None:
        yield f"```sh\n{textwrap.dedent(example).strip() if example[:1] == chr(10) else example.strip()}\n```\n"
    for action, child in (inner.choices if inner else {}).items():
        yield from _verb(f"{name} {action}", child, level + 1)


def _is_everywhere(action: argparse.Action) -> bool:
    return any(option in EVERYWHERE for option in action.option_strings)


def _place(action: argparse.Action) -> str:
    """Return where a word stands in a command: `RUN`, `[key ...]`, `--data FOLDER`."""
    word = _metavar(action)
    if action.option_strings:
        return f"{action.option_strings[-1]} {word}".strip()
    return {"*": f"[{word} ...]", "+": f"{word} [{word} ...]", "?": f"[{word}]"}.get(str(action.nargs), word)


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    word = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return f"{word} [{word} ...]" if action.nargs == "+" and action.option_strings else word


def _label(action: argparse.Action) -> str:
    words = (
        f"{', '.join(action.option_strings)} {_metavar(action)}".strip() if action.option_strings else _place(action)
    )
    return f"`{words}`"


def _text(text: str | None) -> str:
    """Return a text of argparse as one paragraph of Markdown."""
    one_line = " ".join((text or "").replace("%%", "%").split())
    return re.sub(r"(?<!`)<(\w+)>(?!`)", r"`<\1>`", one_line).replace("*", r"\*")


# ---------------------------------------------------------------- formats


def render_formats() -> str:
    """Return the page of all formats: its keys, an example record, and what that becomes."""
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"^### (\w+)\n\n```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    parts = ["# Formats of records\n", NOTE]
    parts.append(
        "What a record of each format looks like and what it becomes. How sources are read, which format is taken"
    )
    parts.append("where several fit, and the rules of every dialogue: [data.md](../data.md).\n")
    for name, function in FORMATS.items():
        keys = [" and ".join(f"`{key}`" for key in keys) for each, keys in KEYS_OF_FORMATS if each == name]
        parts.append(f"## {name}\n\n{inspect.getdoc(function) or ''}\n")
        if keys:
            parts.append(f"Known by {', or by '.join(keys)}.\n")
        parts.append(f"```json\n{examples[name].strip()}\n```\n\nbecomes\n")
        parts.append(_conversation(parse_record(Record(json.loads(examples[name]), name, 1), name)))
    return "\n".join(parts)


def _conversation(parsed: Conversation | Document) -> str:
    if isinstance(parsed, Document):
        return f"{_table(('', 'text'), [('trained', _content((parsed.text,)))])}"
    rows = []
    for message in parsed.messages:
        calls = [f"call of `{call.name}` with `{call.arguments}`" for call in message.calls]
        trained = "trained" if message.role == "assistant" and message.supervised else ""
        rows.append((message.role, "<br>".join([*filter(None, [_content(message.content)]), *calls]), trained))
    return _table(("role", "content", ""), rows)


def _content(content: tuple[Any, ...]) -> str:
    return " ".join(
        f"`{json.dumps(part, ensure_ascii=False)}`" if isinstance(part, str) else f"[image `{part.path}`]"
        for part in content
    )


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return (
        "\n".join(head + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]) + "\n"
    )


PAGES = {"verbs.md": render_verbs, "formats.md": render_formats}

if __name__ == "__main__":
    for file_name, render in PAGES.items():
        (FOLDER / file_name).write_text(render(), encoding="utf-8")
        print(f"wrote {FOLDER / file_name}")
