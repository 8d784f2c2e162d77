"""What a page shows of a dialogue, as values: turns, and the pieces that they grow by."""

from dataclasses import dataclass

from mmtune.chat.session import ChatSession
from mmtune.conversation import Message


@dataclass(frozen=True)
class Turn:
    """A question with its answer, as it is shown.

    Attributes:
        question: the text.
        images: small copies in the folder of uploads.
        answer: None where it has not been begun.
    """

    question: str
    images: tuple[str, ...]
    answer: str | None


@dataclass(frozen=True)
class Piece:
    """What the worker tells while it answers.

    Attributes:
        side: of whom.
        text: that the answer goes on with; empty where it begins.
    """

    side: str
    text: str


def question_text(question: Message) -> str:
    """Return the text of a question as it was typed: `question_message` begins a line for each image."""
    return question.text[len(question.image_slots) :]


def was_asked(session: ChatSession, question: Message | None) -> bool:
    """Return whether a question is the last of a session."""
    return bool(session.exchanges) and session.exchanges[-1].question == question
