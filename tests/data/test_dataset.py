import pytest
import torch
from PIL import Image
from prepared_data import prepare, samples_of

from mmtune.errors import ConfigError, DataError

__all__ = ["prepare"]


def test_images_are_kept_when_the_first_record_has_none(prepare, record, data_file):
    texts = [record("Hi", "Hello.")]
    seeing = [record("<image>What?", "A cat.", image=f"{number}.png") for number in range(3)]
    dataset, _ = prepare(data_file(*texts, *seeing, *texts))
    items = [dataset[index] for index in range(5)]
    assert ["pixel_values" in item for item in items] == [False, True, True, True, False]
    assert items[1]["pixel_values"].shape == (1, 3, 16, 16)
    assert dataset.num_images.tolist() == [0, 1, 1, 1, 0]


def test_the_right_image_stands_in_each_slot(prepare, record, data_file):
    talk = record("<image> or <image>?", "Both.", "And <image>?", "Too.", image=["a.png", "b.png", "c.png"])
    dataset, _ = prepare(data_file(talk))
    reds = [round((float(image[0, 8, 8]) + 1) * 127.5) for image in dataset[0]["pixel_values"]]
    assert reds == [0, 40, 80]


def test_items_hold_ids_and_labels(prepare, record, data_file):
    dataset, _ = prepare(data_file(record("Hi", "Hello."), record("<image>", "A cat.", image="1.png")))
    assert len(dataset) == 2
    for index, (sample, length) in enumerate(zip(samples_of(dataset), dataset.lengths, strict=True)):
        item = dataset[index]
        assert item["input_ids"].tolist() == sample.input_ids
        assert item["labels"].tolist() == sample.labels
        assert item["input_ids"].dtype == item["labels"].dtype == torch.int64
        assert len(sample.input_ids) == length


def test_image_paths_start_at_the_data_file_or_at_the_image_folder(prepare, record, data_file, desk):
    path = data_file(record("<image>", "A cat.", image="1.png"))
    assert "pixel_values" in prepare(path)[0][0]
    (desk / "images").mkdir()
    (desk / "1.png").rename(desk / "images" / "1.png")
    assert "pixel_values" in prepare(path, image_folder="images")[0][0]
    with pytest.raises(DataError, match=r"1\.png is missing") as caught:
        prepare(path)
    assert caught.value.place == f"{path}:1"


def test_a_bad_record_stops_the_run_and_says_how_many_more_there_are(prepare, record, data_file):
    path = data_file(record("Hi", "Hello."), record("Hi"), record("Hi", ""), record("Hi", "Hello."))
    with pytest.raises(DataError, match=rf"{path.name}:2: .*\. 1 more: bad\.jsonl lists all"):
        prepare(path)


def test_skipped_records_are_counted_and_listed(prepare, record, data_file):
    path = data_file(
        record("Hi", "Hello."),
        record("Hi", ""),
        record("<image>", "A cat.", image="1.png"),
        record("What?", "A cat.", image="2.png"),
        record("q" * 300, "Too late."),
        record("Hi", "Hello." * 40),
        record("<image>", "A dog.", image="1.png"),
    )
    dataset, report = prepare(path, on_bad_record="skip")
    assert [dataset.place(index) for index in range(4)] == [f"{path}:{line}" for line in (1, 3, 6, 7)]
    assert (report.num_records, report.num_samples, report.num_cut) == (7, 4, 1)
    assert [finding.place for finding in report.problems] == [f"{path}:{line}" for line in (2, 4, 5)]
    words = ("answer is empty", "1 image but 0", "o answer is left within max_length")
    assert all(word in finding.reason for word, finding in zip(words, report.problems, strict=True))


@pytest.mark.parametrize("check_images", ["decode", "header", "none"])
def test_a_missing_image_is_skipped_and_listed(prepare, record, data_file, check_images):
    path = data_file(record("<image>", "A cat.", image="1.png"), record("Hi", "Hello."), draw=False)
    dataset, report = prepare(path, on_bad_record="skip", check_images=check_images)
    assert len(dataset) == 1
    assert "1.png is missing" in report.problems[0].reason


