"""From a record of a data source to a `Conversation` or a `Document`: the table of formats, and which one fits.

A format only says where roles, texts and images stand; the functions are in `formats_turns` and `formats_text`. The
rules every dialogue must keep are in `dialogue`.
"""

from collections.abc import Callable
from typing import Any

from mmtune.conversation import Conversation, Document
from mmtune.data.dialogue import check_conversation, check_document, kind_of
from mmtune.data.formats_agents import is_msagent, moss, msagent
from mmtune.data.formats_text import PAIRS, alpaca, caption, half_pair, oasst, pairs, text
from mmtune.data.formats_turns import llava, messages, sharegpt
from mmtune.data.record import Record
from mmtune.errors import DataError
from mmtune.lookup import lookup, nearest

Format = Callable[[dict[str, Any]], Conversation | Document]

FORMATS: dict[str, Format] = {
    "llava": llava,
    "sharegpt": sharegpt,
    "messages": messages,
    "oasst": oasst,
    "alpaca": alpaca,
    "pairs": pairs,
    "caption": caption,
    "text": text,
    "moss": moss,
    "msagent": msagent,
}
"""Format -> what reads a record of it."""

KEYS_OF_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("llava", ("conversations",)),
    ("messages", ("messages",)),
    ("oasst", ("message_tree_id", "prompt")),
    ("alpaca", ("instruction",)),
    *(("pairs", pair) for pair in PAIRS),
    ("caption", ("caption",)),
    ("text", ("text",)),
    ("moss", ("chat",)),
)
"""Format and the keys by which it is known: the first line whose keys all have a value counts. `sharegpt` has the keys
of `llava`, and `oasst` is known by its tree, MS-Agent by its marks: `_detected` tells them apart."""

NEAR_KEYS = {
    "conversation": "conversations",
    "message": "messages",
    "captions": "caption",
    "dialogue": "conversations",
    "instructions": "instruction",
    "questions": "question",
    "answers": "answer",
}

COLUMNS = (
    *("conversations", "messages", "image", "images", "caption", "prompt", "text", "system", "tools"),
    *("instruction", "input", "output", "history", "question", "answer", "response", "completion", "query"),
    *("chat", "meta_instruction"),
)
"""The keys that `columns` may give a record."""


def detect_format(record: Record) -> str:
    """Return the name of the format that a record is in, from its keys.

    Raises:
        DataError: none of the known keys is there.
    """
    try:
        return _detected(record.value if isinstance(record.value, dict) else {})
    except ValueError as error:
        raise DataError(record.place, str(error)) from None


def parse_record(
    record: Record,
    format_name: str | None = None,
    *,
    columns: dict[str, str] | None = None,
    prompt: str | None = None,
) -> Conversation | Document:
    """Return the checked conversation, or document, of one record.

    Args:
        record: the record and its place.
        format_name: a key of `FORMATS`; None detects it.
        columns: key of a format -> how the source calls it, such as `{"question": "Frage"}`.
        prompt: the question asked of captions; a caption's own `prompt` goes before it.

    Raises:
        DataError: the record cannot be read, breaks its format or a rule of `check_conversation`.
        ConfigError: there is no such format.
    """
    if record.problem:
        raise DataError(record.place, record.problem)
    value = record.value
    if not isinstance(value, dict):
        raise DataError(record.place, f"a record is a JSON object (got {kind_of(value)}).")
    try:
        if columns:
            value = _renamed(value, columns)
        name = format_name or _detected(value)
        if prompt and name == "caption" and value.get("prompt") is None:
            value = value | {"prompt": prompt}
        parsed = lookup(FORMATS, name, "format")(value)
        if isinstance(parsed, Conversation):
            check_conversation(parsed)
        else:
            check_document(parsed)
    except ValueError as error:
        raise DataError(record.place, str(error)) from None
    return parsed


def _detected(value: dict[str, Any]) -> str:
    if (turns := value.get("conversations")) is not None:
        if is_msagent(turns):
            return "msagent"
        first = turns[0] if isinstance(turns, list) and turns else None
        is_sharegpt = "system" in value or "tools" in value or (isinstance(first, dict) and "role" in first)
        return "sharegpt" if is_sharegpt else "llava"
    is_tree = isinstance(tree := value.get("prompt"), dict) and "replies" in tree
    if is_tree or ("message_id" in value and "parent_id" in value):  # a root's parent is null
        return "oasst"
    for name, keys in KEYS_OF_FORMATS:
        if all(value.get(key) is not None for key in keys):
            return name
    for name, keys in KEYS_OF_FORMATS:  # a key without a value says more than no format at all
        if all(key in value for key in keys):
            return name
    raise ValueError(_no_format(value))


def _no_format(value: dict[str, Any]) -> str:
    for wrong, right in NEAR_KEYS.items():
        if wrong in value:
            return f"key '{wrong}' is not known. Did you mean '{right}'? Rename it."
    if problem := half_pair(value):
        return problem
    found = ", ".join(map(str, value)) or "an object without keys"
    known = "conversations, messages, instruction, question and answer, caption, text"
    return f"no known format (got {found:.200}). A record has one of: {known}."


def _renamed(value: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """A record with the keys of its format, as far as `columns` names them."""
    for key, column in columns.items():
        if key not in COLUMNS:
            raise ValueError(f"columns name '{key}', which no format reads.{nearest(key, COLUMNS)}")
        if column not in value:
            names = [str(name) for name in value]
            raise ValueError(
                f"no column '{column}' (for '{key}').{nearest(column, names)} There are {', '.join(names):.200}."
            )
    rest = {key: each for key, each in value.items() if key not in columns.values()}
    return rest | {key: value[column] for key, column in columns.items()}
