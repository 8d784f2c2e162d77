"""Whether a tokenizer treats the words of a text one by one, so that each word needs to be tokenized only once.

A boundary is a single space between two characters that are no white space; the space goes with the word behind it.
What is known of a tokenizer is read from the values of its `tokenizer.json`.
"""

import re
from typing import Any

SPACE_MARK = "\u2581"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = tuple(
    rf"{ENDINGS}|{LETTERS}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}" for digits in (r"\p{N}", r"\p{N}{1,3}")
)
"""How Qwen2 and Llama 3 split texts. A space is only ever the first character of a piece or among white space."""


def has_word_boundaries(values: dict[str, Any]) -> bool:
    """Return whether the ids of a text are the ids of its words, one after the other. False where that is not proven.

    Args:
        values: of a `tokenizer.json`.
    """
    model = values["model"]
    if model["type"] != "BPE" or model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        return False
    if not all(_is_inside_words(token) for token in values["added_tokens"] if not token["special"]):
        return False
    splits = steps(values["pre_tokenizer"], "pretokenizers")
    if splits and splits[-1]["type"] == "ByteLevel":
        return _normalizes_words(values["normalizer"]) and _splits_before_spaces(splits)
    return _merges_words_alone(values, splits)


def _is_inside_words(token: dict[str, Any]) -> bool:
    """Whether an added token that texts may hold stands inside a word and takes no spaces around it."""
    return not re.search(rf"\s|{SPACE_MARK}", token["content"]) and not (
        token["lstrip"] or token["rstrip"] or token["single_word"]
    )


def steps(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return the parts of a Sequence of a `tokenizer.json`, or the one part."""
    if step is None:
        return []
    return [part for inner in step[key] for part in steps(inner, key)] if step["type"] == "Sequence" else [step]


def _normalizes_words(normalizer: dict[str, Any] | None) -> bool:
    """NFC composes no character with a space before it."""
    return all(step["type"] == "NFC" for step in steps(normalizer, "normalizers"))


def _splits_before_spaces(parts: list[dict[str, Any]]) -> bool:
    *splits, last = parts
    if last["add_prefix_space"]:
        return False
    known = [step for step in splits if step["type"] == "Split" and step["pattern"].get("Regex") in SPLITS]
    digits = [step for step in splits if step["type"] == "Digits"]
    isolated = all(step["behavior"] == "Isolated" and not step["invert"] for step in known)
    return isolated and len(known) + len(digits) == len(splits) and (bool(known) or last["use_regex"])


def _merges_words_alone(values: dict[str, Any], parts: list[dict[str, Any]]) -> bool:
    """SentencePiece's BPE merges whole texts: no token may reach over the boundary of two words."""
    if values["model"]["ignore_merges"] or any(step["type"] != "Metaspace" for step in parts):
        return False
    normalizers = steps(values["normalizer"], "normalizers")
    replaces = [step for step in normalizers if step["type"] == "Replace"]
    if replaces != normalizers or not (replaces or parts):
        return False
    if any(step["pattern"] != {"String": " "} or step["content"] != SPACE_MARK for step in replaces):
        return False
    over = re.compile(rf"[^\s{SPACE_MARK}]{SPACE_MARK}")
    return SPACE_MARK in values["model"]["vocab"] and not any(over.search(token) for token in values["model"]["vocab"])
