"""Chat templates as data: the literal pieces around what user and assistant say.

The pieces are encoded with control tokens on, what people say with control tokens off (`encode.py`). A new template
is one entry of `TEMPLATES`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTemplate:
    """The pieces of a chat format. `{text}` stands for what is said; no piece is added that a dialogue does not have.

    Attributes:
        system: around a system message.
        user: around a user turn; its end opens the assistant's turn.
        answer_end: closes an answer; supervised, since the model must learn to stop.
        separator: follows every closed answer; not supervised.
        bos: whether a dialogue opens with the tokenizer's BOS token.
        stop: the tokens that end a generated answer, besides the tokenizer's EOS.
    """

    system: str
    user: str
    answer_end: str
    separator: str = ""
    bos: bool = True
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.system.count("{text}") == 1
        assert self.user.count("{text}") == 1


_CHATML = ChatTemplate(
    system="<|im_start|>system\n{text}<|im_end|>\n",
    user="<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
    answer_end="<|im_end|>",
    separator="\n",
    bos=False,
    stop=("<|im_end|>",),
)

TEMPLATES: dict[str, ChatTemplate] = {
    # InternLM2 technical report, section 2.2.2: ChatML behind one BOS.
    "internlm2_chat": ChatTemplate(
        system=_CHATML.system,
        user=_CHATML.user,
        answer_end="<|im_end|>",
        separator="\n",
        bos=True,
        stop=("<|im_end|>",),
    ),
    # OpenAI ChatML, as SmolLM2 and Qwen use it: no BOS. No default system prompt is ever added.
    "chatml": _CHATML,
    # LLaVA's `plain`: the image, then the caption and a line end. Good for captions only.
    "plain": ChatTemplate(system="{text}\n", user="{text}", answer_end="\n", stop=("\n",)),
}
