import io
import math
import shutil
import tracemalloc
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from reading import error_of

from mmtune.data.formats import parse_record
from mmtune.data.records import read_records


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, "PNG")
    return file.getvalue()


def found(path, **options):
    return [(record.line, record.problem or record.value) for record in read_records(path, **options)]


@pytest.fixture
def talks(record):
    """Two records with their image inside and one without."""
    return [
        record("<image>\nWhat?", "Red.", "Sure?", "Yes.", image={"bytes": png("red"), "path": "red.png"}),
        record("Hi", "Hello.") | {"image": None},
        record("<image>", "Blue.", image={"bytes": png("blue"), "path": None}),
    ]


def test_rows_of_parquet_become_records(tmp_path, talks):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(talks), path, row_group_size=2)
    assert found(path) == list(enumerate(talks, 1))
    slots = [parse_record(record).image_slots for record in read_records(path)]
    assert [[(slot.path, slot.data) for slot in each] for each in slots] == [
        [("red.png", png("red"))],
        [],
        [("image 1 of the record", png("blue"))],
    ]


def test_a_folder_of_parquet_files_is_one_source_with_the_place_of_each(tmp_path):
    for number in (2, 1):
        table = pa.Table.from_pylist([{"question": f"{number}?", "answer": "Yes."}] * 2)
        pq.write_table(table, tmp_path / f"train-0000{number}.parquet")
    records = list(read_records(tmp_path))
    places = [f"{tmp_path}/train-0000{shard}.parquet:{row}" for shard in (1, 2) for row in (1, 2)]
    assert [record.place for record in records] == places
    assert [record.value["question"] for record in records] == ["1?", "1?", "2?", "2?"]
    assert len(list(read_records(tmp_path / "*1.parquet"))) == 2


def test_plain_cells_become_text_and_empty_ones_nothing(tmp_path):
    columns = {
        "whole": pa.array([1, None, -3]),
        "float": pa.array([4.0, math.nan, 0.5]),
        "money": pa.array([Decimal("1.50"), None, Decimal("2.00")]),
        "text": pa.array(["x", "", None]),
        "word": pa.array(["a", None, "a"]).dictionary_encode(),
        "flag": pa.array([True, False, None]),
        "list": pa.array([[1], [], None]),
    }
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table(columns), path)
    assert found(path) == [
        (1, dict(zip(columns, ["1", "4", "1.50", "x", "a", True, [1]], strict=True))),
        (2, dict(zip(columns, [None, None, None, None, None, False, []], strict=True))),
        (3, dict(zip(columns, ["-3", "0.5", "2.00", None, "a", None, None], strict=True))),
    ]


def test_a_text_that_is_not_utf8_is_a_problem_and_the_table_goes_on(tmp_path):
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"one", b"caf\xe9", b"three"]).buffers())
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    problem = "a text holds bytes that are not UTF-8. Write the row again."
    assert found(path) == [(1, {"text": "one"}), (2, problem), (3, {"text": "three"})]


