"""Training from a stream, through the real command line: the same samples, the same one-line errors."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from training_workspace import write_config

from mmtune.cli import main
from mmtune.data.stream import StreamDataset
from mmtune.training.callbacks import read_log
from mmtune.training.trainer import RunTrainer


@pytest.fixture
def stream_config(workspace, models):
    """Configs of a stream of images and of a stream of text, in the order of their records."""
    records = json.loads(Path("dialogues.json").read_text())
    Path("dialogues.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_config("prepared.yaml", models, "dialogues.jsonl", output_dir="runs/prepared")
    values = yaml.safe_load(Path("prepared.yaml").read_text())
    values["model"]["projector"] = {"kind": "mlp2x_gelu"}
    values["train"] |= {"max_steps": 5, "save_steps": 0}
    Path("prepared.yaml").write_text(yaml.safe_dump(values))
    values["data"] |= {"train": [{"path": "dialogues.jsonl", "stream": True}], "shuffle_buffer": 1}
    values["train"]["output_dir"] = "runs/stream"
    Path("stream.yaml").write_text(yaml.safe_dump(values))
    return records


@pytest.fixture
def trained(monkeypatch):
    """The batches that the model was trained on, in order."""
    batches, train = [], RunTrainer.training_step

    def step(self, model, inputs, *rest):
        batches.append(dict(inputs))
        return train(self, model, inputs, *rest)

    monkeypatch.setattr(RunTrainer, "training_step", step)
    return batches


def rows_of(batches):
    """Each sample of the batches: ids, labels and pixels, as hashable values, without an order."""
    found = []
    for batch in batches:
        pixels = iter(batch.get("pixel_values", ()))
        samples = (batch[name][0].split(batch["sample_lengths"]) for name in ("input_ids", "labels"))
        for ids, labels in zip(*samples, strict=True):
            image = next(pixels).sum().item() if (ids == -200).any() else None
            found.append((tuple(ids.tolist()), tuple(labels.tolist()), image))
    return sorted(found, key=str)


def facts(run="runs/stream"):
    return json.loads(Path(run, "data.json").read_text())


def problems(run="runs/stream"):
    return [json.loads(line) for line in Path(run, "data_problems.jsonl").read_text().splitlines()]


def mistake(capsys, *argv):
    """The one line of a command that fails with exit code 2."""
    assert main(list(argv)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("mmtune: ")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_trains_the_samples_that_are_prepared(stream_config, trained, capsys, workers):
    assert main(["pretrain", "prepared.yaml"]) == 0
    prepared = rows_of(trained)
    assert facts("runs/prepared")["resume"] == "exact"
    trained.clear()
    capsys.readouterr()
    assert main(["pretrain", "stream.yaml", f"train.dataloader_num_workers={workers}"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert rows_of(trained) == prepared
    assert len(prepared) == 10
    assert said.count("data is streamed: resume is approximate") == 1
    assert "10 records read in 1 passes: 10 trained, 0 in the buffer, 0 skipped" in said
    found = facts()
    assert found["resume"] == "approximate"
    assert (found["num_records"], found["num_trained_records"], found["num_samples"]) == (10, 10, 10)
    tokens = facts("runs/prepared")
    assert [found[name] for name in ("num_tokens", "num_supervised_tokens")] == [
        tokens[name] for name in ("num_tokens", "num_supervised_tokens")
    ]
    assert Path("runs/stream/manifest.json").is_file()
    assert len(read_log(Path("runs/stream/log.jsonl"))) == 5


def test_a_stream_that_ends_begins_anew_and_batches_go_on_over_its_end(stream_config, trained):
    changes = ["train.max_steps=7", "train.gradient_accumulation_steps=2", "data.shuffle_buffer=4"]
    assert main(["pretrain", "stream.yaml", *changes]) == 0
    assert [len(batch["sample_lengths"]) for batch in trained] == [2] * 14
    rows = [rows_of(trained[start : start + 5]) for start in (0, 5)]
    assert rows[0] == rows[1]
    assert [row for batch in trained[:5] for row in rows_of([batch])] != [
        row for batch in trained[5:10] for row in rows_of([batch])
    ]
    found = facts()
    assert found["num_samples"] == 28
    assert found["num_passes"] == 3
    assert found["num_records"] == found["num_trained_records"] + found["num_buffered_records"] == 30


def test_text_is_trained_from_a_stream(stream_config, models):
    lines = [{"text": f"Cats sleep {number} hours."} for number in range(3)]
    Path("text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = yaml.safe_load(Path("stream.yaml").read_text())
    values["model"] = {"llm": values["model"]["llm"], "adapter": {"kind": "lora", "r": 2}}
    values["data"]["train"] = [{"path": "text.jsonl", "stream": True}]
    Path("text.yaml").write_text(yaml.safe_dump(values))
    assert main(["sft", "text.yaml", "train.max_steps=3", "train.gradient_accumulation_steps=1"]) == 0
    assert facts()["num_samples"] == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_records_are_listed_as_they_come(stream_config, workers):
    lines = Path("dialogues.jsonl").read_text().splitlines()
    lines[1] = "{broken"
    Path("dialogues.jsonl").write_text("\n".join(lines) + "\n")
    Path("5.png").write_bytes(b"")
    skip = ["data.on_bad_record=skip", f"train.dataloader_num_workers={workers}", "train.max_steps=6"]
    assert main(["pretrain", "stream.yaml", *skip]) == 0
    assert [(finding["file"], finding["line"]) for finding in problems()] == [
        ("dialogues.jsonl", 2),
        ("dialogues.jsonl", 6),
    ]
    found = facts()
    assert found["num_samples"] == 12
    counts = [found[f"num_{name}_records"] for name in ("trained", "buffered", "bad")]
    assert (found["num_records"], counts) == (15, [12, 0, 3])
    assert found["skipped_in"] == "data_problems.jsonl"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_record_ends_the_run_with_one_line(stream_config, capsys, trained, workers):
    Path("7.png").write_bytes(b"")
    line = mistake(capsys, "pretrain", "stream.yaml", f"train.dataloader_num_workers={workers}")
    assert line.startswith("dialogues.jsonl:8: image ")
    assert line.endswith("7.png: it is empty. Download or copy it again.")
    assert len(trained) == 3, "the batches before it were trained"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pipe_that_holds_just_enough_is_trained_to_its_end(stream_config, capsys, workers):
    content = Path("dialogues.jsonl").read_bytes()
    os.mkfifo("feed")

    def feed():
        Path("feed").write_bytes(content)

    changes = ["data.train.0.path=feed", f"train.dataloader_num_workers={workers}"]
    threading.Thread(target=feed, daemon=True).start()
    assert main(["pretrain", "stream.yaml", *changes]) == 0
    assert facts()["num_samples"] == 10
    threading.Thread(target=feed, daemon=True).start()
    line = mistake(capsys, "pretrain", "stream.yaml", *changes, "train.max_steps=6", "--overwrite")
    assert line.startswith("feed: ended after 10 samples, and a pipe cannot be read again. Feed it more records, or")


def test_resume_begins_anew_in_another_order(stream_config, trained, capsys, monkeypatch):
    config = ["pretrain", "stream.yaml", "train.save_steps=2", "data.shuffle_buffer=100"]
    assert main([*config, "train.max_steps=5"]) == 0
    straight = [row for batch in trained for row in rows_of([batch])]
    Path("runs/stream/manifest.json").unlink()
    trained.clear()
    assert main([*config, "train.max_steps=5", "--resume"]) == 0
    assert not trained, "checkpoint-5 needs no step more"
    assert json.loads(Path("runs/stream/manifest.json").read_text())["steps"] == 5
    Path("runs/stream/manifest.json").unlink()
    shutil.rmtree("runs/stream/checkpoint-5")
    read, opened = [], StreamDataset.__iter__

    def counted(self):
        for item in opened(self):
            read.append(item)
            yield item

    monkeypatch.setattr(StreamDataset, "__iter__", counted)
    capsys.readouterr()
    assert main([*config, "train.max_steps=5", "--resume"]) == 0
    said = capsys.readouterr().err.splitlines()
    again = [row for batch in trained for row in rows_of([batch])]
    assert (len(straight), len(again), len(read)) == (10, 2, 2), "one step from step 4, nothing read to catch up"
    assert again not in (straight[:2], straight[8:])
    message = "the stream begins anew in another order (seed 46); what step 4 had read is not passed over"
    assert message in said
    assert (facts()["first_step"], facts()["resume"], facts()["num_samples"]) == (4, "approximate", 2)


WRONG = [
    ("train.max_steps=-1", "a stream has no length, so 'train.max_steps' says when it is enough (got -1). Set it."),
    ("data.pack_to_max_length=true", "'data.pack_to_max_length' needs all samples before training, and a stream"),
    ("data.group_by_length=true", "'data.group_by_length' needs all samples before training, and a stream has none."),
    ("data.max_tokens_per_batch=999", "'data.max_tokens_per_batch' needs all samples before training, and a stream"),
    ("data.cache_vision_features=true", "'data.cache_vision_features' needs all samples before training, and a"),
    ("data.train.0.limit=5", "'data.train[0].limit' needs all samples before training, and a stream has none."),
    ("data.train.0.repeat=2", "'data.train[0].repeat' needs all samples before training, and a stream has none."),
    ("data.train.0.weight=2", "'data.train[0].weight' needs all samples before training, and a stream has none."),
    ("train.dataloader_num_workers=2", "a stream is read by one process, so 'train.dataloader_num_workers' is 0 or 1"),
    ("model.projector.standardize=true", "'model.projector.standardize' needs images before training, and a stream"),
    ("model.projector.warm_start_epochs=1", "'model.projector.warm_start_epochs' needs images before training"),
    ("model.projector.initial_scale=1", "'model.projector.initial_scale' needs images before training, and a stream"),
    ("data.shuffle_buffer=0", "'data.shuffle_buffer' must be greater than 0 (got 0)."),
    ("data.train.0.path=dialogues.jsonl#5", "a stream has no number of samples to draw 5 from. Leave '#5' out"),
    ("data.train=[{path: a, stream: true}, {path: b}]", "'data.train' has sources with stream: true and without."),
    ("data.train.0.path=nowhere.jsonl", "nowhere.jsonl: no such file"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[change for change, _ in WRONG])
def test_what_a_stream_cannot_do_is_one_line(stream_config, capsys, change, words):
    assert words in mistake(capsys, "pretrain", "stream.yaml", change)


@pytest.mark.parametrize("action", ["check", "stats"])
def test_a_stream_is_not_checked_ahead(stream_config, capsys, action):
    line = mistake(capsys, "data", action, "stream.yaml", "model.adapter=null", "model.llm.tune=frozen")
    assert line == "data.train: a stream is checked while it is read. Leave stream out to check it whole."


def test_inspect_shows_a_stream(stream_config, capsys):
    command = ["inspect", "stream.yaml", "-n", "2", "--json", "model.adapter=null", "model.llm.tune=frozen"]
    assert main(command) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
