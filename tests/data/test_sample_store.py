import pickle
import random

import numpy as np
import pytest

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSlot, Sample
from mmtune.data.finding import Finding
from mmtune.data.sample_store import SampleStore
from mmtune.data.store_writer import EncodedRecord, StoreWriter
from mmtune.errors import DataError

NUM_IMAGE_TOKENS = 5


def random_sample(rng, line):
    ids, labels, slots = [7], [IGNORE_INDEX], []
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice(["prompt", "answer", "image"])
        if kind == "image":
            ids += [IMAGE_TOKEN_ID] * NUM_IMAGE_TOKENS
            labels += [IGNORE_INDEX] * NUM_IMAGE_TOKENS
            slots.append(ImageSlot(f"{rng.randint(0, 9)}.png"))
        else:
            new = [rng.randint(0, 92543) for _ in range(rng.randint(1, 9))]
            ids += new
            labels += new if kind == "answer" else [IGNORE_INDEX] * len(new)
    return Sample(ids, labels, tuple(slots), f"data.json:{line}", rng.choice([0, 3]))


def write(folder, records):
    folder.mkdir()
    writer = StoreWriter(folder, NUM_IMAGE_TOKENS)
    for batch in records:
        writer.add(batch)
    writer.close("content")
    return SampleStore(folder, "data.json")


def encoded(samples, line, file=""):
    return EncodedRecord(samples, line, file, (line, 2**64 - 1, line))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_samples_come_back_as_they_were_added(tmp_path, batch_size):
    rng = random.Random(0)
    samples = [random_sample(rng, line) for line in range(1, 101)]
    records = [encoded([sample], line) for line, sample in enumerate(samples, 1)]
    store = write(tmp_path / "s", [records[start : start + batch_size] for start in range(0, 100, batch_size)])
    assert len(store) == 100
    assert [store.sample(number) for number in range(100)] == samples
    assert [store.sample(number).num_cut_tokens for number in range(100)] == [s.num_cut_tokens for s in samples]
    assert store.arrays["lengths"].tolist() == [len(sample.input_ids) for sample in samples]
    assert store.arrays["num_supervised"].tolist() == [sample.num_supervised_tokens for sample in samples]
    assert store.num_distinct_images == len({path for sample in samples for path in sample.images})
    assert store.facts["num_records"] == store.facts["num_samples"] == 100


def test_an_image_is_one_token_on_disk(tmp_path):
    sample = Sample([1, *[IMAGE_TOKEN_ID] * 10, 2], [IGNORE_INDEX] * 11 + [2], (ImageSlot("a"), ImageSlot("a")))
    store = write(tmp_path / "s", [[encoded([sample], 1)]])
    assert store.arrays["tokens"].tolist() == [1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 2]
    assert store.num_distinct_images == 1


def test_a_record_may_be_several_samples_or_none(tmp_path):
    one, two = (Sample([1, token], [IGNORE_INDEX, token]) for token in (5, 6))
    store = write(tmp_path / "s", [[encoded([one, two], 3)], [], [encoded([one], 4, "other.json")]])
    assert [store.place(number) for number in range(3)] == ["data.json:3", "data.json:3", "other.json:4"]
    assert store.facts["num_records"] == 2


def test_images_that_records_hold_are_kept_beside_the_tokens(tmp_path):
    slots = (ImageSlot("x", data=b"first"), ImageSlot("shard.tar", 512, 20), ImageSlot("y", data=b"second one"))
    ids = [1] + [IMAGE_TOKEN_ID] * NUM_IMAGE_TOKENS * 3 + [2]
    sample = Sample(ids, [IGNORE_INDEX] * (len(ids) - 1) + [2], slots)
    store = write(tmp_path / "s", [[encoded([sample], 1)]])
    first, member, second = (store.image(number) for number in store.image_ids(0))
    assert member == ImageSlot("shard.tar", 512, 20)
    for slot, data in ((first, b"first"), (second, b"second one")):
        with open(slot.path, "rb") as file:
            file.seek(slot.offset)
            assert file.read(slot.size) == data


def test_a_store_travels_to_a_worker_as_its_folder(tmp_path):
    rng = random.Random(1)
    records = [encoded([random_sample(rng, line)], line) for line in range(1, 301)]
    store = write(tmp_path / "s", [records])
    travelling = pickle.dumps(store)
    assert len(travelling) < 1000
    assert pickle.loads(travelling).sample(299) == store.sample(299)


def test_findings_are_split_into_reason_and_mend(tmp_path):
    finding = Finding.of("", 7, "The answer is empty. Give it a text, or drop the record.")
    assert (finding.reason, finding.mend) == ("The answer is empty.", "Give it a text, or drop the record.")
    folder = tmp_path / "s"
    folder.mkdir()
    writer = StoreWriter(folder, 1)
    writer.add_problem(finding)
    writer.close("content")
    store = SampleStore(folder, "renamed.json")
    assert [(found.place, found.message) for found in store.problems()] == [("renamed.json:7", finding.message)]
    assert store.facts["num_records"] == store.facts["num_bad_records"] == 1
    assert len(store) == 0


def test_a_damaged_store_says_so(tmp_path):
    write(tmp_path / "s", [[encoded([Sample([1, 2], [IGNORE_INDEX, 2])], 1)]])
    tokens = tmp_path / "s" / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        SampleStore(tmp_path / "s", "data.json")


def test_images_of_some_samples(tmp_path):
    rng = random.Random(2)
    samples = [random_sample(rng, line) for line in range(1, 31)]
    store = write(tmp_path / "s", [[encoded([sample], line) for line, sample in enumerate(samples, 1)]])
    chosen = np.array([3, 3, 20, 7])
    expected = {path for number in chosen for path in samples[number].images}
    assert {store.image(number).path for number in store.images_of(chosen)} == expected
