"""What a dialogue may hold but hardly should: warnings for whoever checks data. Nothing here stops a run."""

import re

from mmtune.conversation import Conversation, Message

_SUSPICIONS = re.compile(
    r"(?P<mark><image>)"
    r"|(?P<control><\|[^|<>\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>)"
    r"|(?P<html></?(?:br|p|div|span|b|i|u|a|li|ul|ol|em|strong|table|tr|td|th|h[1-6]|img|font)\b[^<>]{0,200}>"
    r"|&(?:amp|nbsp|lt|gt|quot|apos|#\d{1,6}|#x[0-9a-f]{1,6});)"
    r"|(?P<mojibake>\ufffd)",
    re.IGNORECASE,
)
_MEANINGS = {
    "mark": "spells an image mark ({found}), which is text there",
    "control": "spells the control token {found}, which is trained as plain text",
    "html": "holds HTML ({found}). Clean the text unless it is meant",
    "mojibake": "holds the replacement character U+FFFD: a text that was decoded wrongly",
}
_KINDS = {
    "assistant": ("mark", "control", "html", "mojibake"),
    "system": ("mark", "mojibake"),
    "user": ("mark", "mojibake"),
    "tools": ("mojibake",),
    "result": ("mojibake",),
}
_NAMES = {
    "assistant": "the answer",
    "system": "the system message",
    "user": "the question",
    "tools": "the list of tools",
    "result": "the result",
}


def text_warnings(conversation: Conversation) -> list[str]:
    """Return what is allowed but suspicious in a dialogue, one line a turn and kind, with the first place as found.

    Args:
        conversation: a checked dialogue.

    Returns:
        Lines such as `turn 2: the answer holds HTML (<br>). Clean the text unless it is meant.`
    """
    warnings = []
    for number, message in enumerate(conversation.messages, 1):
        for kind, found in _suspicions(message).items():
            meaning = _MEANINGS[kind].format(found=found)
            warnings.append(f"turn {number}: {_NAMES[message.role]} {meaning}.")
    return warnings


def _suspicions(message: Message) -> dict[str, str]:
    """The kinds of suspicion in a message -> what was found first."""
    found: dict[str, str] = {}
    for part in message.content:
        if isinstance(part, str) and ("<" in part or "&" in part or "[" in part or "\ufffd" in part):
            for match in _SUSPICIONS.finditer(part):
                kind = str(match.lastgroup)
                if kind in _KINDS[message.role]:
                    found.setdefault(kind, match[0])
    return found
