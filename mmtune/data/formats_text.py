"""The formats of single questions, captions, plain texts and message trees. Each function raises `ValueError`."""

from typing import Any

from mmtune.conversation import Conversation, Document, ImageSlot, Message
from mmtune.data.dialogue import kind_of, optional_text, text_of
from mmtune.data.image_values import IMAGE_MARK, ImageQueue, images_of

PAIRS = (
    ("question", "answer"),
    ("input", "output"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("query", "response"),
)
"""Keys of a question and its answer; of a record with several pairs, the first one here counts."""

NO_OUTPUT = "<nooutput>"
OASST_ROLES = {"prompter": "user", "assistant": "assistant"}


def caption(record: dict[str, Any]) -> Conversation:
    """Image and caption: `{"image": "a.jpg", "caption": "A cat."}`; the user turn is the image alone.

    With a `prompt` the user turn is the image, a line end and the prompt.
    """
    slots = images_of(record)
    text = record.get("caption")
    if not slots:
        raise ValueError("no 'image'. A caption record names its image.")
    if not isinstance(text, str):
        raise ValueError(f"'caption' must be a text (got {kind_of(text)}).")
    prompt = optional_text(record, "prompt")
    question: tuple[str | ImageSlot, ...] = (*slots, f"\n{prompt}") if prompt else tuple(slots)
    return Conversation((Message("user", question), Message("assistant", (text,))))


def alpaca(record: dict[str, Any]) -> Conversation:
    """Alpaca: `{"instruction": "Add.", "input": "1 + 2", "output": "3"}`.

    The question is the instruction, a line end and the input. `system`, `history` (a list of question and answer) and
    images may stand beside them.
    """
    history = record.get("history") or []
    if not isinstance(history, list):
        raise ValueError(f"'history' must be a list of question and answer (got {kind_of(history)}).")
    for turn in history:
        if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise ValueError("'history' must be a list of question and answer. Write [[question, answer], ...].")
    instruction, extra = optional_text(record, "instruction"), optional_text(record, "input")
    answer = text_of(record, "output")
    if answer.strip() == NO_OUTPUT:
        raise ValueError(f"'output' is {NO_OUTPUT}, which says that there is no answer. Drop the record.")
    question = "\n".join(text for text in (instruction, extra) if text)
    return _dialogue(record, [*((first, second) for first, second in history), (question, answer)])


def pairs(record: dict[str, Any]) -> Conversation:
    """Question and answer: `{"question": "What is this?", "answer": "A cat.", "image": "a.jpg"}`.

    The keys are one of `PAIRS`; `system` and images may stand beside them.
    """
    for first, second in PAIRS:
        if record.get(first) is not None and record.get(second) is not None:
            return _dialogue(record, [(text_of(record, first), text_of(record, second))])
    names = ", ".join("/".join(pair) for pair in PAIRS)
    found = ", ".join(map(str, record))
    raise ValueError(half_pair(record) or f"no question with its answer (got {found:.200}). Keys are {names}.")


def half_pair(record: dict[str, Any]) -> str:
    """What is wrong with a record that has one half of a pair; empty for one without any."""
    for first, second in PAIRS:
        for here, other in ((first, second), (second, first)):
            if record.get(here) is not None:
                return f"'{here}' has no '{other}' beside it. Add it, or name its column."
    return ""


def _dialogue(record: dict[str, Any], turns: list[tuple[str, str]]) -> Conversation:
    """A dialogue of questions and answers. Images without any mark stand before the first question."""
    slots = images_of(record)
    if slots and not any(IMAGE_MARK in question for question, _ in turns):
        question, answer = turns[0]
        turns[0] = (f"{IMAGE_MARK * len(slots)}\n{question}" if question else IMAGE_MARK * len(slots), answer)
    queue = ImageQueue(slots)
    system = optional_text(record, "system")
    messages = [Message("system", (system,))] if system else []
    for question, answer in turns:
        messages += (Message("user", queue.split_marks(question)), Message("assistant", (answer,)))
    queue.check("question")
    return Conversation(tuple(messages))


def text(record: dict[str, Any]) -> Document:
    """Plain text for pretraining: `{"text": "All of it is trained."}`."""
    if images_of(record):
        raise ValueError("a text for pretraining has no images. Name its text 'caption', or drop the image.")
    return Document(text_of(record, "text"))


def oasst(record: dict[str, Any]) -> Conversation:
    """OpenAssistant: a tree of messages, `{"prompt": {"role": "prompter", "text": "Hi", "replies": [...]}}`.

    The path goes from the root by the reply of the lowest rank, the first one where none is ranked, past deleted ones,
    and ends with its last answer.
    """
    node = record.get("prompt")
    if not isinstance(node, dict):
        if "parent_id" in record:
            raise ValueError(
                "a single OpenAssistant message, whose dialogue is spread over the file. "
                "Take the trees file instead, such as 2023-04-12_oasst_ready.trees.jsonl.gz."
            )
        raise ValueError(f"'prompt' must be a tree of messages (got {kind_of(node)}).")
    messages: list[Message] = []
    while node is not None:
        number = len(messages) + 1
        role = OASST_ROLES.get(str(node.get("role")))
        if role is None:
            found = node.get("role")
            raise ValueError(f"turn {number} has the unknown role {found!r:.40}. Roles are prompter and assistant.")
        if not isinstance(node.get("text"), str):
            raise ValueError(f"turn {number}: 'text' must be a text (got {kind_of(node.get('text'))}).")
        messages.append(Message(role, (node["text"],) if node["text"] else ()))  # type: ignore[arg-type]
        node = _best_reply(node, number)
    if messages[-1].role == "user":
        messages.pop()
    return Conversation(tuple(messages))


def _best_reply(node: dict[str, Any], number: int) -> dict[str, Any] | None:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise ValueError(f"turn {number}: 'replies' must be a list of messages.")
    kept = [reply for reply in replies if not reply.get("deleted")]
    ranks = [reply.get("rank") for reply in kept]
    if not all(rank is None or isinstance(rank, int | float) for rank in ranks):
        raise ValueError(f"turn {number}: the 'rank' of a reply must be a number.")
    order = [float("inf") if rank is None else rank for rank in ranks]
    return kept[order.index(min(order))] if kept else None
