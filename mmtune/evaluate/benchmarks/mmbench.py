"""MMBench (Liu et al. 2023, arXiv:2307.06281), English and Chinese: options in every rotation, one TSV file."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.conversation import ImageSlot
from mmtune.data.record import Record
from mmtune.data.table_records import read_tsv
from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import LETTERS, Item, Score, share, shares_by_group
from mmtune.evaluate.benchmarks.choices import asked_with_options, choice_credit
from mmtune.evaluate.benchmarks.files import LAYOUTS, checked, find_files

ROTATION = 1_000_000
"""What the published files add to a question's index for each rotation of its options."""

LONGEST_INDEX = 64
"""A cell of the column `image` that is no longer names the row that holds the image."""


def read_mmbench(data: Path) -> list[Item]:
    """Read the English TSV: a file, or the one of a folder without `_cn` in its name."""
    return _read(_tsv(data, is_chinese=False))


def read_mmbench_cn(data: Path) -> list[Item]:
    """Read the Chinese TSV: a file, or the one of a folder with `_cn` in its name."""
    return _read(_tsv(data, is_chinese=True))


def _tsv(data: Path, *, is_chinese: bool) -> Path:
    found = find_files(data, ".tsv")
    if data.is_file():
        return data
    fitting = [path for path in found if ("_cn" in path.name.lower()) == is_chinese]
    if len(fitting) != 1:
        names = ", ".join(path.name for path in found)
        what = f"{'a' if is_chinese else 'no'} '_cn' in its name"
        raise DataError(data, f"one TSV file with {what} was expected (got {names}). Name the file with --data.")
    return fitting[0]


def _read(path: Path) -> list[Item]:
    """Read all rows. A file without rotations gets them: each question is asked once for each of its options."""
    rows: dict[int, Record] = {}
    for record in read_tsv(path):
        rows[_index(checked(record))] = record
    if not rows:
        raise DataError(path, f"has no rows. {LAYOUTS}")
    images: dict[str, ImageSlot] = {}
    items = [_item(index, record, rows, images) for index, record in rows.items()]
    if any(index >= ROTATION for index in rows):
        return items
    return [rotated for item in items for rotated in rotations(item)]


def _index(record: Record) -> int:
    text = record.value.get("index")
    if not isinstance(text, str) or not text.isdecimal():
        raise DataError(record.place, f"'index' must be a whole number (got {text!r:.60}). {LAYOUTS}")
    return int(text)


def _item(index: int, record: Record, rows: dict[int, Record], images: dict[str, ImageSlot]) -> Item:
    row, place = record.value, record.place
    question, options = row.get("question"), _options(row)
    if not question or len(options) < 2:
        raise DataError(place, f"a row needs a question and at least two options of A to E. {LAYOUTS}")
    answer = row.get("answer")
    if answer is None:
        message = "has no answer: MMBench's server scores the test split. Take the dev split"
        raise DataError(place, f"{message}, or export the run and use VLMEvalKit (docs/eval.md).")
    if answer not in LETTERS[: len(options)]:
        raise DataError(place, f"'answer' must be a letter of its {len(options)} options (got {answer!r:.60}).")
    hint = None if _is_empty(row.get("hint")) else row["hint"]
    return Item(
        str(index),
        asked_with_options(question, options, hint),
        place,
        (_image(record, rows, images),),
        (answer,),
        options,
        group=row.get("category") or "all",
        unit=str(index % ROTATION),
    )


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    options: list[str] = []
    for letter in LETTERS[:5]:
        if _is_empty(row.get(letter)):
            break
        options.append(row[letter])
    return tuple(options)


def _is_empty(cell: Any) -> bool:
    return cell is None or str(cell).lower() in ("nan", "none")


def _image(record: Record, rows: dict[int, Record], images: dict[str, ImageSlot]) -> ImageSlot:
    """Return the image of a row; rows with one image share it."""
    cell = record.value.get("image")
    if isinstance(cell, str) and len(cell) <= LONGEST_INDEX and cell.isdecimal() and int(cell) in rows:
        record = rows[int(cell)]
        cell = record.value.get("image")
    if not isinstance(cell, str):
        raise DataError(record.place, f"'image' must be an image in base64, or the index of a row. {LAYOUTS}")
    if cell not in images:
        try:
            images[cell] = ImageSlot(record.place, data=base64.b64decode(cell, validate=True))
        except (binascii.Error, ValueError):
            raise DataError(record.place, "'image' is no base64. Download the file again.") from None
    return images[cell]


def rotations(item: Item) -> list[Item]:
    """Return a question with its options in every rotation, itself first, as the published files have them."""
    found = [item]
    text = item.question.removesuffix(asked_with_options("", item.options))
    for number in range(1, len(item.options)):
        options = item.options[number:] + item.options[:number]
        answer = LETTERS[(LETTERS.index(item.reference[0]) - number) % len(options)]
        question = text + asked_with_options("", options)
        name = str(int(item.id) + number * ROTATION)
        found.append(Item(name, question, item.place, item.images, (answer,), options, item.group, item.unit))
    return found


def score_mmbench(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
    """Return the accuracy over questions (CircularEval), of all and of each category, and that of the first pass.

    A question counts where it is answered rightly in every rotation.
    """
    credits: dict[str, list[float]] = {}
    firsts: dict[str, Item] = {}
    for item, answer in zip(items, answers, strict=True):
        credits.setdefault(item.unit, []).append(choice_credit(item, answer))
        if item.id == item.unit or item.unit not in firsts:
            firsts[item.unit] = item
    every = shares_by_group("accuracy", list(firsts.values()), [min(credits[unit]) for unit in firsts])
    first = [choice_credit(item, answer) for item, answer in zip(items, answers, strict=True) if item.id == item.unit]
    return [every[0], share("first pass", "all", first), *every[1:]]
