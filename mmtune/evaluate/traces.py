"""What of the questions and answers of a comparison stands in the data that a run was trained on.

The data is found through the run: its `config.yaml` names the files, `init_from`, `stack_on` and merges lead to the
runs before it. Images are compared by the SHA-256 of their files, texts by their words. Nothing is fetched.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmtune.build_data import image_folder_of, source_of
from mmtune.conversation import Conversation, Document, ImageSlot
from mmtune.data.arrow_records import HUB_PREFIX
from mmtune.data.image_bytes import read_bytes
from mmtune.data.image_folder import ImageFolder
from mmtune.data.prepare import parsed_record
from mmtune.data.records import data_files, read_once, read_records
from mmtune.data.source_key import source_key
from mmtune.errors import DataError
from mmtune.evaluate.metrics import normalize
from mmtune.run_folder import CONFIG_FILE, DATA_FILE, read_config, read_json
from mmtune.schema import DataSource

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_CHINESE_PUNCTUATION = str.maketrans("", "", "。！？，、；：“”‘’（）《》")
MIN_CUT_WORDS = 4
"""Words of a last sentence that was cut off, from which on its beginning alone is looked for."""


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, each normalized.

    >>> sentences("A man sits. He reads a book!"), sentences("一只猫。它睡觉")
    (['man sits', 'he reads book'], ['一只猫', '它睡觉'])
    """
    pieces = (normalize(piece.translate(_CHINESE_PUNCTUATION)) for piece in _SENTENCE_END.split(text))
    return [piece for piece in pieces if piece]


@dataclass
class Sought:
    """What is looked for in training data, so that a single pass over it keeps nothing else.

    Attributes:
        images: file that was asked about -> its SHA-256.
        sizes: bytes of these images; no file of another size is read.
        questions: normalized.
        sentences: of all answers, normalized.
        beginnings: number of words -> last sentences of so many words that were cut off.
    """

    images: dict[str, str] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)
    beginnings: dict[int, set[str]] = field(default_factory=dict)

    def add_question(self, question: str, image_files: Iterable[str]) -> None:
        """Look for a question and its images."""
        self.questions.add(normalize(question))
        for path in image_files:
            if path not in self.images:
                data = read_bytes(ImageSlot(path))
                self.images[path] = hashlib.sha256(data).hexdigest()
                self.sizes.add(len(data))

    def add_answer(self, answer: str) -> None:
        """Look for the sentences of an answer."""
        found = sentences(answer)
        self.sentences.update(found)
        if found and not answer.rstrip().endswith((".", "!", "?", "。", "！", "？")):
            num_words = len(found[-1].split())
            if num_words >= MIN_CUT_WORDS:
                self.beginnings.setdefault(num_words, set()).add(found[-1])


@dataclass
class Traces:
    """What was found: SHA-256 of images, normalized questions, normalized sentences of answers."""

    images: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)

    def add(self, other: "Traces") -> None:
        """Take in what was found elsewhere."""
        self.images |= other.images
        self.questions |= other.questions
        self.sentences |= other.sentences

    def has_question(self, question: str) -> bool:
        """Whether training asked this question, about whatever image."""
        return normalize(question) in self.questions

    def has_answer(self, answer: str) -> bool:
        """Whether every sentence of an answer stands in an answer of the training data."""
        found = sentences(answer)
        return bool(found) and all(sentence in self.sentences for sentence in found)


