"""Perplexity of plain text: how well a model predicts what it has not seen."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import ALL, Item, Score
from mmtune.evaluate.benchmarks.files import LAYOUTS, field, find_files, read_lines


def read_texts(data: Path) -> list[Item]:
    """Read texts: a `.txt` file each, or the records of `.jsonl` files with `text`; a group a file.

    Raises:
        DataError: a file is malformed or empty.
    """
    items: list[Item] = []
    for path in find_files(data, ".txt", ".jsonl"):
        if path.suffix == ".txt":
            items.append(_whole(path))
            continue
        for record in read_lines(path):
            text = field(record.value, "text", str, record.place)
            items.append(_item(text, record.place, f"{path.name}/{record.line}", path.name))
    return items


def _whole(path: Path) -> Item:
    try:
        return _item(path.read_text(encoding="utf-8"), str(path), path.name, path.name)
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8. Save the file as UTF-8.") from None


def _item(text: str, place: str, name: str, group: str) -> Item:
    if not text.strip():
        raise DataError(place, f"the text is empty. {LAYOUTS}")
    return Item(name, text, place, group=group)


def text_credit(item: Item, answer: Any) -> float:
    """Return the probability of a token, as the geometric mean over the text."""
    return math.exp(-answer["loss"] / answer["tokens"])


def score_texts(items: Sequence[Item], answers: Sequence[Any]) -> list[Score]:
    """Return perplexity, bits a byte and tokens, of all texts and of each file.

    Perplexity can be compared between models with one tokenizer, bits a byte of UTF-8 between all.

    Args:
        items: the texts.
        answers: of each, `loss`, the sum over its tokens in nats, and `tokens`, how many were predicted.
    """
    groups = list(dict.fromkeys(item.group for item in items))
    rows = []
    for group in [ALL, *(groups if len(groups) > 1 else [])]:
        chosen = [
            (len(item.question.encode()), answer)
            for item, answer in zip(items, answers, strict=True)
            if group in (ALL, item.group)
        ]
        loss = sum(answer["loss"] for _, answer in chosen)
        tokens = sum(answer["tokens"] for _, answer in chosen)
        num_bytes = sum(size for size, _ in chosen)
        rows.append(Score("perplexity", group, math.exp(min(loss / tokens, 700)), tokens))
        rows.append(Score("bits a byte", group, loss / math.log(2) / num_bytes, tokens))
    return rows
