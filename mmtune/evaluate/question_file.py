"""A questions file asked through a chat session, each question in a dialogue of its own; what is broken is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtune.chat.session import ChatSession
from mmtune.errors import DataError, MMTuneError
from mmtune.evaluate.questions import Question, each_question
from mmtune.plain_text import shortened

SHOWN_CHARACTERS = 60  # of the id of a question in an error


def ask_questions(
    session: ChatSession, path: Path | str, image_folder: Path | str | None = None
) -> Iterator[tuple[dict[str, Any], MMTuneError | None]]:
    """Yield an object for each question of a file, in order, and what went wrong where it was not answered.

    Objects hold `id`, `question`, `images`, `answer` and, where a reference is known, `correct`; or `error`, with `id`
    and `question` where they could be read.

    Args:
        session: asked; it is reset before each question.
        path: see `mmtune.evaluate.questions`.
        image_folder: what image paths are relative to; None takes the file's folder.
    """
    questions = each_question(path, image_folder)
    while True:
        try:
            question = next(questions, None)
        except DataError as error:  # the file cannot be read beyond this
            question = error
        if question is None:
            return
        if isinstance(question, DataError):
            yield {"error": str(question)}, question
            continue
        try:
            yield _answered(session, question), None
        except MMTuneError as error:
            told = type(error)(f"{path}, question {shortened(question.id, SHOWN_CHARACTERS)}", str(error))
            yield {"id": question.id, "question": question.question, "error": str(told)}, told


def _answered(session: ChatSession, question: Question) -> dict[str, Any]:
    session.reset()
    answer = session.ask(question.question, question.images)
    found: dict[str, Any] = {"id": question.id, "question": question.question, "images": list(question.images)}
    found["answer"] = answer
    is_right = question.is_right(answer)
    return found if is_right is None else found | {"correct": is_right}
