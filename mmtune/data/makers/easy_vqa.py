"""Makes training and test files from easy-VQA: coloured shapes, and questions about them that others wrote.

The data set lies in the `easy-vqa` wheel (Victor Zhou, MIT): 4,000 training and 1,000 test images of 64 x 64 pixels
with 38,575 and 9,673 questions. Here its files become LLaVA records and a questions file. Captions say what the
answers to an image's training questions say together; nothing is taken from the test questions, nothing is invented.
"""

import importlib.metadata
import json
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmtune.errors import ConfigError, DataError

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
VERDICTS = ("yes", "no")
GROUPS = ("which shape", "which colour", "is there", "is there not")


class Turn(NamedTuple):
    """A question about an image, with its answer."""

    question: str
    answer: str

    @property
    def is_negated(self) -> bool:
        """Whether a question denies what it asks for: "is there not a red shape?"."""
        return not {"no", "not"}.isdisjoint(_words(self.question))

    @property
    def group(self) -> str:
        """The kind of question, one of `GROUPS`."""
        if self.answer in SHAPES:
            return "which shape"
        if self.answer in COLOURS:
            return "which colour"
        return "is there not" if self.is_negated else "is there"

    @property
    def finding(self) -> str:
        """What a yes or no says about the image, in words, "red is absent"; empty for the other questions."""
        if self.answer not in VERDICTS:
            return ""
        asked = next(word for word in _words(self.question) if word in (*SHAPES, *COLOURS))
        return f"{asked} is {'present' if (self.answer == 'yes') != self.is_negated else 'absent'}"


def _words(question: str) -> list[str]:
    return question.rstrip("?").split()


# ---------------------------------------------------------------- what the package holds


def easy_vqa_folder() -> Path:
    """Finds the data set by the package's metadata: its module's name is also that of `data_tools/easy_vqa.py`.

    Raises:
        DataError: the package is not installed.
    """
    missing = DataError("easy-vqa", "the data set is missing. Run `pip install easy-vqa`.")
    try:
        folder = Path(str(importlib.metadata.distribution("easy-vqa").locate_file("easy_vqa/data")))
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    if not (folder / "train" / "questions.json").is_file():
        raise missing
    return folder


def read_turns(path: Path) -> dict[int, list[Turn]]:
    """Reads `questions.json`, a list of [question, answer, number of the image].

    Returns:
        Number of the image -> its questions in the order of the file.

    Raises:
        DataError: an answer is not one of the data set's 13.
    """
    turns: dict[int, list[Turn]] = {}
    for question, answer, image in json.loads(path.read_text(encoding="utf-8")):
        if answer not in (*SHAPES, *COLOURS, *VERDICTS):
            raise DataError(path, f"unknown answer '{answer}'. Install easy-vqa 1.0 anew.")
        turns.setdefault(image, []).append(Turn(question, answer))
    return turns


def told(turns: list[Turn], values: tuple[str, ...]) -> str | None:
    """Finds the one shape or colour that the answers about an image leave possible; None where they leave several.

    >>> told([Turn("is there not a red shape?", "no")], COLOURS), told([Turn("is no circle present?", "yes")], SHAPES)
    ('red', None)
    """
    possible = set(values)
    for turn in turns:
        named = {*_words(turn.question), turn.answer}.intersection(values)
        is_denied = turn.answer in VERDICTS and (turn.answer == "no") != turn.is_negated
        if named:
            possible = possible - named if is_denied else possible & named
    return possible.pop() if len(possible) == 1 else None


def caption(turns: list[Turn]) -> str | None:
    """Says what the answers about an image say together; None where they leave its shape or colour open.

    >>> caption([Turn("what is the red shape?", "circle")])
    'a red circle'
    """
    shape, colour = told(turns, SHAPES), told(turns, COLOURS)
    return f"a {colour} {shape}" if shape and colour else None


def balanced(images: list[list[Turn]], rng: random.Random) -> list[list[Turn]]:
    """Leaves away yes/no turns until each wording has as many yes as no, so that wordings alone tell nothing.

    >>> red = [Turn("is it red?", "no"), Turn("what is it?", "circle")]
    >>> balanced([red, [Turn("is it red?", "yes")], []], random.Random(0))[1:]
    [[Turn(question='is it red?', answer='yes')], []]
    """
    places: dict[Turn, list[tuple[int, int]]] = {}
    for image, turns in enumerate(images):
        for number, turn in enumerate(turns):
            if turn.answer in VERDICTS:
                places.setdefault(turn, []).append((image, number))
    kept: set[tuple[int, int]] = set()
    for question in dict.fromkeys(turn.question for turn in places):
        both = [places.get(Turn(question, verdict), []) for verdict in VERDICTS]
        for found in both:
            kept.update(rng.sample(found, min(map(len, both))))
    return [
        [turn for number, turn in enumerate(turns) if turn.answer not in VERDICTS or (image, number) in kept]
        for image, turns in enumerate(images)
    ]


# ---------------------------------------------------------------- records


def to_record(name: str, image: str, turns: list[Turn], evidence: str | None = None) -> dict:
    """Makes a LLaVA record; the image comes before the first question, the evidence before each answer.

    >>> to_record("1", "1.png", [Turn("is it blue?", "no")], "a red circle")["conversations"][1]["value"]
    'a red circle, blue is absent, so no'
    """
    conversations = []
    for number, turn in enumerate(turns):
        mark = "<image>\n" if number == 0 else ""
        conversations.append({"from": "human", "value": mark + turn.question})
        said = ", ".join(filter(None, (evidence, turn.finding, f"so {turn.answer}"))) if evidence else turn.answer
        conversations.append({"from": "gpt", "value": said})
    return {"id": name, "image": image, "conversations": conversations}


