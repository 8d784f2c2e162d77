import os
from pathlib import Path

import pytest
from prepared_data import prepare, samples_of

import mmtune.data.prepare as preparing
from mmtune.data.check import odd_records
from mmtune.errors import DataError

__all__ = ["prepare"]


@pytest.fixture
def reads(monkeypatch):
    """The paths that were read, rather than found in the cache."""
    paths = []
    read_records = preparing.read_records

    def counting(path, **options):
        paths.append(path)
        return read_records(path, **options)

    monkeypatch.setattr(preparing, "read_records", counting)
    return paths


@pytest.fixture
def checked(monkeypatch):
    """How many images each check opened."""
    import mmtune.data.check as checking

    counts = []
    check_images = checking.check_images

    def counting(slots, **options):
        counts.append(len(slots))
        return check_images(slots, **options)

    monkeypatch.setattr(checking, "check_images", counting)
    return counts


def test_a_file_is_read_once_while_content_and_settings_stay(prepare, record, data_file, reads, desk):
    path = data_file(record("Hi", "Hello."), record("Hi", "You."))
    first = samples_of(prepare(path)[0])
    os.utime(path, (1, 1))
    assert samples_of(prepare(path)[0]) == first
    path.rename(desk / "renamed.json")
    again = samples_of(prepare("renamed.json")[0])
    assert [sample.place for sample in again] == ["renamed.json:1", "renamed.json:2"]
    assert [sample.input_ids for sample in again] == [sample.input_ids for sample in first]
    assert reads == [str(path)]


@pytest.mark.parametrize("change", [{"max_length": 150}, {"format": "llava"}, {"prompt": "What?"}])
def test_other_settings_are_prepared_anew(prepare, record, data_file, reads, change):
    path = data_file(record("Hi", "Hello."))
    prepare(path)
    prepare(path, **change)
    assert len(reads) == 2


def test_a_changed_file_is_prepared_anew(prepare, record, data_file, reads):
    prepare(path := data_file(record("Hi", "Hello.")))
    before = path.stat()
    path.write_text(path.read_text().replace("Hello.", "Hullo."))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    prepare(path)
    assert len(reads) == 2


def test_an_interrupted_preparation_leaves_nothing(prepare, record, data_file, monkeypatch, tmp_path):
    path = data_file(*[record("Hi", "Hello.")] * 5000)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing.StoreWriter, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(path)
    assert not list((tmp_path / "cache" / "data").iterdir())
    assert len(prepare(path)[0]) == 5000


def test_records_of_many_batches_stay_in_order(prepare, record, data_file):
    number = 3 * preparing.RECORDS_PER_BATCH + 17
    talks = [record(f"Q{index}", f"A{index}") if index % 7 else record("Q") for index in range(number)]
    dataset, report = prepare(data_file(*talks), on_bad_record="skip")
    good = [index for index in range(number) if index % 7]
    assert len(dataset) == len(good)
    assert [dataset.parts[0].store.position(i)[1] for i in range(len(good))] == [index + 1 for index in good]
    assert len(report.problems) == number - len(good)


def test_a_full_disk_is_one_line(prepare, record, data_file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing.StoreWriter, "add", full)
    with pytest.raises(DataError, match=r"cannot be prepared: No space left on device. .*MMTUNE_CACHE"):
        prepare(data_file(record("Hi", "Hello.")))


def test_images_that_passed_are_opened_again_only_when_they_change(prepare, record, data_file, checked, desk):
    talks = [record("<image>", "A cat.", image=f"{number}.png") for number in range(4)]
    path = data_file(*talks, *talks)
    prepare(path)
    prepare(path)
    assert checked == [4]
    (desk / "2.png").write_bytes((desk / "3.png").read_bytes() + b" ")
    prepare(path)
    assert checked == [4, 1]


def test_only_images_of_drawn_samples_are_opened(prepare, record, data_file, checked):
    talks = [record("<image>", "A cat.", image=f"{number}.png") for number in range(9)]
    prepare(data_file(*talks), limit=2)
    assert checked == [2]


def test_a_weaker_check_does_not_stand_in_for_a_stronger_one(prepare, record, data_file, checked):
    path = data_file(record("<image>", "A cat.", image="1.png"))
    for level in ("none", "header", "decode", "header"):
        prepare(path, check_images=level)
    assert checked == [1, 1]


def test_repeated_and_contradicting_records_are_found(prepare, record, data_file):
    talks = [
        record("<image>Colour?", "Red.", image="1.png"),
        record("Colour?", "Red."),
        record("<image>Colour?", "Blue.", image="1.png"),
        record("<image>Colour?", "Red.", image="1.png"),
        record("<image>Colour?", "Blue.", image="2.png"),
        record("<image>Colour?", "Red.", "Sure?", "Yes.", image="1.png"),
    ]
    dataset, _ = prepare(path := data_file(*talks))
    found = [(finding.line, finding.reason) for finding in odd_records([part.store for part in dataset.parts])]
    assert found == [
        (4, f"The same record stands at {path}:1."),
        (3, f"The same question has another answer at {path}:1."),
    ]


@pytest.mark.parametrize("source", ["data.json#3", "data.json"])
def test_a_number_behind_the_path_draws_so_many(prepare, record, data_file, source):
    data_file(*[record(f"Q{number}", "A") for number in range(10)])
    dataset, report = prepare(source)
    assert len(dataset) == (3 if "#" in source else 10)
    assert report.num_records == 10
    assert Path("data.json").is_file()
