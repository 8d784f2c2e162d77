"""GQA, TextVQA and VQAv2: short answers about an image, compared with those of people."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import Item, Score, shares_by_group
from mmtune.evaluate.benchmarks.files import LAYOUTS, field, find_file, read_object, texts
from mmtune.evaluate.benchmarks.vqa_words import plain_answer, plain_tokens
from mmtune.evaluate.text_scores import people_credit


def _accuracy(credit: Callable[[Item, str], float]) -> Callable[[Sequence[Item], Sequence[str]], list[Score]]:
    def score(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
        credits = [credit(item, answer) for item, answer in zip(items, answers, strict=True)]
        return shares_by_group("accuracy", items, credits)

    return score


# GQA (Hudson & Manning 2019, arXiv:1902.09506)


def read_gqa(data: Path) -> list[Item]:
    """Read `testdev_balanced_questions.json`, in the folder or in `questions1.2/`; images are `images/ID.jpg`.

    Raises:
        DataError: it is missing or malformed.
    """
    name = "testdev_balanced_questions.json"
    path = find_file(data, name, f"questions1.2/{name}", f"questions/{name}")
    items = []
    for question_id, value in read_object(path).items():
        place = f"{path}: question {question_id}"
        image, answer = field(value, "imageId", str, place), field(value, "answer", str, place)
        kind = value.get("types")
        group = str(kind["structural"]) if isinstance(kind, dict) and "structural" in kind else "all"
        question = field(value, "question", str, place)
        items.append(Item(question_id, question, place, (f"{image}.jpg",), (answer,), group=group))
    return _not_empty(items, path)


def gqa_credit(item: Item, answer: str) -> float:
    """Return 1 for GQA's own answer in lower case, a full stop behind it aside.

    >>> gqa_credit(Item("1", "", "", reference=("yes",)), "Yes."), gqa_credit(Item("1", "", "", reference=("no",)), "n")
    (1.0, 0.0)
    """
    return float(answer.rstrip(".").lower() == item.reference[0])


score_gqa = _accuracy(gqa_credit)


# TextVQA (Singh et al. 2019, arXiv:1904.08920)


def read_textvqa(data: Path) -> list[Item]:
    """Read `TextVQA_0.5.1_val.json` and the words that Rosetta reads, `TextVQA_Rosetta_OCR_v0.2_val.json`.

    LLaVA-1.5 puts these words behind the question. Images are `train_images/ID.jpg`.

    Raises:
        DataError: a file is missing or malformed.
    """
    path = find_file(data, "TextVQA_0.5.1_val.json")
    words = _read_words(find_file(data, "TextVQA_Rosetta_OCR_v0.2_val.json"))
    items = []
    for number, value in enumerate(field(read_object(path), "data", list, str(path)), 1):
        place = f"{path}: question {number}"
        question, image = field(value, "question", str, place), field(value, "image_id", str, place)
        name, given = str(field(value, "question_id", int, place)), texts(value, "answers", place)
        if not given:
            raise DataError(place, "has no answers: the test split is scored by its server. Take the val split.")
        if image not in words:
            raise DataError(place, f"no words are given for its image {image}. Download the OCR file again.")
        question = f"{question}\nReference OCR token: {', '.join(words[image])}"
        items.append(Item(name, question, place, (f"{image}.jpg",), given))
    return _not_empty(items, path)


def _read_words(path: Path) -> dict[str, tuple[str, ...]]:
    words = {}
    for number, value in enumerate(field(read_object(path), "data", list, str(path)), 1):
        place = f"{path}: image {number}"
        words[field(value, "image_id", str, place)] = texts(value, "ocr_tokens", place)
    return words


def textvqa_credit(item: Item, answer: str) -> float:
    """Return the VQA accuracy of answers as tokens, as Pythia's evaluator and LLaVA's compute it."""
    return people_credit(plain_tokens(answer), [plain_tokens(text) for text in item.reference])


score_textvqa = _accuracy(textvqa_credit)


# VQAv2 (Goyal et al. 2017, arXiv:1612.00837)


def read_vqav2(data: Path) -> list[Item]:
    """Read the val questions and annotations as published; images are `val2014/COCO_val2014_ID.jpg`.

    Raises:
        DataError: a file is missing or malformed, or a question has no annotation.
    """
    path = find_file(data, "v2_OpenEnded_mscoco_val2014_questions.json")
    given = _read_annotations(find_file(data, "v2_mscoco_val2014_annotations.json"))
    items = []
    for number, value in enumerate(field(read_object(path), "questions", list, str(path)), 1):
        place = f"{path}: question {number}"
        question, image = field(value, "question", str, place), field(value, "image_id", int, place)
        name = field(value, "question_id", int, place)
        if name not in given:
            raise DataError(place, f"question_id {name} has no annotation. Take both files of one split.")
        kind, answers = given[name]
        items.append(Item(str(name), question, place, (f"COCO_val2014_{image:012d}.jpg",), answers, group=kind))
    return _not_empty(items, path)


def _read_annotations(path: Path) -> dict[int, tuple[str, tuple[str, ...]]]:
    found = {}
    for number, value in enumerate(field(read_object(path), "annotations", list, str(path)), 1):
        place = f"{path}: annotation {number}"
        answers = tuple(field(answer, "answer", str, place) for answer in field(value, "answers", list, place))
        if not answers:
            raise DataError(place, f"'answers' is empty. {LAYOUTS}")
        found[field(value, "question_id", int, place)] = (str(value.get("answer_type", "all")), answers)
    return found


def vqav2_credit(item: Item, answer: str) -> float:
    """Return the VQA accuracy of answers in plain words."""
    return people_credit(plain_answer(answer), [plain_answer(text) for text in item.reference])


score_vqav2 = _accuracy(vqav2_credit)


def _not_empty(items: list[Item], path: Path) -> list[Item]:
    if not items:
        raise DataError(path, f"holds no question. {LAYOUTS}")
    return items
