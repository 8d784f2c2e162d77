"""ScienceQA-IMG (Lu et al. 2022, arXiv:2209.09513): the test questions that have an image."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import LETTERS, Item, Score, lettered, shares_by_group
from mmtune.evaluate.benchmarks.files import LAYOUTS, field, find_file, read_object, texts

SPLIT = "test"
MAX_OPTIONS = 5
THE_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")


def read_scienceqa(data: Path) -> list[Item]:
    """Read `problems.json` and `pid_splits.json`; images are `images/test/ID/image.png`.

    Raises:
        DataError: a file is missing or malformed.
    """
    problems_path, splits_path = find_file(data, "problems.json"), find_file(data, "pid_splits.json")
    problems, split = read_object(problems_path), texts(read_object(splits_path), SPLIT, str(splits_path))
    items = []
    for name in split:
        place = f"{problems_path}: problem {name}"
        problem = field(problems, name, dict, place)
        if problem.get("image"):
            items.append(_item(name, problem, place))
    if not items:
        raise DataError(problems_path, f"no problem of the {SPLIT} split has an image. {LAYOUTS}")
    return items


def _item(name: str, problem: dict, place: str) -> Item:
    options, answer = texts(problem, "choices", place), field(problem, "answer", int, place)
    if len(options) > MAX_OPTIONS or not 0 <= answer < len(options):
        raise DataError(place, f"'answer' must be one of {len(options)} choices, at most {MAX_OPTIONS} (got {answer}).")
    hint, image = field(problem, "hint", str, place).strip(), field(problem, "image", str, place)
    context = f"Context: {hint}\n" if hint else ""
    question = f"{context}{field(problem, 'question', str, place)}\n{lettered(options)}"
    group = str(problem.get("subject") or "other")
    return Item(name, question, place, (f"{SPLIT}/{name}/{image}",), (LETTERS[answer],), options, group=group)


def scienceqa_letter(answer: str) -> str | None:
    """Return the option that LLaVA's evaluation reads in an answer, None where it reads none.

    >>> [scienceqa_letter(answer) for answer in ("B", "B. a dog", "So: The answer is C.", "b", "B.")]
    ['B', 'B', 'C', None, None]
    """
    letters = LETTERS[:MAX_OPTIONS]
    if len(answer) == 1 and answer in letters:
        return answer
    if answer[:1] and answer[0] in letters and answer[1:3] == ". ":
        return answer[0]
    found = THE_ANSWER_IS.findall(answer)
    return found[0] if len(found) == 1 else None


def scienceqa_credit(item: Item, answer: str) -> float:
    """Return 1 for the right option."""
    return float(scienceqa_letter(answer) == item.reference[0])


def score_scienceqa(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
    """Return the accuracy of all and of each subject."""
    credits = [scienceqa_credit(item, answer) for item, answer in zip(items, answers, strict=True)]
    return shares_by_group("accuracy", items, credits)