def test_a_corrupt_image_is_found_before_training_for_every_record_that_shows_it(prepare, record, data_file, desk):
    talks = [record("<image>", "A cat.", image="1.png"), record("Hi", "Yes."), record("<image>", "Or?", image="1.png")]
    path = data_file(*talks)
    (desk / "1.png").write_bytes((desk / "1.png").read_bytes()[:60])
    dataset, report = prepare(path, on_bad_record="skip")
    assert [dataset.place(0), *(finding.place for finding in report.problems)] == [f"{path}:{n}" for n in (2, 1, 3)]
    with pytest.raises(DataError, match=rf"{path.name}:1: .*1.png"):
        prepare(path)


def test_broken_lines_are_listed_and_the_others_trained(prepare, record, data_file, desk):
    path = data_file(record("Hi", "Hello."), record("Hi", "You."), name="data.jsonl")
    path.write_text('{"conv\n' + path.read_text())
    dataset, report = prepare(path, on_bad_record="skip")
    assert (len(dataset), report.num_records, report.problems[0].line) == (2, 3, 1)
    with pytest.raises(DataError, match=r"data\.jsonl:1: "):
        prepare(path)


def test_no_sample_left_is_an_error(prepare, record, data_file):
    with pytest.raises(ConfigError, match="no sample is left of 1 records"):
        prepare(data_file(record("Hi", "")), on_bad_record="skip")


def test_every_max_length_gives_a_supervised_sample_or_an_error(prepare, record, data_file):
    path = data_file(record("<image>\nQ1", "A1", "Q2<image>", "A2", image=["1.png", "2.png"]))
    whole, kept, refused = prepare(path, max_length=1000)[0].sample(0), [], []
    first_label = next(index for index, label in enumerate(whole.labels) if label >= 0)
    for max_length in range(first_label - 2, len(whole.input_ids) + 1):
        try:
            dataset, report = prepare(path, max_length=max_length, on_bad_record="skip")
        except ConfigError:
            refused.append(max_length)
            continue
        kept.append(max_length)
        sample = dataset.sample(0)
        assert sample.num_supervised_tokens > 0
        assert len(sample.input_ids) <= max_length
        assert report.num_cut == (len(sample.input_ids) < len(whole.input_ids))
    assert refused == [first_label - 2, first_label - 1, first_label]
    assert kept == list(range(first_label + 1, len(whole.input_ids) + 1))


def test_a_cut_off_image_is_not_opened(prepare, record, data_file):
    path = data_file(record("Hi", "Hello.", "<image>", "A cat.", image="1.png"))
    whole = prepare(path)[0].sample(0)
    dataset, report = prepare(path, max_length=whole.input_ids.index(-200) + 1)
    assert (dataset.sample(0).images, report.num_cut) == ((), 1)
    assert "pixel_values" not in dataset[0]


def test_a_corrupt_image_names_its_record_when_it_is_opened(prepare, record, data_file, desk):
    dataset, _ = prepare(path := data_file(record("<image>", "A cat.", image="1.png")))
    (desk / "1.png").write_text("no image")
    with pytest.raises(DataError, match=f"{path.name}:1: .*1.png: "):
        dataset[0]


def test_several_sources_are_mixed_and_each_keeps_its_image_folder(prepare, record, data_file, desk):
    (desk / "other").mkdir()
    first = data_file(record("<image>", "One.", image="1.png"), name="first.json")
    second = data_file(record("Hi", "Two."), record("<image>", "Three.", image="other/2.png"), name="second.json")
    Image.new("RGB", (8, 8), "white").save(desk / "other" / "2.png")
    dataset, report = prepare(first, second, repeat=2.0)
    assert [entry["num_samples_in_an_epoch"] for entry in report.sources] == [2, 4]
    places = sorted(dataset.place(index) for index in range(len(dataset)))
    assert places == sorted([f"{first}:1", f"{second}:1", f"{second}:2"] * 2)
    whites = [float(dataset[index]["pixel_values"].mean()) for index in range(6) if dataset.num_images[index]]
    assert sorted(whites)[-2:] == [1.0, 1.0]
    assert sorted(whites)[0] < 0
