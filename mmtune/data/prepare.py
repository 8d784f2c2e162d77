"""From a data source to a `SampleStore`: read, parsed and encoded once, then found again in the cache.

What is kept depends on the content of the file, the tokenizer, the template and the settings, and on nothing else:
not on where images are, how sources are mixed or how batches are made. No image is opened.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mmtune.cache import cache_folder
from mmtune.conversation import Conversation, Document, ImageSlot, Message, Sample
from mmtune.data.encode import encode_batch
from mmtune.data.finding import Finding
from mmtune.data.formats import parse_record
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.data.sample_store import FACTS_FILE, SampleStore
from mmtune.data.source_key import source_key
from mmtune.data.store_writer import EncodedRecord, StoreWriter
from mmtune.data.template import ChatTemplate
from mmtune.data.text_warnings import text_warnings
from mmtune.errors import DataError
from mmtune.hashing import value_hash

STORE_VERSION = 2
RECORDS_PER_BATCH = 1024
FREE_BYTES_PER_SOURCE_BYTE = 2

Item = Conversation | Document


@dataclass(frozen=True)
class Source:
    """One source of records and how they are read.

    Attributes:
        path: a file, folder, pattern or `hub:` name; see `mmtune.data.records.read_records`.
        format: a key of `mmtune.data.formats.FORMATS`; None detects it record by record.
        columns: our key -> the source's name for it.
        prompt: what is asked of captions; None: nothing, the image alone.
        split: of a `datasets` folder or hub name.
        system: the system message of dialogues that have none; None: nothing.
    """

    path: str
    format: str | None = None
    columns: dict[str, str] | None = None
    prompt: str | None = None
    split: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class RecordEncoder:
    """How conversations and documents become samples.

    Attributes:
        tokenizer: a fast tokenizer of transformers.
        template: the chat template.
        num_image_tokens: how many ids an image takes.
        max_length: ids of a sample.
    """

    tokenizer: Any
    template: ChatTemplate
    num_image_tokens: int
    max_length: int

    def samples(self, items: list[Item], places: list[str]) -> list[list[Sample] | DataError]:
        """Return the samples of each item, or what is wrong with it."""
        sizes = {"num_image_tokens": self.num_image_tokens, "max_length": self.max_length}
        return encode_batch(items, places, self.template, self.tokenizer, **sizes)

    def fingerprint(self) -> str:
        """Return a hash of all that shapes the samples."""
        tokenizer, special = self.tokenizer, (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        text = tokenizer.backend_tokenizer.to_str()
        return value_hash([text, special, asdict(self.template), self.num_image_tokens, self.max_length])


def prepared(source: Source, encoder: RecordEncoder, progress: Callable[[int], None]) -> SampleStore:
    """Return the store of a source, made now or found in the cache.

    A store is written beside its place and renamed when it is whole, so that an interrupted preparation leaves
    nothing that could be taken for one, and two processes that make the same one do not meet, whether they are on one
    machine or on two that share the cache: the first that is done is taken.

    Args:
        source: what is read.
        encoder: turns conversations into samples.
        progress: told the number of records read, now and then; not called where the cache serves.

    Raises:
        DataError: the source cannot be read or holds no record, or the disk is full.
    """
    content = source_key(source.path, source.split)
    settings = {"version": STORE_VERSION, **asdict(source), "path": content}
    folder = cache_folder() / "data" / value_hash({**settings, "encoder": encoder.fingerprint()})[:32]
    if not (folder / FACTS_FILE).is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as beside:
                partial = Path(beside) / folder.name
                partial.mkdir()
                _require_space(source, partial)
                _write_store(source, encoder, partial, content, progress)
                _put_in_place(partial, folder)
        except OSError as error:
            message = f"cannot be prepared: {error.strerror}. Mend that, or name another folder with MMTUNE_CACHE."
            raise DataError(folder.parent, message) from None
    return SampleStore(folder, source.path)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename a whole store to its name, unless another process has made it meanwhile and may be reading it."""
    if folder.exists() and not (folder / FACTS_FILE).is_file():
        shutil.rmtree(folder)  # damaged
    try:
        os.replace(partial, folder)
    except OSError:
        if not (folder / FACTS_FILE).is_file():
            raise


