"""How chat formats write tools: those on offer, calls and results. What tools do is in `mmtune/tools`."""

import json
from dataclasses import dataclass
from typing import Literal

from mmtune.conversation import ToolCall

MARK = "{text}"


@dataclass(frozen=True)
class ToolFormat:
    """The pieces of a chat format for the use of tools. `{text}` stands for what is said.

    Attributes:
        offer: around the tools on offer; a turn behind the system message.
        call: around a call, behind the text of an answer. It begins and ends with tokens of the tokenizer (but for line
            ends), which no text can spell; supervised.
        result: around what a tool returned; its end opens the assistant's turn.
        arguments: the key of a call's arguments.
        listed: tools as one JSON list, or as one JSON object a line, in OpenAI's wrapping.
    """

    offer: str
    call: str
    result: str
    arguments: str
    listed: Literal["list", "lines"] = "list"

    def __post_init__(self) -> None:
        for piece in (self.offer, self.call, self.result):
            assert piece.count(MARK) == 1, piece

    def offer_text(self, tools: str) -> str:
        """Return the tools on offer as this format writes them, from a JSON list of them."""
        if self.listed == "list":
            return tools
        wrapped = ({"type": "function", "function": tool} for tool in json.loads(tools))
        return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in wrapped)

    def call_text(self, call: ToolCall) -> str:
        """Return the JSON text of a call."""
        arguments = json.loads(call.arguments)
        return json.dumps({"name": call.name, self.arguments: arguments}, ensure_ascii=False)


# InternLM2's chat/chat_format.md.
INTERNLM2_TOOLS = ToolFormat(
    offer="<|im_start|>system name=<|plugin|>\n{text}<|im_end|>\n",
    call="<|action_start|><|plugin|>\n{text}<|action_end|>",
    result="<|im_start|>environment name=<|plugin|>\n{text}<|im_end|>\n<|im_start|>assistant\n",
    arguments="parameters",
)
# Qwen/Qwen3-8B, tokenizer_config.json; Qwen2.5's too. Behind a system message the tools are a turn of their own here.
QWEN_TOOLS = ToolFormat(
    offer="<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{text}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML "
    'tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n',
    call="\n<tool_call>\n{text}\n</tool_call>",
    result="<|im_start|>user\n<tool_response>\n{text}\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    arguments="arguments",
    listed="lines",
)