def training_sources(run: Path) -> tuple[list[DataSource], list[str]]:
    """Return what a run and those that it started from were trained on, and what is not known of it, a line each."""
    sources: list[DataSource] = []
    notes: list[str] = []
    pending, seen = [run], set()
    while pending:
        folder = pending.pop()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        if not (folder / CONFIG_FILE).is_file():
            notes.append(f"what {folder} was trained on is not known, and {run} started from it.")
            continue
        config, data = read_config(folder), read_json(folder / DATA_FILE)
        before = [*config.model.stack_on, *([config.model.init_from] if config.model.init_from else [])]
        if "merged_from" in data:
            pending += [Path(merged["run"]) for merged in data["merged_from"]]
            continue
        pending += map(Path, before)
        sources += config.data.train
        contents = {source["path"]: source["content"] for source in data.get("sources", ()) if "content" in source}
        notes += filter(None, (_doubt(given, contents, folder) for given in config.data.train))
        if config.data.validation_fraction:
            notes.append(
                f"a part of what {folder} names as its training data was held out, and counts as trained here."
            )
    return sources, list(dict.fromkeys(notes))


def _doubt(given: DataSource, contents: dict[str, str], run: Path) -> str:
    """Why what a source holds today may not be what was trained; empty where it is the same."""
    source = source_of(given)
    if reason := _unreadable(given):
        return f"{given.path}: {reason}, so that what {run} learned from it is not known."
    try:
        is_same = given.path not in contents or source_key(source.path, source.split) == contents[given.path]
    except DataError as error:
        return f"{given.path}: {error.message}"
    return "" if is_same else f"{given.path}: its content is no longer what {run} was trained on."


def _unreadable(given: DataSource) -> str:
    source = source_of(given)
    if source.path.startswith(HUB_PREFIX):
        return "a hub data set, which is not fetched for this"
    try:
        files = [] if os.path.isdir(source.path) else data_files(source.path)
    except DataError:
        files = [Path(source.path)]
    if not all(file.exists() for file in files):
        return f"no longer there (resolved to {os.path.abspath(source.path)})"
    return "a pipe, which is read only once" if read_once(source.path) else ""


def search(given: DataSource, sought: Sought) -> Traces:
    """Read a data source once and return what of the sought it holds; records that are bad were not trained.

    Raises:
        DataError: it can no longer be read to its end.
    """
    found = Traces()
    if _unreadable(given):
        return found
    source = source_of(given)
    images = _Images(image_folder_of(given, source), sought)
    for item in _items(given):
        if isinstance(item, Document):
            _add_sentences(found, item.text, sought)
            continue
        for message in item.messages:
            if message.role == "user":
                found.questions |= {normalize(message.text)} & sought.questions
            elif message.role == "assistant" and message.supervised:
                _add_sentences(found, message.text, sought)
        found.images |= {digest for slot in item.image_slots if (digest := images.digest(slot)) is not None}
    return found


def _items(given: DataSource) -> Iterator[Conversation | Document]:
    source = source_of(given)
    for record in read_records(source.path, split=source.split):
        try:
            yield parsed_record(record, source)
        except DataError:
            continue


def _add_sentences(found: Traces, text: str, sought: Sought) -> None:
    for sentence in sentences(text):
        if sentence in sought.sentences:
            found.sentences.add(sentence)
        if sought.beginnings:
            parts = sentence.split()
            for num_words, beginnings in sought.beginnings.items():
                beginning = " ".join(parts[:num_words])
                if beginning in beginnings:
                    found.sentences.add(beginning)


class _Images:
    """Names the images of a source that are among the sought ones; each is looked at once."""

    def __init__(self, folder: ImageFolder, sought: Sought):
        self.folder, self.sought = folder, sought
        self.wanted = set(sought.images.values())
        self.known: dict[ImageSlot, str | None] = {}

    def digest(self, slot: ImageSlot) -> str | None:
        if slot.data is not None:
            return self._digest(slot)
        if slot not in self.known:
            self.known[slot] = self._digest(slot)
        return self.known[slot]

    def _digest(self, slot: ImageSlot) -> str | None:
        try:
            size = len(slot.data) if slot.data is not None else slot.size
            if size is None:
                place = self.folder.find(slot.path)
                slot, size = ImageSlot(place.path), place.size_bytes
            if size not in self.sought.sizes:
                return None
            digest = hashlib.sha256(read_bytes(slot)).hexdigest()
        except ValueError:
            return None  # gone since
        return digest if digest in self.wanted else None
