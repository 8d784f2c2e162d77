"""Samples that are read while training are those that are prepared, in an order of their own."""

import gzip
import io
import json
import os
import threading
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from prepared_data import NUM_IMAGE_TOKENS, TRANSFORM, prepare, samples_of

from mmtune.data.finding import Finding
from mmtune.data.image_folder import ImageFolder
from mmtune.data.prepare import RecordEncoder, Source
from mmtune.data.records import read_records, stream_records
from mmtune.data.stream import StreamDataset, StreamSource
from mmtune.data.template import TEMPLATES
from mmtune.errors import DataError

__all__ = ["prepare"]


@pytest.fixture
def stream(tokenizer, desk):
    """Return a function from paths to a stream; `max_length` is the encoder's, other words are the stream's."""

    def make(*paths, max_length=200, **options):
        encoder = RecordEncoder(tokenizer, TEMPLATES["chatml"], NUM_IMAGE_TOKENS, max_length)
        folders = [Path(path).parent for path in paths]
        sources = [
            StreamSource(Source(str(path)), ImageFolder(folder)) for path, folder in zip(paths, folders, strict=True)
        ]
        return StreamDataset(sources, encoder, TRANSFORM, **options)

    return make


def same(item, other):
    return item.keys() == other.keys() and all(torch.equal(item[name], other[name]) for name in item)


def of_a_pass(stream, num_samples):
    """The ids of so many samples, as hashable values."""
    return [tuple(item["input_ids"].tolist()) for item in islice(stream, num_samples)]


@pytest.fixture
def mixed(record, data_file):
    """Text, one image, two images, a long text in parts."""
    records = [
        record("Hi", "Hello."),
        record("<image>\nWhat?", "A square.", image="1.png"),
        record("<image> and <image>?", "Two squares.", image=["2.png", "3.png"]),
        {"text": "All cats sleep. " * 30},
        record("Bye", "Goodbye.", "Really?", "Yes."),
    ]
    return data_file(*records, name="mixed.jsonl")


def test_a_buffer_of_1_gives_the_prepared_samples_in_order(stream, prepare, mixed):
    dataset, _ = prepare(mixed)
    expected = [dataset[index] for index in range(len(dataset))]
    found = list(islice(stream(mixed, buffer_size=1), 2 * len(expected)))
    assert len(expected) > 5
    assert all(same(item, other) for item, other in zip(found, expected + expected, strict=True))


def test_a_buffer_shuffles_each_pass_by_seed_and_number(stream, data_file, record):
    path = data_file(*[record(f"Question {number}", f"Answer {number}.") for number in range(30)], name="t.jsonl")
    in_order = of_a_pass(stream(path, buffer_size=1), 30)
    first, second = (of_a_pass(stream(path, buffer_size=8, seed=seed), 60) for seed in (1, 2))
    assert first == of_a_pass(stream(path, buffer_size=8, seed=1), 60)
    passes = [first[:30], first[30:], second[:30], second[30:]]
    assert all(sorted(each) == sorted(in_order) for each in passes)
    assert len({tuple(each) for each in [*passes, in_order]}) == 5
    for position, ids in enumerate(passes[0]):
        assert in_order.index(ids) < position + 8, "a sample came before it was read"


def test_sources_are_read_in_turn_until_all_have_ended(stream, data_file, record):
    short = data_file(*[record(f"s{number}", "Yes.") for number in range(2)], name="short.jsonl")
    long = data_file(*[record(f"l{number}", "Yes.") for number in range(4)], name="long.json")
    alone = {path: of_a_pass(stream(path, buffer_size=1), 4) for path in (short, long)}
    (s0, s1, *_), (l0, l1, l2, l3) = alone[short], alone[long]
    assert of_a_pass(stream(short, long, buffer_size=1), 8) == [s0, l0, s1, l1, l2, l3, s0, l0]