def to_records(
    name: str, image: str, turns: list[Turn], evidence: str | None = None, max_questions: int | None = None
) -> list[dict]:
    """Makes the LLaVA records of an image: one with all its turns, or as many as hold at most `max_questions` each.

    >>> [record["id"] for record in to_records("7", "7.png", [Turn("is it blue?", "no")] * 3, max_questions=2)]
    ['7_00', '7_01']
    """
    if max_questions is None:
        return [to_record(name, image, turns, evidence)] if turns else []
    parts = [turns[start : start + max_questions] for start in range(0, len(turns), max_questions)]
    return [to_record(f"{name}_{number:02d}", image, part, evidence) for number, part in enumerate(parts)]


def to_questions(name: str, image: str, turns: list[Turn]) -> list[dict]:
    """Makes the entries of a questions file for one image."""
    return [
        {
            "id": f"{name}_{number:02d}",
            "image": image,
            "question": turn.question,
            "reference": [turn.answer],
            "group": turn.group,
            "match": "ends_with",
        }
        for number, turn in enumerate(turns)
    ]


# ---------------------------------------------------------------- files


def make_easy_vqa(
    output_folder: str | Path,
    *,
    seed: int = 0,
    num_train_images: int | None = None,
    num_test_images: int | None = None,
    num_validation_images: int = 0,
    with_evidence: bool = False,
    max_questions_per_record: int | None = None,
    balance_verdicts: bool = False,
) -> dict[str, Path]:
    """Writes images and, beside them, captions.json and train.json (LLaVA records) and test_questions.json.

    A record of train.json is one dialogue about one image, its questions in a drawn order. The same arguments give the
    same bytes.

    Args:
        output_folder: where everything goes; made where it is missing.
        seed: draws the order of the questions, and which ones are left away.
        num_train_images: the first N training images; None takes all 4,000.
        num_test_images: the first N test images; None takes all 1,000.
        num_validation_images: the last N training images are not trained on; their questions go to
            validation_questions.json, to choose settings by.
        with_evidence: each trained answer first says what is seen, then whether what is asked for is: "a red circle,
            blue is absent, so no". Images of which the answers do not tell it are left out of train.json.
        max_questions_per_record: dialogues are cut into records of at most so many questions, 1 asks each alone; None
            keeps all questions about an image together.
        balance_verdicts: yes/no questions are left out of train.json until each wording is answered as often by yes
            as by no.

    Returns:
        What was written: captions, train, test_questions and maybe validation_questions -> path.

    Raises:
        DataError: the package is not installed, or the folder cannot be made.
        ConfigError: a number is out of range.
    """
    source, folder, rng = easy_vqa_folder(), Path(output_folder), random.Random(seed)
    train, test = (read_turns(source / split / "questions.json") for split in ("train", "test"))
    num_kept = len(train) - _checked("num_validation_images", num_validation_images, 0, len(train) - 1)
    num_train = num_kept if num_train_images is None else _checked("num_train_images", num_train_images, 1, num_kept)
    num_test = len(test) if num_test_images is None else _checked("num_test_images", num_test_images, 1, len(test))
    if max_questions_per_record is not None:
        _checked("max_questions_per_record", max_questions_per_record, 1, None)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder.resolve(), f"cannot be made: {error.strerror}. Name another folder.") from None

    def with_images(split: str, turns: dict[int, list[Turn]], numbers: range) -> Iterator[tuple[str, str, list[Turn]]]:
        for number in numbers:
            name = f"{split}_{number:04d}"
            shutil.copyfile(source / split / "images" / f"{number}.png", folder / "images" / f"{name}.png")
            yield name, f"images/{name}.png", turns[number]

    trained = list(with_images("train", train, range(num_train)))
    captions = {name: caption(turns) for name, _, turns in trained}
    asked_about = [entry for entry in trained if captions[entry[0]] or not with_evidence]
    dialogues = [rng.sample(turns, len(turns)) for _, _, turns in asked_about]
    if balance_verdicts:
        dialogues = balanced(dialogues, rng)
    files = {
        "captions": [
            {"id": name, "image": image, "caption": captions[name]} for name, image, _ in trained if captions[name]
        ],
        "train": [
            record
            for (name, image, _), turns in zip(asked_about, dialogues, strict=True)
            for record in to_records(
                name, image, turns, captions[name] if with_evidence else None, max_questions_per_record
            )
        ],
        "test_questions": _questions(with_images("test", test, range(num_test))),
    }
    if num_validation_images:
        files["validation_questions"] = _questions(with_images("train", train, range(num_kept, len(train))))
    paths = {name: folder / f"{name}.json" for name in files}
    for name, entries in files.items():
        paths[name].write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


def _questions(images: Iterable[tuple[str, str, list[Turn]]]) -> list[dict]:
    return [entry for name, image, turns in images for entry in to_questions(name, image, turns)]


def _checked(name: str, value: int, low: int, high: int | None) -> int:
    if value < low or (high is not None and value > high):
        raise ConfigError(name, f"must be {low} {f'to {high}' if high else 'or more'} (got {value}). Mend the number.")
    return value
