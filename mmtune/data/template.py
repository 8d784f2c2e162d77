"""Chat templates as data: the literal pieces around what user and assistant say.

The pieces are encoded with control tokens on, what people say with control tokens off (`encode.py`). A new template
is one entry of `TEMPLATES`; the one that a tokenizer brings is read in `template_of_tokenizer.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmtune.data.tool_format import INTERNLM2_TOOLS, MARK, QWEN_TOOLS, ToolFormat


@dataclass(frozen=True)
class ChatTemplate:
    """The pieces of a chat format. `{text}` stands for what is said; no piece is added that a dialogue does not have.

    Attributes:
        system: around a system message; None where the format has no place for one.
        user: around a user turn; its end opens the assistant's turn.
        answer_end: closes an answer; supervised, since the model must learn to stop.
        separator: follows every closed answer; not supervised.
        answer_start: what the model says before its answer, such as the space behind `ASSISTANT:`; supervised.
        opening: before the first user turn of a dialogue without a system message, such as a default system prompt.
        user_after_system: around the user turn behind a system message, where the two are one turn; None: as `user`.
        bos: whether a dialogue opens with the tokenizer's BOS token.
        stop: the tokens that end a generated answer, besides the tokenizer's EOS.
        tools: how tools are written; None where the format has no place for them.
    """

    system: str | None
    user: str
    answer_end: str
    separator: str = ""
    answer_start: str = ""
    opening: str = ""
    user_after_system: str | None = None
    bos: bool = True
    stop: tuple[str, ...] = ()
    tools: ToolFormat | None = None

    def __post_init__(self) -> None:
        for piece in (self.system, self.user, self.user_after_system):
            assert piece is None or piece.count(MARK) == 1, piece
        assert MARK not in self.opening

    def around(self, role: str, previous: str | None) -> tuple[str, str]:
        """Return the pieces before and behind what is said in a turn.

        Args:
            role: whose turn.
            previous: the role of the turn before; None for the first.
        """
        if role == "assistant":
            return self.answer_start, self.answer_end + self.separator
        if role == "system":
            assert self.system is not None, "this template has no place for a system message"
            piece = self.system
        elif role in ("tools", "result"):
            assert self.tools is not None, "this template has no place for tools"
            piece = self.tools.offer if role == "tools" else self.tools.result
        elif previous == "system" and self.user_after_system is not None:
            piece = self.user_after_system
        else:
            piece = (self.opening if previous is None else "") + self.user
        before, after = piece.split(MARK)
        return before, after

    def render(self, turns: Sequence[tuple[str, str]], bos: str = "") -> str:
        """Return a dialogue as one text, such as a tokenizer's own chat template gives.

        Args:
            turns: (role, text) in order.
            bos: the tokenizer's BOS token.
        """
        rendered, previous = bos if self.bos else "", None
        for role, text in turns:
            before, after = self.around(role, previous)
            rendered, previous = rendered + before + text + after, role
        return rendered

    def has_place_for(self, role: str) -> bool:
        """Whether the format knows a role."""
        places = {"system": self.system, "tools": self.tools, "result": self.tools}
        return places.get(role, self.user) is not None

    @property
    def literals(self) -> str:
        """All pieces in one text."""
        pieces = [self.system, self.user, self.user_after_system, self.opening, self.answer_start, self.answer_end]
        if self.tools is not None:
            pieces += [self.tools.offer, self.tools.call, self.tools.result]
        return "".join(piece for piece in (*pieces, self.separator, *self.stop) if piece)


CHATML_SYSTEM = "<|im_start|>system\n{text}<|im_end|>\n"
CHATML_USER = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
_CHATML = ChatTemplate(
    system=CHATML_SYSTEM,
    user=CHATML_USER,
    answer_end="<|im_end|>",
    separator="\n",
    bos=False,
    stop=("<|im_end|>",),
)

TEMPLATES: dict[str, ChatTemplate] = {
    # InternLM2 technical report, section 2.2.2: ChatML behind one BOS.
    "internlm2_chat": ChatTemplate(
        system=CHATML_SYSTEM,
        user=CHATML_USER,
        answer_end="<|im_end|>",
        separator="\n",
        bos=True,
        stop=("<|im_end|>",),
        tools=INTERNLM2_TOOLS,
    ),
    # internlm/internlm-chat-7b, `build_inputs` of its modeling_internlm.py; the system line is XTuner's.
    "internlm_chat": ChatTemplate(
        system="<|System|>:{text}\n",
        user="<|User|>:{text}<eoh>\n<|Bot|>:",
        answer_end="<eoa>",
        separator="\n",
        stop=("<eoa>",),
    ),
    # OpenAI ChatML, as SmolLM2 and Qwen use it: no BOS. No default system prompt is ever added.
    "chatml": _CHATML,
    # Qwen/Qwen2.5-7B-Instruct, tokenizer_config.json, without its default system prompt; Qwen3 without thinking.
    "qwen_chat": replace(_CHATML, tools=QWEN_TOOLS),
    # meta-llama/Llama-2-7b-chat-hf, tokenizer_config.json: each round between BOS and EOS, no default system prompt.
    "llama2_chat": ChatTemplate(
        system="<s>[INST] <<SYS>>\n{text}\n<</SYS>>\n\n",
        user="<s>[INST] {text} [/INST]",
        user_after_system="{text} [/INST]",
        answer_start=" ",
        answer_end=" </s>",
        bos=False,
        stop=("</s>",),
    ),
    # meta-llama/Meta-Llama-3-8B-Instruct, tokenizer_config.json; Llama 3.1 and later add a date: take `tokenizer`.
    "llama3_chat": ChatTemplate(
        system="<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        answer_end="<|eot_id|>",
        stop=("<|eot_id|>",),
    ),
    # mistralai/Mistral-7B-Instruct-v0.2 and Mixtral-8x7B-Instruct-v0.1, tokenizer_config.json (format v1).
    "mistral": ChatTemplate(
        system=" [INST] {text}\n\n",
        user=" [INST] {text} [/INST]",
        user_after_system="{text} [/INST]",
        answer_start=" ",
        answer_end="</s>",
        stop=("</s>",),
    ),
    # FastChat, docs/vicuna_weights_version.md (v1.1 and later); LLaVA-1.5 is trained with it. No default system prompt.
    "vicuna": ChatTemplate(
        system="{text} ",
        user="USER: {text} ASSISTANT:",
        answer_start=" ",
        answer_end="</s>",
        stop=("</s>",),
    ),
    # google/gemma-3-4b-it, chat_template.json; gemma-7b-it writes the same and refuses system messages.
    "gemma": ChatTemplate(
        system="<start_of_turn>user\n{text}\n\n",
        user="<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n",
        user_after_system="{text}<end_of_turn>\n<start_of_turn>model\n",
        answer_end="<end_of_turn>",
        separator="\n",
        stop=("<end_of_turn>",),
    ),
    # microsoft/Phi-3.5-mini-instruct, tokenizer_config.json.
    "phi3": ChatTemplate(
        system="<|system|>\n{text}<|end|>\n",
        user="<|user|>\n{text}<|end|>\n<|assistant|>\n",
        answer_end="<|end|>",
        separator="\n",
        bos=False,
        stop=("<|end|>",),
    ),
    # microsoft/phi-4, tokenizer_config.json.
    "phi4": ChatTemplate(
        system="<|im_start|>system<|im_sep|>{text}<|im_end|>",
        user="<|im_start|>user<|im_sep|>{text}<|im_end|><|im_start|>assistant<|im_sep|>",
        answer_end="<|im_end|>",
        bos=False,
        stop=("<|im_end|>",),
    ),
    # HuggingFaceH4/zephyr-7b-beta, tokenizer_config.json.
    "zephyr": ChatTemplate(
        system="<|system|>\n{text}</s>\n",
        user="<|user|>\n{text}</s>\n<|assistant|>\n",
        answer_end="</s>",
        separator="\n",
        bos=False,
        stop=("</s>",),
    ),
    # deepseek-ai/DeepSeek-V2-Chat and deepseek-llm-7b-chat, tokenizer_config.json.
    "deepseek_chat": ChatTemplate(
        system="{text}\n\n",
        user="User: {text}\n\nAssistant:",
        answer_start=" ",
        answer_end="<｜end▁of▁sentence｜>",
        stop=("<｜end▁of▁sentence｜>",),
    ),
    # LLaVA's `plain`: the image, then the caption and a line end. Good for captions only.
    "plain": ChatTemplate(system="{text}\n", user="{text}", answer_end="\n", stop=("\n",)),
}

XTUNER_NAMES = {"phi3_chat": "phi3", "mixtral": "mistral", "deepseek_v2": "deepseek_chat"}
"""XTuner's names of templates that are called otherwise here; they are taken too."""

OTHERWISE_IN_XTUNER = ("llama2_chat", "vicuna", "mistral", "gemma", "phi3", "zephyr", "deepseek_chat")
"""Templates written here as the model's own makers write them, where XTuner's has other spaces, BOS or EOS."""