def test_the_counts_add_up_at_every_sample(stream, mixed, desk):
    lines = mixed.read_text().splitlines()
    Path("mixed.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:4], '{"text": ""}', lines[4]]) + "\n")
    Path("3.png").write_bytes(b"no image")
    dataset = stream("mixed.jsonl", buffer_size=3, max_length=48, problems_path=desk / "bad.jsonl")
    num_samples = {0: 0, 1: 0, 2: 0}
    for item in dataset:
        counts = dataset.counts
        assert counts.num_records == counts.num_trained_records + counts.num_buffered_records + counts.num_bad_records
        num_samples[counts.num_passes - 1] += 1
        if counts.num_passes == 3:
            break
        assert len(item["input_ids"]) <= 48
    assert num_samples[0] == num_samples[1] > 5
    assert counts.num_samples == 2 * num_samples[0] + 1
    assert counts.num_cut_samples == 2, "the last dialogue, in each pass"
    listed = [Finding(**json.loads(line)) for line in Path("bad.jsonl").read_text().splitlines()]
    assert sorted(finding.line for finding in listed) == [2, 4, 6], "each is listed once, also in the second pass"
    assert any(f"image {desk}/3.png: " in finding.reason for finding in listed)
    assert 6 <= counts.num_bad_records <= 9


def test_a_bad_record_is_an_error_where_it_is_met(stream, data_file, record):
    path = data_file(record("Hi", "Hello."), record("Hi", ""), name="t.jsonl")
    items = iter(stream(path, buffer_size=1))
    next(items)
    with pytest.raises(DataError, match=r"t.jsonl:2: turn 2: the answer is empty"):
        next(items)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "image .*1.png is missing"), (b"", "image .*1.png: it is empty"), (b"GIF89a", "image .*1.png: ")],
)
def test_a_bad_image_is_an_error_with_the_place_of_its_record(stream, data_file, record, content, words):
    path = data_file(record("<image>", "A square.", image="1.png"), name="t.jsonl")
    Path("1.png").unlink() if content is None else Path("1.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"t.jsonl:1: {words}"):
        next(iter(stream(path)))


def test_a_stream_without_a_good_record_ends_with_an_error(stream, data_file, record, desk):
    path = data_file(record("Hi", ""), record("Hi", ""), name="t.jsonl")
    with pytest.raises(DataError, match=r"no sample is left of 2 records: all were skipped"):
        next(iter(stream(path, problems_path=desk / "bad.jsonl")))


def test_images_inside_records_and_shards(stream, prepare, desk):
    import pyarrow as pa
    import pyarrow.parquet as pq

    drawn = io.BytesIO()
    Image.new("RGB", (40, 32), (200, 90, 30)).save(drawn, "PNG")
    image = {"bytes": drawn.getvalue(), "path": None}
    pq.write_table(pa.table({"question": ["<image>What?"], "answer": ["A cat."], "image": [image]}), "a.parquet")
    (item,) = islice(stream("a.parquet"), 1)
    dataset, _ = prepare("a.parquet")
    assert same(item, dataset[0])
    assert item["pixel_values"].shape == (1, 3, 16, 16)


# ---------------------------------------------------------------- what can be read only once


def fed(path, content):
    """Write bytes into a pipe from a thread; a reader that leaves early is no error."""
    os.mkfifo(path)

    def write():
        with open(path, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_once_and_says_what_it_gave(stream, prepare, mixed, pack):
    writer = fed("feed", pack(mixed.read_bytes()))
    dataset, _ = prepare(mixed)
    items = iter(stream("feed", buffer_size=1))
    found = list(islice(items, len(dataset)))
    assert all(same(item, dataset[index]) for index, item in enumerate(found))
    message = f"^feed: ended after {len(dataset)} samples, and a pipe cannot be read again. Feed it more records"
    with pytest.raises(DataError, match=message):
        next(items)
    writer.join(10)
    assert not writer.is_alive()


def test_a_pipe_of_what_needs_jumps_is_refused(stream, desk):
    os.mkfifo("feed.parquet")
    with pytest.raises(DataError, match=r"a pipe cannot be read as \.parquet"):
        stream("feed.parquet").require_readable()


def test_a_missing_source_is_said_before_it_is_read(stream, desk):
    with pytest.raises(DataError, match=r"nowhere.jsonl: no such file"):
        stream("nowhere.jsonl").require_readable()


# ---------------------------------------------------------------- the hub, by folders of such names


@pytest.fixture
def hub(desk, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", desk / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = desk / "owner" / "name"
    folder.mkdir(parents=True)
    return folder


def test_a_hub_data_set_is_streamed_as_it_would_be_loaded(hub, stream, prepare, record):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split in ("train", "test"):
        columns = {"question": [f"{split} {number}" for number in range(40)], "answer": list(range(40))}
        pq.write_table(pa.table(columns), hub / f"{split}.parquet")
    streamed, loaded = (list(read("hub:owner/name")) for read in (stream_records, read_records))
    assert streamed == loaded
    assert (streamed[-1].place, streamed[-1].value) == ("hub:owner/name:40", {"question": "train 39", "answer": "39"})
    assert next(stream_records("hub:owner/name", split="test")).value["question"] == "test 0"
    dataset, _ = prepare("hub:owner/name")
    found = list(islice(stream("hub:owner/name", buffer_size=1), 50))
    expected = [sample.input_ids for sample in samples_of(dataset)]
    assert [item["input_ids"].tolist() for item in found] == expected + expected[:10]


def test_a_hub_data_set_of_json_lines_with_images(hub, stream, record, desk):
    lines = [record("<image>What?", f"Square {number}.", image="1.png") for number in range(3)]
    (hub / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    Image.new("RGB", (40, 32), (200, 90, 30)).save("1.png")
    dataset = stream("hub:owner/name", buffer_size=1)
    dataset.sources = [StreamSource(dataset.sources[0].source, ImageFolder(desk))]
    items = list(islice(dataset, 3))
    assert [item["pixel_values"].shape for item in items] == [(1, 3, 16, 16)] * 3
    assert not any((desk / "cache").rglob("*.arrow")), "a stream leaves nothing on the disk"


def test_a_hub_stream_that_cannot_be_had_or_breaks_off_is_one_line(hub, stream):
    with pytest.raises(DataError, match=r"^hub:owner/nowhere: cannot be loaded: "):
        stream("hub:owner/nowhere").require_readable()
    rows = [json.dumps({"text": f"row {number}"}) for number in range(20)]
    (hub / "train.jsonl").write_text("\n".join(rows) + "\n")
    (hub / "train2.jsonl").write_text('{"text": "row"\n')
    with pytest.raises(DataError, match=r"^hub:owner/name:16: the stream broke off soon after this row: .*resume"):
        list(stream_records("hub:owner/name"))


def test_errors_keep_their_kind_and_their_place_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(DataError("a.jsonl:3", "is wrong.  Mend it.")))
    assert (type(error), error.place, error.message) == (DataError, "a.jsonl:3", "is wrong. Mend it.")