def _require_space(source: Source, folder: Path) -> None:
    needed = Path(source.path).stat().st_size * FREE_BYTES_PER_SOURCE_BYTE if Path(source.path).is_file() else 0
    free = shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise DataError(folder.parent, f"too little space to prepare {source.path} ({sizes}). Set MMTUNE_CACHE.")


def _write_store(
    source: Source, encoder: RecordEncoder, folder: Path, content: str, progress: Callable[[int], None]
) -> None:
    writer = StoreWriter(folder, encoder.num_image_tokens)
    records = iter(read_records(source.path, split=source.split))
    while batch := list(islice(records, RECORDS_PER_BATCH)):
        _add(writer, source, batch, [_parsed(record, source) for record in batch], encoder)
        progress(writer.counts["num_records"])
    writer.close(content)


def parsed_record(record: Record, source: Source) -> Item:
    """Return the checked conversation or document of a record.

    Raises:
        DataError: it is bad.
    """
    item = parse_record(record, source.format, columns=source.columns, prompt=source.prompt)
    if source.system and isinstance(item, Conversation) and item.messages[0].role != "system":
        return Conversation((Message("system", (source.system,)), *item.messages))
    return item


def record_samples(record: Record, source: Source, encoder: RecordEncoder) -> list[Sample]:
    """Return the samples of one record, as `prepared` keeps them.

    Raises:
        DataError: it is bad.
    """
    (samples,) = encoder.samples([parsed_record(record, source)], [record.place])
    samples = _with_an_answer(samples, record.place)
    if isinstance(samples, DataError):
        raise samples
    return samples


def _parsed(record: Record, source: Source) -> Item | DataError:
    try:
        return parsed_record(record, source)
    except DataError as error:
        return error


def _add(
    writer: StoreWriter, source: Source, records: list[Record], items: list[Item | DataError], encoder: RecordEncoder
) -> None:
    """Add a batch of records to a store: the samples of the good ones, what is wrong with the others."""
    good = [(item, record) for item, record in zip(items, records, strict=True) if not isinstance(item, DataError)]
    encoded = iter(encoder.samples([item for item, _ in good], [record.place for _, record in good]))
    kept = []
    for item, record in zip(items, records, strict=True):
        file = "" if str(record.path) == source.path else str(record.path)
        samples = item if isinstance(item, DataError) else _with_an_answer(next(encoded), record.place)
        if isinstance(samples, DataError):
            writer.add_problem(Finding.of(file, record.line, samples.message))
            continue
        assert not isinstance(item, DataError)
        kept.append(EncodedRecord(samples, record.line, file, _hashes(item)))
        for message in text_warnings(item) if isinstance(item, Conversation) else ():
            writer.add_warning(Finding.of(file, record.line, message))
    writer.add(kept)


def _with_an_answer(samples: list[Sample] | DataError, place: str) -> list[Sample] | DataError:
    """The samples of a record, or an error where none of them has a supervised token."""
    if isinstance(samples, DataError) or any(sample.num_supervised_tokens for sample in samples):
        return samples
    num_cut = sum(sample.num_cut_tokens for sample in samples)
    return DataError(place, f"no answer is left within max_length ({num_cut} tokens cut). Raise data.max_length.")


def _hashes(item: Item) -> tuple[int, int, int]:
    """Of the first question with its images, the first answer and all that is said."""
    if isinstance(item, Document):
        number = _hash(item.text)
        return number, 0, number
    texts = ["\x1f".join([each.role, *map(_content, each.content), *map(repr, each.calls)]) for each in item.messages]
    end = next(number for number, message in enumerate(item.messages, 1) if message.role == "user")
    return _hash("\x1e".join(texts[:end])), _hash(texts[end]), _hash("\x1e".join(texts))


def _content(part: str | ImageSlot) -> str:
    if isinstance(part, str):
        return part
    content = hashlib.blake2b(part.data).hexdigest() if part.data is not None else ""
    return f"\x1d{'' if content else part.path}:{part.offset}:{part.size}:{content}"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
