"""A run's tokenizer as a GGUF vocabulary: SentencePiece-like (`llama`) or byte-level BPE (`gpt2`)."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from mmtune.errors import ModelError
from mmtune.export.chat_format import UNUSED_TOKEN

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types of llama.cpp (`llama_token_type`)."""

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
SCORE_OF_CONTROL = -1000.0
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
"""Regular expressions that split text before BPE -> llama.cpp's name for them."""


@dataclass
class Vocabulary:
    """What a GGUF says of a tokenizer.

    Attributes:
        model: `llama` or `gpt2`.
        pre: llama.cpp's name of how text is split before BPE.
        tokens: one an embedding row.
        types: of each token.
        scores: of each token, the likelier merge first; for `llama`.
        merges: pairs in order.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str] = field(default_factory=list)


def gguf_vocabulary(tokenizer: Any, num_rows: int, place: str) -> Vocabulary:
    """Describe a fast tokenizer.

    Args:
        tokenizer: of the run.
        num_rows: rows of the embedding; rows without a token get an unused one.
        place: what to name in errors.

    Raises:
        ModelError: it is neither SentencePiece-like BPE nor byte-level BPE as llama.cpp knows it.
    """
    values = json.loads(tokenizer.backend_tokenizer.to_str())
    model = values["model"]
    if model["type"] != "BPE":
        raise ModelError(
            place, f"its tokenizer is {model['type']}, and gguf takes BPE. Take --format hf-llava or merged."
        )
    kind = "llama" if model.get("byte_fallback") else "gpt2"
    pre = "default" if kind == "llama" else _split_name(values["pre_tokenizer"], place)
    names = {number: token for token, number in model["vocab"].items()}
    added = {token["id"]: token for token in values["added_tokens"]}
    names |= {number: token["content"] for number, token in added.items()}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    found = Vocabulary(kind, pre, [], [], [], [" ".join(pair) for pair in pairs])
    for number in range(num_rows):
        name = names.get(number, "\0")
        kind_of_token = _type_of(name, added.get(number), name == tokenizer.unk_token)
        found.tokens.append(f"[PAD{number}]" if name == "\0" else name)  # C reads "\0" as no text
        found.types.append(kind_of_token)
        is_plain = kind_of_token in (NORMAL, BYTE)
        found.scores.append(-float(ranks.get(name, len(pairs))) if is_plain else SCORE_OF_CONTROL)
    return found


def _type_of(name: str, added: dict[str, Any] | None, is_unknown: bool) -> int:
    if is_unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added["special"] else USER_DEFINED
    if name == "\0" or UNUSED_TOKEN.fullmatch(name):
        return UNUSED
    return BYTE if BYTE_TOKEN.fullmatch(name) else NORMAL


def _split_name(pre_tokenizer: dict[str, Any] | None, place: str) -> str:
    """Return llama.cpp's name of a byte-level pre-tokenizer."""
    parts = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and parts[0]["pattern"].get("Regex") in SPLITS:
        return SPLITS[parts[0]["pattern"]["Regex"]]
    message = f"its tokenizer splits text ({', '.join(kinds) or 'nothing'}) in a way that llama.cpp has no name for."
    raise ModelError(place, f"{message} Take --format hf-llava or merged.")
