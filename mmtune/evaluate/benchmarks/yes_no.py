"""POPE and MME: questions that are answered by yes or no."""

from collections.abc import Sequence
from pathlib import Path

from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import ALL, Item, Score, share
from mmtune.evaluate.benchmarks.files import LAYOUTS, field, find_file, one_of, read_lines

YES_NO = ("yes", "no")

# POPE (Li et al. 2023, arXiv:2305.10355)

POPE_CATEGORIES = ("random", "popular", "adversarial")


def read_pope(data: Path) -> list[Item]:
    """Read `coco_pope_random.json`, `..._popular.json` and `..._adversarial.json`, in the folder or in `coco/`.

    Raises:
        DataError: a file is missing or malformed.
    """
    items = []
    for category in POPE_CATEGORIES:
        name = f"coco_pope_{category}.json"
        for record in read_lines(find_file(data, name, f"coco/{name}")):
            value, place = record.value, record.place
            question, image = field(value, "text", str, place), field(value, "image", str, place)
            label = one_of(field(value, "label", str, place).strip().lower(), YES_NO, "label", place)
            item_id = f"{category}/{record.line}"
            items.append(Item(item_id, question, place, (image,), (label,), group=category))
    return items


def pope_verdict(answer: str) -> str:
    """Return what POPE's authors read in an answer: no where its first sentence has No, no or not, else yes.

    >>> pope_verdict("No, there is none."), pope_verdict("There is not. Yes"), pope_verdict("nothing")
    ('no', 'no', 'yes')
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def pope_credit(item: Item, answer: str) -> float:
    """Return 1 for the right verdict."""
    return float(pope_verdict(answer) == item.reference[0])


def score_pope(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
    """Return the mean F1 of the categories, then accuracy, precision, recall, F1 and share of yes, of all and of each.

    LLaVA-1.5 and most papers print the mean F1.
    """
    groups = [ALL, *dict.fromkeys(item.group for item in items)]
    rows = []
    for group in groups:
        pairs = [
            (pope_verdict(answer), item.reference[0])
            for item, answer in zip(items, answers, strict=True)
            if group in (ALL, item.group)
        ]
        rows += _detection(group, pairs)
    by_group = [row.value for row in rows if row.metric == "F1" and row.group != ALL]
    return [Score("mean F1", ALL, sum(by_group) / len(by_group), len(items)), *rows]


def _detection(group: str, pairs: list[tuple[str, str]]) -> list[Score]:
    """Accuracy, precision, recall, F1 and share of yes of (verdict, label) pairs; yes is the positive class."""
    hits = [float(verdict == label) for verdict, label in pairs]
    said = [float(label == "yes") for verdict, label in pairs if verdict == "yes"]
    there = [float(verdict == "yes") for verdict, label in pairs if label == "yes"]
    precision, recall = share("precision", group, said), share("recall", group, there)
    total = precision.value + recall.value
    f1 = Score("F1", group, 100 * (2 * precision.value * recall.value / total if total else 0.0), len(pairs))
    yes = share("says yes", group, [float(verdict == "yes") for verdict, _ in pairs])
    return [share("accuracy", group, hits), precision, recall, f1, yes]


# MME (Fu et al. 2023, arXiv:2306.13394)

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
MME_INSTRUCTION = "Please answer yes or no."
IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")


def read_mme(data: Path) -> list[Item]:
    """Read a folder a task: for each image a text of two lines, `question<TAB>Yes` and `question<TAB>No`.

    Images and texts lie side by side, or in `images/` and `questions_answers_YN/`. MME's own instruction is taken off
    the questions, since LLaVA-1.5's stands in its place.

    Raises:
        DataError: no task is there, or a text is malformed.
    """
    tasks = [task for task in (*PERCEPTION, *COGNITION) if (data / task).is_dir()]
    if not tasks:
        named = f"{', '.join(PERCEPTION[:3])} and {len(PERCEPTION + COGNITION) - 3} more"
        raise DataError(data, f"holds no folder of a task of MME ({named}; resolved to {data.resolve()}). {LAYOUTS}")
    return [item for task in tasks for item in _mme_task(data, task)]


def _mme_task(data: Path, task: str) -> list[Item]:
    texts, images = data / task / "questions_answers_YN", data / task / "images"
    if not texts.is_dir():
        texts = images = data / task
    items = []
    for path in sorted(texts.glob("*.txt")):
        candidates = [images / f"{path.stem}{ending}" for ending in IMAGE_ENDINGS]
        image = next((found for found in candidates if found.is_file()), candidates[0])
        pair = [_mme_item(line, f"{path}:{number}") for number, line in enumerate(_lines(path), 1)]
        if len(pair) != 2:
            raise DataError(path, f"holds {len(pair)} questions, MME asks two of each image. Download it again.")
        unit, shown = f"{task}/{path.stem}", (image.relative_to(data).as_posix(),)
        for number, (question, label, place) in enumerate(pair, 1):
            items.append(Item(f"{unit}/{number}", question, place, shown, (label,), group=task, unit=unit))
    if not items:
        raise DataError(texts, f"holds no .txt file of questions. {LAYOUTS}")
    return items


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8. Download it again.") from None


def _mme_item(line: str, place: str) -> tuple[str, str, str]:
    question, tab, label = line.partition("\t")
    if not tab:
        raise DataError(place, f"a question, a tab and Yes or No were expected (got {line!r:.60}). {LAYOUTS}")
    verdict = one_of(label.strip().lower().removesuffix("."), YES_NO, "answer", place)
    return question.replace(MME_INSTRUCTION, "").strip(), verdict, place


def mme_verdict(answer: str) -> str:
    """Return what MME's authors read in an answer: `yes` or `no` in its first four characters, else `other`.

    >>> mme_verdict("Yes."), mme_verdict("No, it is"), mme_verdict("It is."), mme_verdict("It is a no")
    ('yes', 'no', 'other', 'other')
    """
    start = answer.lower().strip().replace(".", "")
    if len(start) == 1:
        return {"y": "yes", "n": "no"}.get(start, "other")
    return next((verdict for verdict in YES_NO if verdict in start[:4]), "other")


def mme_credit(item: Item, answer: str) -> float:
    """Return 1 for the right verdict."""
    return float(mme_verdict(answer) == item.reference[0])


def score_mme(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
    """Return points of perception and cognition, then points, accuracy and accuracy+ of each task.

    Accuracy+ is the share of images whose two questions are both right; a task has the points 100 (accuracy +
    accuracy+), at most 200.
    """
    credits = [mme_credit(item, answer) for item, answer in zip(items, answers, strict=True)]
    points, rows = {}, []
    for task in dict.fromkeys(item.group for item in items):
        chosen = [(item.drawn_as, credit) for item, credit in zip(items, credits, strict=True) if item.group == task]
        pairs: dict[str, list[float]] = {}
        for unit, credit in chosen:
            pairs.setdefault(unit, []).append(credit)
        accuracy = share("accuracy", task, [credit for _, credit in chosen])
        both = share("accuracy+", task, [float(min(pair) == 1 and len(pair) == 2) for pair in pairs.values()])
        points[task] = 100 * (accuracy.value + both.value)
        rows += [Score("points", task, points[task], len(chosen)), accuracy, both]
    totals = []
    for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        held = [task for task in tasks if task in points]
        if held:
            num_asked = sum(item.group in held for item in items)
            totals.append(Score(name, ALL, sum(points[task] for task in held), num_asked))
    return totals + rows
