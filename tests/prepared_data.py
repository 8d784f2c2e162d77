"""A fixture that prepares data files with the byte tokenizer: what training does before a model is loaded."""

import pytest

from mmtune.build_data import Reader, build_dataset, require_good
from mmtune.data.images import ImageTransform
from mmtune.data.template import TEMPLATES
from mmtune.schema import Config, DataSource

TRANSFORM = ImageTransform(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NUM_IMAGE_TOKENS = 4


@pytest.fixture
def prepare(tokenizer, tmp_path, monkeypatch):
    """Return a function from a data file to its dataset and report; other words are keys of the source or of `data`."""
    monkeypatch.setenv("MMTUNE_CACHE", str(tmp_path / "cache"))

    def run(*paths, max_length=200, on_bad_record="error", seed=42, check_images="decode", **source):
        config = Config()
        config.data.train = [DataSource(path=str(path), **source) for path in paths]
        config.data.max_length, config.data.on_bad_record = max_length, on_bad_record
        config.data.check_images, config.train.seed = check_images, seed
        reader = Reader(tokenizer, TEMPLATES["chatml"], NUM_IMAGE_TOKENS, TRANSFORM)
        dataset, report = build_dataset(config, reader)
        require_good(config.data, dataset, report, "bad.jsonl")
        assert report.num_records == report.num_good_records + len(report.problems)
        return dataset, report

    return run


def samples_of(dataset):
    return [dataset.sample(index) for index in range(len(dataset))]
