"""A dialogue with a model that may call tools: its calls are run, and what they return is read by it as text."""

from collections.abc import Callable, Sequence

from mmtune.build import Parts
from mmtune.chat.generate import Decoding, answer_text
from mmtune.chat.session import ChatSession, Tell
from mmtune.conversation import Message
from mmtune.data.call_pieces import NO_TOOLS
from mmtune.data.dialogue_encoder import encoder_of
from mmtune.data.formats_tools import offer
from mmtune.errors import ConfigError
from mmtune.tools.running import Limits, run_call
from mmtune.tools.tool import Tool


class ToolSession(ChatSession):
    """A dialogue in which the model may call tools.

    A call is known by its control token in the ids that the model made: no text, be it a question, a document or the
    result of a tool, can make one.

    Args:
        parts: the model.
        tools: that it may call.
        limits: of the calls.
        decoding: how answers are chosen.
        system: a system message, or None.
        tell: told each call and its result, as texts.
        context: see `ChatSession`.

    Raises:
        ConfigError: the model's chat template, or its tokenizer, has no form for calls.
    """

    def __init__(
        self,
        parts: Parts,
        tools: Sequence[Tool],
        limits: Limits | None = None,
        decoding: Decoding | None = None,
        system: str | None = None,
        tell: Callable[[str, str], None] = lambda call, result: None,
        context: int | None = None,
    ):
        pieces = encoder_of(parts.template, parts.tokenizer).calls
        if pieces is None or pieces.missing or parts.template.tools is None:
            raise ConfigError("--tools", f"this model's run {NO_TOOLS if pieces is None else pieces.missing}")
        self.tools, self.limits, self.tell = tools, limits or Limits(), tell
        self.calls, self.format = pieces, parts.template.tools
        super().__init__(parts, decoding, system, context)

    @property
    def opening(self) -> tuple[Message, ...]:
        """The turns before the first question: the tools stay on offer."""
        return (*super().opening, offer([tool.schema for tool in self.tools]))

    def split(self, answer: list[int]) -> tuple[list[int], list[list[int]]]:
        """Return what an answer says before its first call, and the ids within each of its calls."""
        return self.calls.split(answer)

    def _answer(self, on_text: Tell | None) -> str:
        """Let the model answer, running its calls on the way, as many as the limits allow."""
        num_calls = 0
        while True:
            answer = self._answer_ids(on_text)
            _, calls = self.split(answer)
            if not calls:
                return self.text(answer)
            results = []
            for ids in calls:
                call, num_calls = answer_text(self.parts, ids), num_calls + 1
                if num_calls > self.limits.num_calls:
                    result = f"error: no more calls: {self.limits.num_calls} were made. Answer now."
                else:
                    result = run_call(self.tools, call, self.format.arguments, self.limits)
                self.tell(call, result)
                results.append(result)
            self.exchanges[-1].said.append(Message("result", ("\n".join(results),)))
            if num_calls > self.limits.num_calls:
                return self.text(self._answer_ids(on_text))
