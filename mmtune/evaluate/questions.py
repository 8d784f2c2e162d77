"""Questions with references, as chat, compare and evaluation read them, and draws from them."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmtune.conversation import ImageSlot
from mmtune.data.dialogue import half_character
from mmtune.data.image_check import check_images
from mmtune.data.image_folder import missing_image
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.errors import DataError
from mmtune.evaluate.metrics import MATCHES

T = TypeVar("T")
KEYS = ("id", "image", "question", "reference", "group", "match")


@dataclass(frozen=True)
class Question:
    """One question of a questions file.

    Attributes:
        id: its name; the line where the file gives none.
        set: what the questions of its file are called.
        group: a kind of question, scored apart.
        question: the text.
        images: image files, resolved.
        reference: right answers; empty where none is known.
        match: how an answer is compared with them, a key of `MATCHES`.
        place: `file:line` of its record, for messages.
    """

    id: str
    set: str
    group: str
    question: str
    images: tuple[str, ...]
    reference: tuple[str, ...]
    match: str = "exact"
    place: str = ""

    def is_right(self, answer: str) -> bool | None:
        """Whether an answer is right; None where no reference is known."""
        return MATCHES[self.match](answer, list(self.reference)) if self.reference else None


def read_questions(
    path: Path | str, image_folder: Path | str | None = None, set_name: str | None = None
) -> list[Question]:
    """Read a questions file: JSON lines or a JSON list of objects.

    Each holds `question` and may hold `id`, `image` (path or list), `reference` (text or list), `group` and `match`.

    Args:
        path: the file.
        image_folder: what image paths are relative to; None takes the file's folder.
        set_name: what to call these questions; None takes the file's name.

    Raises:
        DataError: a question is malformed or its image is missing.
    """
    questions = []
    for question in each_question(path, image_folder, set_name):
        if isinstance(question, DataError):
            raise question
        questions.append(question)
    return questions


def read_good_questions(
    path: Path | str, image_folder: Path | str | None = None, limit: int | None = None
) -> tuple[list[Question], list[DataError]]:
    """Read a questions file as `read_questions` does, and go on behind a question that cannot be asked.

    Args:
        path: the file.
        image_folder: what image paths are relative to; None takes the file's folder.
        limit: stop after so many good questions; None reads all.

    Returns:
        The questions whose images open, and what is wrong with each of the others.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    good: list[Question] = []
    problems: list[DataError] = []
    reasons: dict[str, str] = {}  # image -> why it does not open; empty where it does
    for question in each_question(path, image_folder):
        if isinstance(question, DataError):
            problems.append(question)
            continue
        new = [image for image in question.images if image not in reasons]
        found = check_images([ImageSlot(image) for image in new], decode=True)
        reasons |= {image: found.get(number, "") for number, image in enumerate(new)}
        bad = next((image for image in question.images if reasons[image]), None)
        if bad is not None:
            problems.append(DataError(question.place, f"image {bad}: {reasons[bad]}"))
            continue
        good.append(question)
        if limit is not None and len(good) == limit:
            break
    return good, problems


def each_question(
    path: Path | str, image_folder: Path | str | None = None, set_name: str | None = None
) -> Iterator[Question | DataError]:
    """Yield each question of a file, or what is wrong with it; arguments as for `read_questions`.

    Raises:
        DataError: the file cannot be read, or not beyond some line.
    """
    path = Path(path)
    folder = Path(image_folder) if image_folder is not None else path.parent
    name = set_name or path.stem.replace("_", " ")
    for record in read_records(path):
        try:
            yield _question(record, folder, name)
        except DataError as error:
            yield error


def _question(record: Record, folder: Path, set_name: str) -> Question:
    if record.problem:
        raise DataError(record.place, record.problem)
    value: Any = record.value
    if not isinstance(value, dict) or not isinstance(value.get("question"), str) or not value["question"].strip():
        raise DataError(record.place, "a question is an object with a text under 'question'. Mend the record.")
    if reason := half_character(json.dumps(value, ensure_ascii=False, default=str)):
        raise DataError(record.place, f"a text {reason}")
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise DataError(record.place, f"unknown key '{unknown[0]}'. Known: {', '.join(KEYS)}.")
    match = value.get("match", "exact")
    if match not in list(MATCHES):  # a list, since the value may be anything
        raise DataError(record.place, f"unknown match '{match}'. Known: {', '.join(MATCHES)}.")
    images = tuple(str(folder / image) for image in _texts(value.get("image"), "image", record))
    for image in images:
        if missing := missing_image(image):
            raise DataError(record.place, f"{missing} Mend the path, or --image-folder.")
    name = str(value.get("id", record.line))
    reference = _texts(value.get("reference"), "reference", record)
    group = str(value.get("group", set_name))
    return Question(name, set_name, group, value["question"], images, reference, match, record.place)


def _texts(value: Any, key: str, record: Record) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise DataError(record.place, f"'{key}' is a text, a list of texts or null (got {value!r:.60}).")
    return tuple(texts)


def shuffled_images(questions: list[Question], seed: int) -> list[tuple[str, ...] | None]:
    """Give each question the images of another question with as many images, never its own; None where none is."""
    rng = random.Random(seed)
    by_count: dict[int, list[tuple[str, ...]]] = {}
    for images in sorted({question.images for question in questions}):
        by_count.setdefault(len(images), []).append(images)
    places = {images: place for others in by_count.values() for place, images in enumerate(others)}
    result: list[tuple[str, ...] | None] = []
    for question in questions:
        candidates, own = by_count[len(question.images)], places[question.images]
        if len(candidates) == 1:
            result.append(None)
            continue
        drawn = rng.choice(range(len(candidates) - 1))  # of all but its own
        result.append(candidates[drawn + (drawn >= own)])
    return result


def thinned(items: Sequence[T], count: int) -> Sequence[T]:
    """Return at most `count` items, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(number * (len(items) - 1) / (count - 1))] for number in range(count)]


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Take `count` of the items, evenly spread and in their order; all where there are no more, or for None.

    >>> spread(range(10), 4), spread("ab", 4), spread("ab", None)
    ([0, 2, 5, 7], ['a', 'b'], ['a', 'b'])
    """
    if count is None or count >= len(items):
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]
