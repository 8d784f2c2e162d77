"""Texts and template pieces to token ids, many at a time and on all cores. What they mean is in `encode.py`.

A private copy of the tokenizer is used, so that no flag of a shared one is ever switched.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from tokenizers import Tokenizer

from mmtune.data.word_boundaries import SPACE_MARK, has_word_boundaries, steps
from mmtune.errors import ConfigError

PARALLELISM = "TOKENIZERS_PARALLELISM"
MAX_WORDS = 500_000
LONGEST_WORD = 40
BOUNDARY = re.compile(r"(?<=\S) (?=\S)")

_one_at_a_time = threading.RLock()
_is_forked = False


def _after_fork() -> None:
    """Go on without threads in a forked process: the library would wait forever for those that did not come along."""
    global _one_at_a_time, _is_forked
    _one_at_a_time, _is_forked = threading.RLock(), True


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _on_all_cores() -> Iterator[None]:
    """Let `tokenizers` use all cores, and leave the environment as it was.

    The command line switches its threads off, because forked workers of a DataLoader would warn of them: the library
    asks the environment at each call. Where nothing is set they are on.
    """
    with _one_at_a_time:
        before = os.environ.get(PARALLELISM)
        if before is not None and not _is_forked:
            os.environ[PARALLELISM] = "true"
        try:
            yield
        finally:
            if before is not None:
                os.environ[PARALLELISM] = before


class TextEncoder:
    """Encodes what people say and the pieces of a template.

    Where it is proven that words do not touch each other (`word_boundaries.py`), each word is tokenized once and
    looked up from then on, which is several times as fast; the ids are the same.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        protected: added tokens that are not special to the tokenizer, but control tokens to a template: no text may
            spell one.

    Attributes:
        special_ids: ids of all added tokens.
        prefix: where the tokenizer itself puts a space before a text (SentencePiece's dummy prefix): `never`, `first`
            at the start of a dialogue, or `always` behind a control token as well. Texts are encoded without it.
        doubles_prefix: whether it does so before a text that begins with a space too.
    """

    def __init__(self, tokenizer: Any, protected: frozenset[str] = frozenset()):
        if not tokenizer.is_fast:
            reason = f"its tokenizer ({type(tokenizer).__name__}) has no fast form."
            raise ConfigError("model.llm.name_or_path", f"{reason} Name a model with a tokenizer.json.")
        values = json.loads(tokenizer.backend_tokenizer.to_str())
        values |= {"truncation": None, "padding": None, "post_processor": None}
        whole = json.dumps(values)
        self.special_ids = {token["id"] for token in values["added_tokens"]}
        self._specials = [token["content"] for token in values["added_tokens"]]
        for token in values["added_tokens"]:
            token["special"] = token["special"] or token["content"] in protected
        self.prefix, self.doubles_prefix = _take_prefix(values)
        self._texts = Tokenizer.from_str(json.dumps(values))
        self._pieces = self._texts if self.prefix == "never" and not protected else Tokenizer.from_str(whole)
        self._by_words = has_word_boundaries(values)
        self._first: dict[str, tuple[int, ...]] = {"": ()}  # a text may begin with the space of its first word
        self._later: dict[str, tuple[int, ...]] = {}

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; special tokens that it spells are plain text."""
        if not self._by_words:
            return self._encode(texts)
        found = [self._look_up(text) for text in texts]
        rest = [number for number, ids in enumerate(found) if ids is None]
        if rest:
            for number, ids in zip(rest, self._by_new_words([texts[number] for number in rest]), strict=True):
                found[number] = ids
        return found  # type: ignore[return-value]

    def piece(self, piece: str, *, behind_text: bool) -> list[int]:
        """Return the ids of a template's piece; special tokens that it spells are themselves.

        Args:
            piece: the literal text.
            behind_text: whether it follows text, so that the tokenizer puts no space before it.
        """
        if not piece:
            return []
        at = 0
        if behind_text and self.prefix != "never":
            at = min((at for token in self._specials if (at := piece.find(token)) >= 0), default=len(piece))
        ids = self.texts([piece[:at]])[0] if at else []
        with _one_at_a_time:
            self._pieces.encode_special_tokens = False
            return ids + self._pieces.encode(piece[at:], add_special_tokens=False).ids if at < len(piece) else ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        with _on_all_cores():
            self._texts.encode_special_tokens = True
            return [encoding.ids for encoding in self._texts.encode_batch_fast(texts, add_special_tokens=False)]

    def _look_up(self, text: str) -> list[int] | None:
        """Return the ids of a text whose words are all known, or None. No known word ends with white space."""
        words = text.split(" ")
        try:
            first = self._first[words[0]]
            return [*first, *chain.from_iterable(map(self._later.__getitem__, words[1:]))]
        except KeyError:
            return None

    def _by_new_words(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts of which some words are new, and remember what can be met again."""
        split = [[text] if SPACE_MARK in text else BOUNDARY.split(text) for text in texts]
        first: dict[str, Any] = {words[0]: self._first.get(words[0]) for words in split}
        later: dict[str, Any] = {word: self._later.get(word) for words in split for word in words[1:]}
        firsts = [word for word, ids in first.items() if ids is None]
        laters = [word for word, ids in later.items() if ids is None]
        encoded = map(tuple, self._encode([*firsts, *(f" {word}" for word in laters)]))
        for words, table, known in ((firsts, first, self._first), (laters, later, self._later)):
            new = dict(zip(words, islice(encoded, len(words)), strict=True))
            table.update(new)
            if len(known) < MAX_WORDS:
                known.update((word, ids) for word, ids in new.items() if _can_return(word))
        return [[*first[words[0]], *chain.from_iterable(map(later.__getitem__, words[1:]))] for words in split]


def _can_return(word: str) -> bool:
    """Whether a word may be looked up in a text that is split at all its spaces: then there is a boundary behind it."""
    return len(word) <= LONGEST_WORD and not (word[-1].isspace() or " " in word or SPACE_MARK in word)


def _take_prefix(values: dict[str, Any]) -> tuple[str, bool]:
    """Take the dummy prefix out of the values of a tokenizer; return `TextEncoder.prefix` and `doubles_prefix`."""
    prefix, doubles = "never", False
    normalizer = values["normalizer"]
    if normalizer is not None and normalizer["type"] == "Sequence":
        kept = [step for step in normalizer["normalizers"] if step["type"] != "Prepend"]
        if len(kept) < len(normalizer["normalizers"]):
            normalizer["normalizers"], prefix, doubles = kept, "always", True
    elif normalizer is not None and normalizer["type"] == "Prepend":
        values["normalizer"], prefix, doubles = None, "always", True
    for step in steps(values["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            prefix = step["prepend_scheme"] if prefix == "never" else prefix
            step["prepend_scheme"] = "never"
        elif step["type"] == "ByteLevel" and step["add_prefix_space"]:
            prefix, step["add_prefix_space"] = "always", False
    return prefix, doubles
