"""A folder with tiny models, images and data, and the two training configs over them."""

import json
import random
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.testing import write_tiny_clip, write_tiny_llm
from mmtune.training.checkpoints import CheckpointWriter
from mmtune.training.meter import StepMeter
from mmtune.training.rows import choose_collator
from mmtune.training.trainer import RunTrainer

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "white": (245, 245, 245)}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_tiny_llm(folder / "llm")
    write_tiny_clip(folder / "clip")
    return folder


@pytest.fixture
def workspace(tmp_path, models, monkeypatch):
    """A working directory with data and configs; relative paths in configs start here."""
    monkeypatch.chdir(tmp_path)
    write_workspace(models)
    return tmp_path


def write_workspace(models):
    """Write the data and configs of `workspace` into the working directory."""
    rng = random.Random(0)
    captions, dialogues = [], []
    for number in range(10):
        name = rng.choice(list(COLOURS))
        Image.new("RGB", (rng.choice((32, 40)), 32), COLOURS[name]).save(f"{number}.png")
        ask = {"from": "human", "value": "<image>\nWhat colour?"}
        captions.append({"image": f"{number}.png", "conversations": [ask, {"from": "gpt", "value": f"It is {name}."}]})
        more = [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes. " * rng.randint(1, 4)}]
        dialogues.append({"image": f"{number}.png", "conversations": [*captions[-1]["conversations"], *more]})
    text = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello, you."}]
    dialogues[3] = {"conversations": text}
    Path("captions.json").write_text(json.dumps(captions))
    Path("dialogues.json").write_text(json.dumps(dialogues))
    write_config("pretrain.yaml", models, "captions.json", output_dir="runs/pretrain")
    write_config("finetune.yaml", models, "dialogues.json", output_dir="runs/finetune", init_from="runs/pretrain")


def write_config(path, models, data, output_dir, init_from=None):
    config = {
        "model": {
            "llm": {"name_or_path": str(models / "llm"), "chat_template": "chatml", "dtype": "float32"},
            "vision": {"source": "transformers", "name": str(models / "clip")},
            "projector": {"kind": "mlp2x_gelu", "standardize": True, "initial_scale": 1.0},
        },
        "data": {"train": [{"path": data}], "max_length": 256},
        "train": {
            "output_dir": output_dir,
            "per_device_train_batch_size": 2,
            "num_train_epochs": 2,
            "learning_rate": 5e-3,
            "save_steps": 3,
            "save_total_limit": None,
            "device": "cpu",
        },
    }
    if init_from:
        config["model"]["init_from"] = init_from
        config["model"]["adapter"] = {"kind": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
    Path(path).write_text(yaml.safe_dump(config))


PROBES = [("What colour?", ("0.png",)), ("Hi", ()), ("Sure?", ("1.png",))]


def make(name, *overrides, verb="finetune"):
    """Train a short run in the workspace and return its folder."""
    config = "pretrain.yaml" if verb == "pretrain" else "finetune.yaml"
    short = ("train.max_steps=6", "train.save_steps=0")
    assert main([verb, config, f"train.output_dir=runs/{name}", *short, *overrides]) == 0
    return Path("runs") / name


def answers(parts, probes=PROBES):
    """The ids of a dialogue of one question, each in turn, greedily answered."""
    session = ChatSession(parts, Decoding(max_new_tokens=8))
    found = []
    for question, images in probes:
        session.reset()
        session.ask(question, images)
        found.append(list(session.ids))
    return found


def run_answers(folder):
    """The same of a run folder."""
    return answers(load_run(folder))


def trainer_of(parts, config, dataset):
    """A trainer of a built model that writes nothing."""
    meter = StepMeter(parts.model, parts.transform and parts.transform.image_size)
    collator = choose_collator(config, parts.model)
    writer = CheckpointWriter(Path(config.train.output_dir))
    return RunTrainer(parts.model, config, dataset, collator, lambda folder: None, meter, writer, [])


def fit(parts, config, dataset):
    """Train a built model and write nothing."""
    trainer_of(parts, config, dataset).train()
