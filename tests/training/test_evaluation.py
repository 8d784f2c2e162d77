"""What is measured: exact losses and accuracies, by source, whatever the batches."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from training_workspace import make

from mmtune.build import load_run
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.training.callbacks import read_log
from mmtune.training.evaluation import eval_batches, training_means

HELD = "data.validation=[{path: held.json}]"


def evaluations(folder):
    return [entry for entry in read_log(Path(folder) / "log.jsonl") if "eval_loss" in entry]


def full_scores(folder, data):
    """Loss sum, right tokens and tokens of some records by the full logits of the model in a run folder."""
    parts = load_run(folder)
    config = load_config("pretrain.yaml", [f"data.train=[{{path: {data}}}]"], "pretrain")
    samples, _ = build_dataset(config, build_reader(config.model))
    found = []
    for index in range(len(samples)):
        item = samples[index]
        images = parts.model.encode_images(item["pixel_values"]) if "pixel_values" in item else None
        embeds = parts.model.embed(item["input_ids"][None], images)
        with torch.no_grad():
            logits = parts.model.base_llm(inputs_embeds=embeds).logits[0, :-1]
        targets = item["labels"][1:]
        kept = targets != -100
        losses = F.cross_entropy(logits[kept], targets[kept], reduction="none")
        found.append((float(losses.sum()), int((logits.argmax(-1) == targets)[kept].sum()), int(kept.sum())))
    return [sum(column) for column in zip(*found, strict=True)]


@pytest.fixture
def held(workspace):
    """Held-out records of other images than the ones that are trained."""
    records = json.loads(Path("dialogues.json").read_text())
    Path("trained.json").write_text(json.dumps(records[:6]))
    Path("held.json").write_text(json.dumps(records[6:]))
    Path("texts.json").write_text(json.dumps([records[3]] * 2))
    return workspace


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("train.per_device_eval_batch_size=4",),
        ("train.per_device_eval_batch_size=3", "data.padding_free=false"),
        ("data.pack_to_max_length=true",),
        ("data.max_tokens_per_batch=300", "train.dataloader_num_workers=1"),
        ("train.label_smoothing_factor=0.2", "train.neftune_noise_alpha=5"),
        ("data.cache_vision_features=true",),
    ],
    ids=" ".join,
)
def test_loss_and_accuracy_are_those_of_the_full_logits(held, changes):
    folder = make("run", HELD, "train.learning_rate=0.05", "train.eval_steps=3", *changes, verb="pretrain")
    loss, right, tokens = full_scores(folder, "held.json")
    first, last = evaluations(folder)
    assert (first["step"], last["step"]) == (3, 6)
    assert last["eval_loss"] == pytest.approx(loss / tokens, rel=1e-5)
    assert last["eval_token_accuracy"] == right / tokens


def test_dropout_has_no_part_in_it(held):
    make("start", verb="pretrain")
    dropout = ("model.init_from=runs/start", "model.adapter.lora_dropout=0.5", "train.learning_rate=0.05")
    folder = make("run", HELD, *dropout)
    loss, right, tokens = full_scores(folder, "held.json")
    (entry,) = evaluations(folder)
    assert entry["eval_loss"] == pytest.approx(loss / tokens, rel=1e-5)
    assert entry["eval_token_accuracy"] == right / tokens


def test_each_of_several_sources_has_its_own_figures(held):
    sources = "data.validation=[{path: held.json}, {path: texts.json}]"
    folder = make("run", sources, "train.eval_steps=6", verb="pretrain")
    (entry,) = evaluations(folder)
    sums = {name: full_scores(folder, f"{name}.json") for name in ("held", "texts")}
    for name, (loss, right, tokens) in sums.items():
        assert entry[f"eval_{name}_loss"] == pytest.approx(loss / tokens, rel=1e-5)
        assert entry[f"eval_{name}_token_accuracy"] == right / tokens
    total = sum(loss for loss, _, _ in sums.values()) / sum(tokens for _, _, tokens in sums.values())
    assert entry["eval_loss"] == pytest.approx(total, rel=1e-5)


def test_data_json_says_where_records_went(held):
    folder = make("share", "data.validation_fraction=0.3", verb="pretrain")
    facts = json.loads((folder / "data.json").read_text())
    assert facts["num_records"] == 10 == facts["num_samples"] + facts["validation"]["num_samples"]
    assert facts["sources"][0]["num_samples_in_an_epoch"] == 7
    assert facts["validation"]["num_images"] == 3
    facts = json.loads((make("files", HELD, verb="pretrain") / "data.json").read_text())
    assert (facts["num_samples"], facts["validation"]["num_samples"], facts["validation"]["num_records"]) == (10, 4, 4)


def test_images_on_both_sides_are_said(held, capsys):
    make("shared", HELD, verb="pretrain")
    assert "4 of 4 validation samples show images that are trained on" in capsys.readouterr().err
    make("apart", HELD, "data.train=[{path: trained.json}]", verb="pretrain")
    make("share", "data.validation_fraction=0.3", verb="pretrain")
    assert "that are trained on" not in capsys.readouterr().err


def test_a_stream_is_measured_on_files(held):
    stream = ("data.train=[{path: trained.json, stream: true}]", "data.max_length=128")
    start = ("model.projector.standardize=false", "model.projector.initial_scale=null")
    folder = make("run", *stream, *start, HELD, verb="pretrain")
    (entry,) = evaluations(folder)
    assert entry["eval_loss"] > 0
    assert json.loads((folder / "data.json").read_text())["validation"]["num_samples"] == 4


def test_bad_validation_records_are_listed_apart(held, capsys):
    records = json.loads(Path("held.json").read_text())
    Path("held.json").write_text(json.dumps([*records, records[0] | {"image": "gone.png"}]))
    assert main(["pretrain", "pretrain.yaml", HELD, "train.output_dir=runs/run"]) == 2
    assert "held.json:1: image gone.png is missing" in capsys.readouterr().err
    folder = make("run", HELD, "data.on_bad_record=skip", verb="pretrain")
    assert "gone.png" in (folder / "validation_problems.jsonl").read_text()
    facts = json.loads((folder / "data.json").read_text())
    assert len(facts["validation"]["skipped"]) == 1
    assert not facts["skipped"]


def test_batches_hold_every_sample_once_within_the_budget():
    lengths = [5, 30, 7, 30, 12, 3]
    assert eval_batches(lengths, 4) == [[1, 3, 4, 2], [0, 5]]
    batches = eval_batches(lengths, 4, max_tokens=36)
    assert batches == [[1], [3], [4, 2, 0], [5]]


def test_training_means_go_back_to_the_evaluation_before():
    history = [{"loss": 4.0, "grad_norm": 1.0}, {"loss": 2.0, "grad_norm": 3.0}]
    assert training_means(history) == {"train_loss": 3.0, "grad_norm": 2.0}
    history += [{"eval_loss": 9.0, "train_loss": 3.0}]
    assert training_means(history) == {"train_loss": 2.0, "grad_norm": 3.0}
    assert training_means([*history, {"loss": 1.0}]) == {"train_loss": 1.0}
    assert training_means([*history, {"loss": float("nan")}, {"loss": 1.0}]) == {"train_loss": 1.0}
    assert training_means([{"loss": float("nan")}]) == {}
    assert training_means([]) == {}
