"""Answers and lists of models as OpenAI's objects, and events of a stream. Errors: `refusals.py`."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtune.serve.answering import Ended

DONE = "data: [DONE]\n\n"
"""The event behind the last one of a stream."""


def event(value: dict[str, Any]) -> str:
    """Return an object as an event of a stream, in ASCII: some clients take U+2028 for the end of a line."""
    return f"data: {json.dumps(value)}\n\n"


def model_object(name: str, created: int) -> dict[str, Any]:
    """Return a model of `/v1/models`."""
    return {"id": name, "object": "model", "created": created, "owned_by": "mmtune"}


def model_list(names: Sequence[str], created: int) -> dict[str, Any]:
    """Return what `/v1/models` answers."""
    return {"object": "list", "data": [model_object(name, created) for name in names]}


@dataclass(frozen=True)
class Completion:
    """The objects that one answer is sent as.

    Attributes:
        model: which answers.
        id: of the answer.
        created: seconds since 1970.
    """

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, num_prompt_tokens: int, ended: Ended) -> dict[str, Any]:
        """Return the answer as one object."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended.reason}
        return self._object("chat.completion", [choice]) | {"usage": usage(num_prompt_tokens, ended)}

    def chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        """Return a piece of a streamed answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._object("chat.completion.chunk", [choice])

    def usage_chunk(self, num_prompt_tokens: int, ended: Ended) -> dict[str, Any]:
        """Return the last piece, with the numbers of tokens alone."""
        return self._object("chat.completion.chunk", []) | {"usage": usage(num_prompt_tokens, ended)}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def usage(num_prompt_tokens: int, ended: Ended) -> dict[str, int]:
    """Return the numbers of tokens; those of images are in the prompt's."""
    total = num_prompt_tokens + ended.num_answer_tokens
    return {"prompt_tokens": num_prompt_tokens, "completion_tokens": ended.num_answer_tokens, "total_tokens": total}
