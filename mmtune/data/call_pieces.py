"""The ids around calls of tools, and calls found in generated ids. Used by `dialogue_encoder.py` and by chat."""

from collections.abc import Sequence

from mmtune.data.text_encoder import TextEncoder
from mmtune.data.tool_format import MARK, ToolFormat

NO_TOOLS = (
    "uses tools, which this chat template has no form for. Take model.llm.chat_template internlm2_chat or qwen_chat, "
    "if the model knows it."
)


class CallPieces:
    """The pieces around calls as ids.

    Args:
        tools: how the chat format writes calls.
        encoder: of its tokenizer.

    Attributes:
        missing: why this tokenizer can write no call; empty where it can.
        start: the token that opens a call; no text can spell it.
        end: the token that closes a call.
        has_prefix: whether the tokenizer puts a space before the text of a call.
    """

    def __init__(self, tools: ToolFormat, encoder: TextEncoder):
        before, after = tools.call.split(MARK)
        self._before = encoder.piece(before, behind_text=True)
        self._before_first = encoder.piece(before.lstrip("\n"), behind_text=True)
        self._after = encoder.piece(after, behind_text=True)
        self.start, self.end = self._before_first[0], self._after[-1]
        self.has_prefix = encoder.prefix == "always" and self._before[-1] in encoder.special_ids
        self.missing = ""
        if not {self.start, self.end} <= encoder.special_ids:
            marks = f"{before.strip()} and {after.strip()}"
            self.missing = f"uses tools, and this tokenizer has no tokens {marks}. Take another model."

    def around(self, text: list[int], *, is_first_said: bool) -> list[int]:
        """Return the ids of a call; `is_first_said`: the answer says nothing before it."""
        return [*(self._before_first if is_first_said else self._before), *text, *self._after]

    def split(self, answer: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        """Return what an answer says before its first call, and the ids within each of its calls.

        A call that is not closed reaches to the end of the answer. What stands between or behind calls is no call.

        Args:
            answer: generated ids.
        """
        said: list[int] = []
        calls: list[list[int]] = []
        is_open = False
        for token in answer:
            if token == self.start:
                calls.append([])
                is_open = True
            elif token == self.end:
                is_open = False
            elif is_open:
                calls[-1].append(token)
            elif not calls:
                said.append(token)
        return said, calls
