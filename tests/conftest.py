"""Tiny models and small data files, written once a session or once a test; nothing is fetched."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmtune.config import apply_overrides
from mmtune.testing import byte_tokenizer, write_tiny_clip, write_tiny_llm

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores Ctrl-C


def pytest_configure(config):
    """Hide GPUs from the tests that need none: they compare with the CPU to the bit."""
    if "not gpu" in config.getoption("markexpr"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@dataclass(frozen=True)
class Tiny:
    """Folders of tiny models; the projector of one language model does not fit the other."""

    llm: Path
    wide_llm: Path
    clip: Path


@pytest.fixture(scope="session", autouse=True)
def prepared_data_cache(tmp_path_factory):
    """Keep prepared data of tests out of the user's cache; converted models stay there, they take minutes."""
    folder = tmp_path_factory.mktemp("cache")

    def cache_folder():
        return Path(os.environ.get("MMTUNE_CACHE", folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmtune.data.prepare.cache_folder", cache_folder)
        patch.setattr("mmtune.build.cache_folder", cache_folder)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return Tiny(
        write_tiny_llm(folder / "llm"),
        write_tiny_llm(folder / "wide_llm", hidden_size=48),
        write_tiny_clip(folder / "clip"),
    )


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def fixtures_folder():
    if "MMTUNE_FIXTURES" not in os.environ:
        pytest.skip("MMTUNE_FIXTURES is not set")
    return Path(os.environ["MMTUNE_FIXTURES"])


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty working directory; relative paths start here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def record():
    """Return a factory of LLaVA records: turns from the human's first, and maybe an image."""

    def make(*turns, image=None, **keys):
        sides = ("human", "gpt")
        talk = [{"from": sides[number % 2], "value": text} for number, text in enumerate(turns)]
        return {"conversations": talk} | ({} if image is None else {"image": image}) | keys

    return make


@pytest.fixture
def data_file(desk):
    """Return a factory of data files: records, and a 40 x 32 PNG for each image that they name."""

    def write(*records, name="data.json", draw=True):
        for record in records if draw else ():
            images = record.get("image", [])
            for number, image in enumerate([images] if isinstance(images, str) else images):
                Image.new("RGB", (40, 32), (40 * number, 90, 160)).save(desk / image)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        is_lines = name.endswith(".jsonl")
        text = "\n".join(lines) if is_lines else "[" + ",\n".join(lines) + "]"
        (desk / name).write_text(text + "\n", encoding="utf-8")
        return desk / name

    return write


@pytest.fixture
def config_file(desk, tiny):
    """Return a factory of training configs over the tiny models; `changes` are `section.name=value` texts."""

    def write(*changes, name="config.yaml"):
        values = {
            "model": {
                "llm": {"name_or_path": str(tiny.llm), "chat_template": "chatml", "dtype": "float32"},
                "vision": {"source": "transformers", "name": str(tiny.clip)},
                "projector": {"kind": "mlp2x_gelu"},
            },
            "data": {"train": [{"path": "data.json"}], "max_length": 128},
            "train": {
                "output_dir": "run",
                "per_device_train_batch_size": 1,
                "max_steps": 1,
                "save_steps": 0,
                "device": "cpu",
            },
        }
        apply_overrides(values, list(changes))
        (desk / name).write_text(yaml.safe_dump(values), encoding="utf-8")
        return name

    return write
