"""Cached features of a frozen encoder: the same loss as live, and never those of another picture."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmtune.cli import main
from mmtune.models.vit_encoders import ClipEncoder
from mmtune.training.callbacks import read_log

CACHED = "data.cache_vision_features=true"


@pytest.fixture
def cache(workspace, monkeypatch):
    monkeypatch.setenv("MMTUNE_CACHE", str(workspace / "cache"))
    return workspace / "cache" / "features"


@pytest.fixture
def encoded_images(monkeypatch):
    """The number of images of every call of the encoder; those that only follow shapes do not count."""
    calls = []
    features = ClipEncoder.features

    def counting(self, pixel_values):
        if not pixel_values.is_meta:
            calls.append(len(pixel_values))
        return features(self, pixel_values)

    monkeypatch.setattr(ClipEncoder, "features", counting)
    return calls


def train(verb, name, *changes):
    assert main([verb, f"{verb}.yaml", f"train.output_dir=runs/{name}", *changes]) == 0
    return [entry["loss"] for entry in read_log(Path("runs") / name / "log.jsonl")]


@pytest.mark.parametrize("changes", [(), ("data.pack_to_max_length=true", "train.dataloader_num_workers=1")])
def test_cached_equals_live(cache, changes):
    for verb in ("pretrain", "finetune"):
        live = train(verb, "pretrain" if verb == "pretrain" else "live", *changes)
        cached = train(verb, f"{verb}-cached", *changes, CACHED)
        assert cached == pytest.approx(live, rel=1e-5)
    weights = [load_file(f"runs/{name}/projector.safetensors") for name in ("live", "finetune-cached")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


def test_an_image_is_encoded_once_in_all_epochs_and_runs(cache, encoded_images, capsys):
    train("pretrain", "pretrain", CACHED)
    num_contents = len({Path(f"{number}.png").read_bytes() for number in range(10)})
    assert sum(encoded_images) == num_contents
    assert f"features of {num_contents} images go to {cache}" in capsys.readouterr().err
    encoded_images.clear()
    train("finetune", "finetune", CACHED)
    assert not encoded_images


def test_a_changed_image_is_encoded_again(cache, encoded_images):
    train("pretrain", "pretrain", CACHED)
    encoded_images.clear()
    Image.new("RGB", (50, 20), (1, 2, 3)).save("4.png")
    live = train("finetune", "live")
    encoded_images.clear()
    assert train("finetune", "cached", CACHED) == pytest.approx(live, rel=1e-5)
    assert encoded_images == [1]


def test_another_encoder_or_preprocessing_has_other_features(cache, models, encoded_images, workspace):
    train("pretrain", "pretrain", CACHED)
    encoded_images.clear()
    train("pretrain", "layer", CACHED, "model.vision.feature_layer=-1")
    assert sum(encoded_images) > 0
    shutil.copytree(models / "clip", workspace / "clip")
    preprocessor = {"size": 32, "crop_size": 32, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (workspace / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    encoded_images.clear()
    train("pretrain", "mean", CACHED, "model.vision.name=clip")
    assert sum(encoded_images) > 0
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_cache_is_refused(cache, capsys):
    train("pretrain", "pretrain", CACHED)
    (path,) = cache.glob("*/features.bin")
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["pretrain", "pretrain.yaml", "train.output_dir=runs/again", CACHED]) == 2
    assert "cached features are damaged. Delete the folder" in capsys.readouterr().err


def test_what_an_interrupted_run_left_is_cut_off(cache):
    expected = train("pretrain", "pretrain", CACHED)
    (path,) = cache.glob("*/features.bin")
    with path.open("ab") as file:
        file.write(b"half a row")
    Image.new("RGB", (50, 20), (1, 2, 3)).save("unused.png")
    assert train("pretrain", "again", CACHED) == expected


def test_too_little_space_is_said_before_anything_is_written(cache, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    free = {True: usage(10**6, 10**6, 1000), False: usage(10**12, 0, 10**12)}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free["features" in str(folder)])
    assert main(["pretrain", "pretrain.yaml", CACHED]) == 2
    assert "too little space for the features of" in capsys.readouterr().err
    assert not list(cache.glob("*/features.bin"))


def test_an_image_that_changes_while_a_run_reads_it_is_an_error(cache):
    from mmtune.build import build_parts, cache_vision_features
    from mmtune.build_data import build_dataset, build_reader
    from mmtune.config import load_config
    from mmtune.errors import DataError

    config = load_config("pretrain.yaml", [], "pretrain")
    dataset, _ = build_dataset(config, build_reader(config.model))
    parts = build_parts(config.model, torch.device("cpu"))
    cache_vision_features(config.model, parts, dataset, lambda *_: None)
    row = int(np.flatnonzero(dataset.num_images)[0])
    assert dataset[row]["image_features"].shape == (1, 16, 16)
    name = dataset.sample(row).images[0]
    Image.new("RGB", (64, 64)).save(name)
    with pytest.raises(DataError, match="has changed since its features were cached"):
        dataset[row]


def test_only_a_frozen_encoder_is_cached(workspace, capsys):
    assert main(["finetune", "finetune.yaml", CACHED, "model.vision.tune=full"]) == 2
    assert "'data.cache_vision_features' needs a frozen vision encoder" in capsys.readouterr().err
