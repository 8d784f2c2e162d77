"""The question cards of the comparison page: what each one holds, and how cards are told apart and filtered.

Pure preparation of values for page.html; the scores and the writing of the file are in page.py.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mmtune.evaluate.memorised import IMAGE_SEEN, is_memorised, is_telling
from mmtune.evaluate.scores import OWN_CONDITIONS
from mmtune.evaluate.summary import control_label

UNSEEN_SET = "never trained on"

CHANGE_LABELS = {
    "gained": "wrong before, right after",
    "lost": "right before, wrong after",
    "wrong": "wrong both times",
    "differs": "answers differ",
}

TRAINING_LABELS = {
    "memorised": "answer is from the training data",
    "image": "image was trained on",
    "new": "not trained on",
}
"""What the training data of the last model has of a question."""


@dataclass(frozen=True)
class Card:
    """One question with everybody's answers.

    Attributes:
        question: the question's dict of the report.
        pictures: file name and data URI of each picture; the URI is None if the file cannot be read.
        answers: (number of the model, label, answer); the answer is None if that model was not asked.
        controls: (label, answer) of the answers given without the question's own picture.
        change: a key of `CHANGE_LABELS`, or `right` or `same`.
        training: a key of `TRAINING_LABELS`: what the last model's training data has of it; empty where nothing is
            known of that data.
    """

    question: dict[str, Any]
    pictures: list[tuple[str, str | None]]
    answers: list[tuple[int, str, dict[str, Any] | None]]
    controls: list[tuple[str, dict[str, Any]]]
    change: str
    training: str = ""

    @property
    def first_text(self) -> str:
        """What the first model answered; empty if it was not asked, or is the last one too."""
        return ((self.answers[0][2] if len(self.answers) > 1 else None) or {}).get("text", "")

    @property
    def flags(self) -> list[str]:
        """What holds for the last model's answer, see `memorised.FLAG_LABELS`."""
        return (self.question.get("flags") or {}).get(self.last_answer.get("model"), [])

    @property
    def is_telling(self) -> bool:
        """Whether to say that the last model's answer stands in its training data."""
        return is_telling(self.flags, self.last_answer.get("text", ""), bool(self.pictures))

    @property
    def last_answer(self) -> dict[str, Any]:
        """What the last model answered; empty if it was not asked."""
        return (self.answers[-1][2] if self.answers else None) or {}


def make_card(question: dict[str, Any], models: list[dict[str, Any]], picture_uri: Callable[[str], str | None]) -> Card:
    """Gathers the pictures and answers of one question; `picture_uri` turns its paths into data URIs."""
    images = question.get("image") or []
    paths = [images] if isinstance(images, str) else images
    answers, controls = [], []
    for number, model in enumerate(models):
        main, others = split_controls(question.get("answers") or [], model["name"])
        answers.append((number, model["label"], main))
        for answer in others:
            controls.append((f"{model['label']}, with {control_label(answer['condition'], 1)}", answer))
    return Card(
        question=question,
        pictures=[(Path(path).name, picture_uri(path)) for path in paths],
        answers=answers,
        controls=controls,
        change=name_change([answer for _, _, answer in answers]),
        training=name_training(question, models),
    )


def name_training(question: dict[str, Any], models: list[dict[str, Any]]) -> str:
    """Says what the last model's training data has of a question: a key of `TRAINING_LABELS`, or nothing."""
    if question.get("flags") is None or not models:
        return ""
    flags = question["flags"].get(models[-1]["name"], [])
    if is_memorised(flags, bool(question.get("image"))):
        return "memorised"
    return "image" if IMAGE_SEEN in flags else "new"


def name_change(answers: list[dict[str, Any] | None]) -> str:
    """Says how the last model's answer differs from the first's."""
    before, after = (answers[0], answers[-1]) if answers else (None, None)
    if before is None or after is None or before.get("problem") or after.get("problem"):
        return "same"
    if before.get("correct") is None or after.get("correct") is None:
        return "same" if before["text"] == after["text"] else "differs"
    names = {(False, True): "gained", (True, False): "lost", (False, False): "wrong", (True, True): "right"}
    return names[bool(before["correct"]), bool(after["correct"])]


def pick_example(cards: list[Card]) -> Card | None:
    """Picks the question to open with: a telling one that only the last model answers right.

    Things never trained on are no example. Longer answers tell more, as long as they are short to read.
    """
    gained = [card for card in cards if card.change == "gained" and card.question.get("set") != UNSEEN_SET]

    def rank(card: Card) -> tuple[bool, bool, int]:
        is_middle_right = any(answer and answer["correct"] for _, _, answer in card.answers[1:-1])
        length = len(card.last_answer["text"])
        return not is_middle_right, length <= 120, length

    return max((card for card in gained if any(uri for _, uri in card.pictures)), key=rank, default=None)


def card_filters(cards: list[Card]) -> list[tuple[str, str, dict[str, tuple[str, int]]]]:
    """Lists the rows of filter buttons; a row with nothing to choose is left out.

    Returns:
        (key of the card's data attribute, title, value -> (label, number of cards)) of each row.
    """
    sets = Counter(card.question.get("set") or "" for card in cards)
    groups = Counter(card.question.get("group") or "" for card in cards)
    changes = Counter(card.change for card in cards)
    is_judged = any(changes[name] for name in ("gained", "lost", "right", "wrong"))
    shown = [name for name in CHANGE_LABELS if changes[name] or (is_judged and name in ("gained", "lost"))]
    training = Counter(card.training for card in cards)
    trained = {name: (label, training[name]) for name, label in TRAINING_LABELS.items() if training[name]}
    rows = [
        ("set", "Set", {name: (name, count) for name, count in sets.items() if name}),
        ("group", "Question", {name: (name, count) for name, count in groups.items() if name}),
        ("change", "Answers", {name: (CHANGE_LABELS[name], changes[name]) for name in shown}),
        ("training", "Training", trained),
    ]
    return [row for row in rows if len(row[2]) > 1 or (row[0] == "change" and row[2])]


def split_controls(entries: list[dict[str, Any]], model: str) -> tuple[dict | None, tuple[dict, ...]]:
    """Splits the scores or answers of a model into the one asked in earnest and the controls."""
    by_condition = {entry["condition"]: entry for entry in entries if entry["model"] == model}
    main = next((by_condition.pop(name) for name in OWN_CONDITIONS if name in by_condition), None)
    return main, tuple(by_condition.values())


def data_uri(path: Path, max_width: int) -> str | None:
    """Returns an image as a `data:` URI, re-encoded (never copied raw) and at most `max_width` px wide.

    Returns None when the file is missing or is no image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.thumbnail((max_width, 2 * max_width))
            mode = "RGBA" if image.has_transparency_data else "RGB"
            buffer = io.BytesIO()
            image.convert(mode).save(buffer, "WEBP", quality=84)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
