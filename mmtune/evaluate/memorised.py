"""Which answers of a comparison only repeat the training data: the flags of each answer, and a count for each run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtune.errors import DataError
from mmtune.evaluate.compare import BASE, Answer, Comparison
from mmtune.evaluate.questions import Question
from mmtune.evaluate.traces import Sought, Traces, search, training_sources
from mmtune.schema import DataSource

IMAGE_SEEN, QUESTION_SEEN, VERBATIM = "image", "question", "verbatim"
FLAG_LABELS = {
    IMAGE_SEEN: "image was trained on",
    QUESTION_SEEN: "question was trained on",
    VERBATIM: "verbatim in the training data",
}
MIN_TELLING_WORDS = 6


@dataclass(frozen=True)
class Memorised:
    """What the runs of a comparison were trained on, held against what they were asked and said.

    Attributes:
        flags: of each question, model -> keys of `FLAG_LABELS` that hold for its answer.
        counts: of each run: `model`; `images` and `text`: [memorised, answers] of questions with and without an image.
        notes: what is not known of the training data, a line each.
    """

    flags: list[dict[str, list[str]]]
    counts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def memorised(comparison: Comparison, names: list[str]) -> Memorised:
    """Search the training data of each run for what it was asked and what it answered.

    An answer about an image is memorised if the image was trained on and every sentence of the answer stands in an
    answer of the training data; one without an image, if the question was asked in training and the same holds.

    Args:
        comparison: with the answers.
        names: of the models, as they were given to `compare_models`.
    """
    sought = Sought()
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        sought.add_question(question.question, question.images)
        for answer in answers[: len(names)]:
            sought.add_answer(answer.text)
    flags: list[dict[str, list[str]]] = [{} for _ in comparison.questions]
    counts, notes = [], []
    found: list[tuple[DataSource, Traces]] = []
    for place, name in enumerate(names):
        if name == BASE:
            continue
        sources, doubts = training_sources(Path(name))
        notes += doubts
        traces = _traces(sources, sought, found, notes)
        counts.append(_count(comparison, place, traces, sought, flags))
    return Memorised(flags, counts, list(dict.fromkeys(notes)))


def _traces(
    sources: list[DataSource], sought: Sought, found: list[tuple[DataSource, Traces]], notes: list[str]
) -> Traces:
    """What is in all these sources; each is read once for all runs."""
    traces = Traces()
    for source in sources:
        known = next((traces_of for other, traces_of in found if other == source), None)
        if known is None:
            try:
                known = search(source, sought)
            except DataError as error:
                notes.append(f"{source.path}: not searched to its end: {error}")
                known = Traces()
            found.append((source, known))
        traces.add(known)
    return traces


def _count(
    comparison: Comparison, place: int, traces: Traces, sought: Sought, flags: list[dict[str, list[str]]]
) -> dict[str, Any]:
    counts = {"images": [0, 0], "text": [0, 0]}
    for number, (question, answers) in enumerate(zip(comparison.questions, comparison.answers, strict=True)):
        answer = answers[place]
        if answer.problem:
            continue
        own = _flags(question, answer, traces, sought)
        if own:
            flags[number][answer.model] = own
        count = counts["images" if question.images else "text"]
        count[0] += is_memorised(own, bool(question.images))
        count[1] += 1
    return {"model": comparison.models[place]["name"], **counts}


def _flags(question: Question, answer: Answer, traces: Traces, sought: Sought) -> list[str]:
    holds = {
        IMAGE_SEEN: any(sought.images[path] in traces.images for path in question.images),
        QUESTION_SEEN: traces.has_question(question.question),
        VERBATIM: traces.has_answer(answer.text),
    }
    return [flag for flag, is_so in holds.items() if is_so]


def memorised_lines(counts: list[dict[str, Any]], labels: dict[str, str]) -> list[str]:
    """Return a line for each run that only repeats some answers; where there is none, that of the last run says so.

    Args:
        counts: of `Memorised`.
        labels: name of a model -> what to call it.

    >>> memorised_lines([{"model": "finetune", "images": [4, 5], "text": [0, 0]}], {})
    ['memorised: 4 of 5 answers are verbatim sentences of the training set about training images (finetune)']
    """
    found: list[tuple[int, str]] = []
    for count in counts:
        for kind, about in (("images", "about training images"), ("text", "to questions that it asks")):
            number, total = count[kind]
            said = f"{number} of {total} answers are verbatim sentences of the training set {about}"
            if number or (total and count is counts[-1]):
                found.append((number, f"memorised: {said} ({labels.get(count['model'], count['model'])})"))
    return [line for number, line in found if number] or [line for _, line in found[:1]]


def is_memorised(flags: list[str], has_image: bool) -> bool:
    """Whether an answer to what was trained on stands in the training data."""
    return VERBATIM in flags and (IMAGE_SEEN if has_image else QUESTION_SEEN) in flags


def is_telling(flags: list[str], answer: str, has_image: bool) -> bool:
    """Whether it tells something that an answer stands in the training data.

    It does where the answer is memorised, and where it is long: of `A dog.` about a new image it says nothing, of a
    whole description it says that the model describes what it was trained on.
    """
    return is_memorised(flags, has_image) or (VERBATIM in flags and len(answer.split()) >= MIN_TELLING_WORDS)