def test_memory_holds_a_batch_and_not_the_table(tmp_path):
    path = tmp_path / "data.parquet"
    schema = pa.schema({"text": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    noise = bytes(range(256)) * 4000
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for number in range(30):
            rows = [{"text": str(number), "image": {"bytes": noise, "path": None}} for _ in range(4)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    assert path.stat().st_size > 120_000_000
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    arrow_bytes = [pa.total_allocated_bytes() - before for _ in read_records(path)]
    assert len(arrow_bytes) == 120
    assert max(arrow_bytes) < 60_000_000
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


def test_broken_parquet_files_say_why(tmp_path):
    path = tmp_path / "data.parquet"
    table = pa.table({"text": [f"{number} " * 50 for number in range(5000)]})
    pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path}: cannot be read as parquet: Parquet magic bytes not found in footer" in error_of(path)
    path.write_bytes(content[:-40_000] + b"\xff" * 39_000 + content[-1000:])
    assert "cannot be read as parquet: " in error_of(path)
    pq.write_table(table.slice(0, 0), path)
    assert "the table has no rows" in error_of(path)


@pytest.fixture
def saved(tmp_path, talks):
    """A folder that `datasets` saved, with an Image column and a list of images."""
    features = datasets.Features(
        {
            "conversations": datasets.List({"from": datasets.Value("string"), "value": datasets.Value("string")}),
            "image": datasets.Image(),
            "more": datasets.List(datasets.Image()),
            "id": datasets.Value("int64"),
        }
    )
    rows = [{**talk, "more": [talk["image"]], "id": number} for number, talk in enumerate(talks)]
    return datasets.Dataset.from_list(rows, features=features)


def test_a_saved_dataset_is_read_without_decoding_an_image(tmp_path, saved, talks, monkeypatch):
    saved.save_to_disk(tmp_path / "set")
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("an image was decoded"))
    records = list(read_records(tmp_path / "set"))
    assert [record.place for record in records] == [f"{tmp_path}/set:{number}" for number in (1, 2, 3)]
    assert [record.value["image"] for record in records] == [talk["image"] for talk in talks]
    assert records[0].value["more"] == [talks[0]["image"]]
    assert [record.value["id"] for record in records] == ["0", "1", "2"]
    assert [parse_record(record).image_slots[0].data for record in records[::2]] == [png("red"), png("blue")]


def test_a_saved_selection_keeps_its_order(tmp_path, saved):
    saved.select([2, 0]).save_to_disk(tmp_path / "set")
    assert [value["id"] for _, value in found(tmp_path / "set")] == ["2", "0"]


def test_splits_of_a_saved_dataset_are_named(tmp_path, saved):
    splits = datasets.DatasetDict({"train": saved.select([0]), "validation": saved.select([1, 2])})
    splits.save_to_disk(tmp_path / "set")
    assert [value["id"] for _, value in found(tmp_path / "set")] == ["0"]
    records = list(read_records(tmp_path / "set", split="validation"))
    assert [record.place for record in records] == [f"{tmp_path}/set/validation:{row}" for row in (1, 2)]
    message = error_of(tmp_path / "set", split="validaton")
    assert "has no split 'validaton'. Did you mean 'validation'? Its splits are train, validation." in message
    message = error_of(tmp_path / "set" / "train", split="test")
    assert "has no splits (got 'test'). Leave the split out." in message
    shutil.rmtree(tmp_path / "set" / "train")
    (tmp_path / "set" / "train").mkdir()
    assert "has no split 'train'. Its splits are validation." in error_of(tmp_path / "set")


def test_a_broken_saved_dataset_says_why(tmp_path, saved):
    saved.save_to_disk(tmp_path / "set")
    for file in (tmp_path / "set").glob("*.arrow"):
        file.unlink()
    assert "cannot be read as a saved data set" in error_of(tmp_path / "set")
    saved.select([]).save_to_disk(tmp_path / "empty")
    assert "It is empty or broken: save it again." in error_of(tmp_path / "empty")


@pytest.fixture
def offline(desk, monkeypatch):
    """`datasets` with its cache in the desk and without a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", desk / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return desk


def test_a_hub_name_goes_through_load_dataset(offline):
    """`load_dataset` takes a folder of that name before it asks the hub, which a test without a network may use."""
    folder = offline / "owner" / "name"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(pa.table({"question": [split], "answer": [1]}), folder / f"{split}.parquet")
    (record,) = read_records("hub:owner/name")
    assert (record.value, record.place) == ({"question": "train", "answer": "1"}, "hub:owner/name:1")
    assert found("hub:owner/name", split="test") == [(1, {"question": "test", "answer": "1"})]
    message = error_of("hub:owner/name", split="nope")
    assert message.startswith("hub:owner/name: cannot be loaded: Unknown split")
    assert error_of("hub:owner/name/config").startswith("hub:owner/name/config: cannot be loaded: BuilderConfig")


def test_a_hub_name_that_cannot_be_fetched_is_one_line(offline):
    message = error_of("hub:owner/nowhere")
    assert message.startswith("hub:owner/nowhere: cannot be loaded: ")
    assert message.endswith("Mend the name or the split, or check the network.")
