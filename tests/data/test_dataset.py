import pytest
import torch

from mmtune.data.dataset import SampleDataset, SampleReport, read_samples
from mmtune.data.encode import encode
from mmtune.data.images import ImageTransform
from mmtune.data.template import TEMPLATES
from mmtune.errors import DataError

TRANSFORM = ImageTransform(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def read(tokenizer):
    """Return a function from a data file to its samples and the report."""

    def read(path, max_length=200, **options):
        report = SampleReport()

        def encode_one(conversation, place):
            sizes = {"num_image_tokens": 4, "max_length": max_length}
            return encode(conversation, TEMPLATES["chatml"], tokenizer, place=place, **sizes)

        samples = list(read_samples(path, encode_one, report, **options))
        assert report.num_records == report.num_samples + len(report.skipped)
        assert report.num_samples == len(samples)
        return samples, report

    return read


def test_images_are_kept_when_the_first_record_has_none(read, record, data_file):
    texts = [record("Hi", "Hello.")]
    seeing = [record("<image>What?", "A cat.", image=f"{number}.png") for number in range(3)]
    samples, _ = read(data_file(*texts, *seeing, *texts))
    items = [SampleDataset(samples, TRANSFORM)[index] for index in range(5)]
    assert ["pixel_values" in item for item in items] == [False, True, True, True, False]
    assert items[1]["pixel_values"].shape == (1, 3, 16, 16)


def test_the_right_image_stands_in_each_slot(read, record, data_file):
    talk = record("<image> or <image>?", "Both.", "And <image>?", "Too.", image=["a.png", "b.png", "c.png"])
    (sample,), _ = read(data_file(talk))
    pixels = SampleDataset([sample], TRANSFORM)[0]["pixel_values"]
    reds = [round((float(image[0, 8, 8]) + 1) * 127.5) for image in pixels]
    assert reds == [0, 40, 80]


def test_items_hold_ids_and_labels(read, record, data_file):
    samples, _ = read(data_file(record("Hi", "Hello."), record("<image>", "A cat.", image="1.png")))
    dataset = SampleDataset(samples, TRANSFORM)
    assert len(dataset) == 2
    for item, sample, length in zip((dataset[0], dataset[1]), samples, dataset.lengths, strict=True):
        assert item["input_ids"].tolist() == sample.input_ids
        assert item["labels"].tolist() == sample.labels
        assert item["input_ids"].dtype == item["labels"].dtype == torch.int64
        assert len(sample.input_ids) == length


def test_image_paths_start_at_the_data_file_or_at_the_image_folder(read, record, data_file, desk):
    path = data_file(record("<image>", "A cat.", image="1.png"))
    assert read(path)[0][0].images == (str(desk / "1.png"),)
    (desk / "images").mkdir()
    (desk / "1.png").rename(desk / "images" / "1.png")
    assert read(path, image_folder="images")[0][0].images == ("images/1.png",)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:1: image {desk / '1.png'} is missing (resolved to ")


def test_a_bad_record_stops_the_run(read, record, data_file):
    path = data_file(record("Hi", "Hello."), record("Hi"), record("Hi", "Hello."))
    with pytest.raises(DataError, match=f"{path.name}:2: the dialogue needs"):
        read(path)


def test_skipped_records_are_counted_and_listed(read, record, data_file):
    path = data_file(
        record("Hi", "Hello."),
        record("Hi", ""),
        record("<image>", "A cat.", image="1.png"),
        record("What?", "A cat.", image="2.png"),
        record("q" * 300, "Too late."),
        record("Hi", "Hello." * 40),
        record("<image>", "A dog.", image="1.png"),
    )
    samples, report = read(path, on_bad_record="skip")
    assert [sample.place for sample in samples] == [f"{path}:{line}" for line in (1, 3, 6, 7)]
    assert (report.num_records, report.num_samples, report.num_cut) == (7, 4, 1)
    assert [entry["place"] for entry in report.skipped] == [f"{path}:{line}" for line in (2, 4, 5)]
    words = ("the answer is empty", "Each image needs one mark", "no answer is left within max_length")
    assert all(word in entry["reason"] for word, entry in zip(words, report.skipped, strict=True))


def test_a_missing_image_is_skipped_and_listed(read, record, data_file):
    path = data_file(record("<image>", "A cat.", image="1.png"), record("Hi", "Hello."), draw=False)
    samples, report = read(path, on_bad_record="skip")
    assert len(samples) == 1
    assert "1.png is missing" in report.skipped[0]["reason"]


def test_a_broken_array_stops_the_run_even_where_bad_records_are_skipped(read, desk):
    (desk / "data.json").write_text('[{"conversations": []},\n{"conv\n')
    with pytest.raises(DataError, match=r"data\.json:2: broken JSON"):
        read(desk / "data.json", on_bad_record="skip")


def test_every_max_length_gives_a_supervised_sample_or_an_error(read, record, data_file):
    path = data_file(record("<image>\nQ1", "A1", "Q2<image>", "A2", image=["1.png", "2.png"]))
    ((whole,), _), kept, refused = read(path, max_length=1000), [], []
    for max_length in range(2, len(whole.input_ids) + 1):
        samples, report = read(path, max_length, on_bad_record="skip")
        (kept if samples else refused).append(max_length)
        for sample in samples:
            assert sample.num_supervised_tokens > 0
            assert len(sample.input_ids) <= max_length
            assert report.num_cut == (len(sample.input_ids) < len(whole.input_ids))
    first_label = next(index for index, label in enumerate(whole.labels) if label >= 0)
    assert refused == list(range(2, first_label + 1))
    assert kept == list(range(first_label + 1, len(whole.input_ids) + 1))


def test_a_cut_off_image_is_not_opened(read, record, data_file, desk):
    path = data_file(record("Hi", "Hello.", "<image>", "A cat.", image="1.png"))
    (whole,), _ = read(path)
    (sample,), report = read(path, max_length=whole.input_ids.index(-200) + 1)
    assert (sample.images, report.num_cut) == ((), 1)
    assert "pixel_values" not in SampleDataset([sample], TRANSFORM)[0]


def test_a_corrupt_image_names_its_record_when_it_is_opened(read, record, data_file, desk):
    samples, _ = read(path := data_file(record("<image>", "A cat.", image="1.png")))
    (desk / "1.png").write_text("no image")
    with pytest.raises(DataError, match=f"{path.name}:1: .*1.png: not an image"):
        SampleDataset(samples, TRANSFORM)[0]
