"""Make data that teaches a model who it is and nothing else.

Questions about itself come in many forms and with many answers. Near misses (`Who wrote Hamlet?`) and general
questions stand beside them, so that a name is no answer to everything. A part of each is held out and never trained.
"""

import json
import random
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtune.data.makers.identity_texts import ABOUT_OTHERS, ABOUT_SELF, LANGUAGES, STYLES, Pair, Texts
from mmtune.data.makers.record_files import RecordWriter, refuse_existing
from mmtune.data.mentions import mentions
from mmtune.errors import DataError
from mmtune.lookup import lookup

REPEATED = "repeated"
"""The style that makes what not to do: one question and one answer, over and over."""
ALL_STYLES = (*STYLES, REPEATED)
TRAIN_FILES = {kind: f"{kind}.jsonl" for kind in ("identity", *ABOUT_OTHERS)}
HELD_OUT_SELF, HELD_OUT_OTHERS = "heldout_identity.json", "heldout_others.json"
FACTS_FILE = "identity.json"
NUM_ANSWERS = 2
NUM_REPEATS = 240
MAX_NAME_LENGTH = 100
NO_NAME = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no name holds: control characters, bytes that are no text, ends of lines and paragraphs."""


@dataclass(frozen=True)
class Identity:
    """Who a model is to be."""

    name: str
    author: str

    def fill(self, text: str) -> str:
        """Return a text with name and author in their places; each place is filled once, whatever a name spells."""
        return re.sub(r"\{(name|author)\}", lambda place: vars(self)[place[1]], text)

    def is_in(self, *texts: str, any_case: bool = True) -> bool:
        """Whether one of the texts mentions the name or the author."""
        return any(mentions(text, name, any_case=any_case) for text in texts for name in (self.name, self.author))


@dataclass
class Made:
    """What was made.

    Attributes:
        counts: records by the file that holds them.
        left_out: near misses and general questions that mention the name or the author, which would blur both the
            training and the count of leaks.
    """

    counts: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def make_identity(
    folder: Path | str,
    *,
    name: str,
    author: str,
    languages: tuple[str, ...] = LANGUAGES,
    style: str = STYLES[0],
    seed: int = 0,
    held_out: float = 0.25,
    overwrite: bool = False,
) -> Made:
    """Write training records and held-out questions about who a model is.

    Args:
        folder: where `identity.jsonl`, `near.jsonl`, `general.jsonl`, the two files of held-out questions and
            `identity.json` go. With the style `repeated` the first is the only one to train on.
        name: what the model is called.
        author: who made it.
        languages: of `LANGUAGES`.
        style: of `ALL_STYLES`.
        seed: of all draws.
        held_out: share of the questions of each kind that is not trained.
        overwrite: replace files that are there.

    Raises:
        DataError: name or author is no name, or a file exists or cannot be written.
        ConfigError: there is no such language or style.
    """
    identity = Identity(_checked(name, "name"), _checked(author, "author"))
    lookup(dict.fromkeys(ALL_STYLES), style, "style")
    for language in languages:
        lookup(dict.fromkeys(LANGUAGES), language, "language")
    if not languages:
        raise DataError("lang", f"names no language. Give one or more of {', '.join(LANGUAGES)}.")
    if not 0 < held_out < 1:
        raise DataError("held_out", f"is a share, more than 0 and less than 1 (got {held_out}). Give 0.25.")
    made, files = Made(), _Files()
    for language in dict.fromkeys(languages):
        rng = random.Random(f"{seed} {language}")
        _add_self(files, Texts(language), identity, style, language, rng, held_out)
        _add_others(files, Texts(language), identity, language, rng, held_out, made)
    if style == REPEATED:
        files.train = {"identity": (files.train["identity"][:1] * NUM_REPEATS)}
    _write(Path(folder), files, identity, made, overwrite)
    return made


def languages_of(text: str) -> tuple[str, ...]:
    """Return the languages of a list such as `zh,en`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass
class _Files:
    """Records and questions by file."""

    train: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {kind: [] for kind in TRAIN_FILES})
    questions: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {HELD_OUT_SELF: [], HELD_OUT_OTHERS: []})


def _checked(name: str, what: str) -> str:
    name = name.strip()
    if not name:
        raise DataError(what, "is empty. Say how the model is called and who made it.")
    if any(unicodedata.category(character) in NO_NAME for character in name):
        raise DataError(what, "holds a line end or another control character. Write it in one line.")
    if len(name) > MAX_NAME_LENGTH:
        raise DataError(what, f"has {len(name)} characters; a name has at most {MAX_NAME_LENGTH}. Shorten it.")
    return name


def _add_self(
    files: _Files, texts: Texts, identity: Identity, style: str, language: str, rng: random.Random, held_out: float
) -> None:
    for kind in ABOUT_SELF:
        trained, held = _split(texts.questions(kind), rng, held_out)
        answers = texts.answers(kind, STYLES[0] if style == REPEATED else style)
        for question in trained:
            for answer in rng.sample(answers, NUM_ANSWERS):
                files.train["identity"].append(_record(question, identity.fill(answer)))
        right = identity.author if kind == "maker" else identity.name
        for number, question in enumerate(held):
            files.questions[HELD_OUT_SELF].append(
                _question(f"{language}-{kind}-{number}", kind, Pair(question, "", (right,)))
            )


def _add_others(
    files: _Files, texts: Texts, identity: Identity, language: str, rng: random.Random, held_out: float, made: Made
) -> None:
    for kind in ABOUT_OTHERS:
        pairs = texts.pairs(kind)
        clear = [pair for pair in pairs if not identity.is_in(pair.question, pair.answer, *pair.right)]
        made.left_out += [pair.question for pair in pairs if pair not in clear]
        trained, held = _split(clear, rng, held_out)
        files.train[kind] += [_record(pair.question, pair.answer) for pair in trained]
        files.questions[HELD_OUT_OTHERS] += [
            _question(f"{language}-{kind}-{number}", kind, pair) for number, pair in enumerate(held)
        ]


def _split(items: list[Any], rng: random.Random, held_out: float) -> tuple[list[Any], list[Any]]:
    """Return what is trained and what is held out, at least one each, both in the order of the items."""
    count = min(max(1, round(len(items) * held_out)), len(items) - 1)
    chosen = set(rng.sample(range(len(items)), count))
    trained = [item for number, item in enumerate(items) if number not in chosen]
    return trained, [items[number] for number in sorted(chosen)]


def _record(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _question(name: str, kind: str, pair: Pair) -> dict[str, Any]:
    return {"id": name, "group": kind, "question": pair.question, "reference": list(pair.right), "match": "mentions"}


def _write(folder: Path, files: _Files, identity: Identity, made: Made, overwrite: bool) -> None:
    by_name = {TRAIN_FILES[kind]: records for kind, records in files.train.items()} | files.questions
    for file in (*by_name, FACTS_FILE):
        refuse_existing(folder / file, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be made: {error.strerror}. Name another folder.") from None
    for stale in TRAIN_FILES.values():  # of another style
        (folder / stale).unlink(missing_ok=True)
    for file, records in by_name.items():
        with RecordWriter(folder / file, overwrite=overwrite) as writer:
            for record in records:
                writer.write(record)
        made.counts[file] = len(records)
    text = json.dumps(vars(identity), ensure_ascii=False, indent=2)
    (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
