"""Multiple-choice questions in JSON lines, and which option an answer means."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.errors import DataError
from mmtune.evaluate.benchmarks.benchmark import LETTERS, Item, Score, lettered, shares_by_group
from mmtune.evaluate.benchmarks.files import LAYOUTS, field, find_files, read_lines, texts

PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
NUM_LAST_WORDS = 5
"""A letter counts where it is one of so many last words."""

KEYS = ("id", "question", "context", "choices", "answer", "image", "category")


def option_letter(answer: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that an answer means, by the rules of MMBench's authors; None where unclear.

    The one letter of an option that stands as a word, among the last five; else the one option whose text is in the
    answer, where the answer is at most twice as long as all options together. No judge is asked.

    >>> [option_letter(answer, ["a cat", "dogs"]) for answer in ("B", "(A).", "I see dogs", "A or B", "birds")]
    ['B', 'A', 'B', None, None]
    """
    words = answer.translate(PUNCTUATION).split()
    named = [letter for letter in LETTERS[: len(options)] if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - NUM_LAST_WORDS:
        return named[0]
    if len(answer) > 2 * sum(map(len, options)):
        return None
    held = [number for number, option in enumerate(options) if option.lower() in answer.lower()]
    return LETTERS[held[0]] if len(held) == 1 else None


def choice_credit(item: Item, answer: str) -> float:
    """Return 1 where the answer means the right option."""
    return float(option_letter(answer, item.options) == item.reference[0])


def score_choices(items: Sequence[Item], answers: Sequence[str]) -> list[Score]:
    """Return the accuracy of all and of each category."""
    credits = [choice_credit(item, answer) for item, answer in zip(items, answers, strict=True)]
    return shares_by_group("accuracy", items, credits)


def asked_with_options(question: str, options: Sequence[str], hint: str | None = None) -> str:
    """Return a question with its options as LLaVA-1.5 puts it: the hint, the question, an option a line."""
    return "\n".join([*([hint] if hint else []), question, lettered(options)])


def read_choices(data: Path) -> list[Item]:
    """Read JSON lines, of a file or of all `*.jsonl` of a folder.

    Each has `question`, `choices` (texts) and `answer` (a letter, or the number of the choice from 0), and may have
    `id`, `context`, `image` (a path or a list) and `category`.

    Raises:
        DataError: a line is malformed, or two have one id.
    """
    items: list[Item] = []
    seen: dict[str, str] = {}
    for path in find_files(data, ".jsonl"):
        for record in read_lines(path):
            item = _item(record.value, record.place, f"{path.stem}/{record.line}")
            if item.id in seen:
                raise DataError(item.place, f"the id '{item.id}' is that of {seen[item.id]} too. Give each its own.")
            seen[item.id] = item.place
            items.append(item)
    return items


def _item(value: dict[str, Any], place: str, name: str) -> Item:
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise DataError(place, f"unknown key '{unknown[0]}'. Known: {', '.join(KEYS)}.")
    question, options = field(value, "question", str, place), texts(value, "choices", place)
    if not 2 <= len(options) <= len(LETTERS):
        raise DataError(place, f"'choices' must be 2 to {len(LETTERS)} texts (got {len(options)}). {LAYOUTS}")
    for key in ("context", "category"):
        if value.get(key) is not None:
            field(value, key, str, place)
    image = value.get("image")
    images = () if image is None else texts({"image": [image] if isinstance(image, str) else image}, "image", place)
    return Item(
        str(value.get("id", name)),
        asked_with_options(question, options, value.get("context")),
        place,
        images,
        (_letter(value.get("answer"), options, place),),
        options,
        group=value.get("category") or "all",
    )


def _letter(answer: Any, options: Sequence[str], place: str) -> str:
    allowed = LETTERS[: len(options)]
    if isinstance(answer, str) and len(answer) == 1 and answer in allowed:
        return answer
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return LETTERS[answer]
    range_of = f"a letter of {allowed[0]} to {allowed[-1]} or a number of 0 to {len(options) - 1}"
    raise DataError(place, f"'answer' must be {range_of} (got {answer!r:.60}). Mend the line.")
