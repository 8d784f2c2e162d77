import json
import re

import pytest
from PIL import Image
from training_workspace import models, workspace

from mmtune.cli import main

__all__ = ["models", "workspace"]


@pytest.fixture
def data(capsys, monkeypatch, tmp_path):
    """Return a function that runs `mmtune data` and returns exit code and output."""
    monkeypatch.setenv("MMTUNE_CACHE", str(tmp_path / "cache"))

    def run(*argv):
        capsys.readouterr()
        code = main(["data", *map(str, argv)])
        shown = capsys.readouterr()
        return code, shown.out

    return run


@pytest.fixture
def options(tiny):
    return ("--llm", tiny.llm, "--num-image-tokens", 4, "--max-length", 120)


@pytest.fixture
def mixed(data_file, record, desk):
    """Five records: two good, one with a broken image, one without an answer, one that repeats the first."""
    talks = [
        record("<image>What?", "A [red] cat.<br>", image="1.png"),
        record("Hi", "Hello."),
        record("<image>What?", "A dog.", image="broken.png"),
        record("Hi", ""),
        record("Hi", "Hello."),
    ]
    path = data_file(*talks)
    (desk / "broken.png").write_bytes((desk / "1.png").read_bytes()[:50])
    return path


def test_what_is_wrong_is_counted_listed_and_exits_with_2(data, mixed, options, desk):
    code, text = data("check", mixed.name, *options)
    assert code == 2
    assert re.search(r"error 1 x data\.json:3: image .*broken\.png: ", text)
    assert "error 1 x data.json:4: turn 2: the answer is empty." in text
    assert "warning 1 x data.json:1: turn 2: the answer holds HTML (<br>)." in text
    assert "3 of 5 records can be trained, 2 images" in text
    assert "4 findings are listed in data_check.jsonl" in text
    found = [json.loads(line) for line in (desk / "data_check.jsonl").read_text().splitlines()]
    assert [(entry["level"], entry["file"], entry["line"]) for entry in found] == [
        ("error", "data.json", 4),
        ("error", "data.json", 3),
        ("warning", "data.json", 1),
        ("warning", "data.json", 5),
    ]
    assert all(entry["reason"] and entry["mend"] for entry in found)


def test_good_data_exit_with_0_and_leave_no_report(data, data_file, record, options, desk):
    path = data_file(record("<image>What?", "A cat.", image="1.png"))
    (desk / "data_check.jsonl").write_text("old\n")
    code, text = data("check", path.name, *options)
    assert (code, "1 of 1 records can be trained, 1 images" in text) == (0, True)
    assert not (desk / "data_check.jsonl").exists()


def test_the_summary_as_json(data, mixed, options):
    code, text = data("check", mixed.name, *options, "--json", "--report", "found.jsonl")
    summary = json.loads(text)
    assert code == 2
    assert summary["num_records"] == summary["num_good_records"] + summary["num_bad_records"] == 5
    assert (summary["num_warnings"], summary["num_distinct_images"]) == (2, 2)
    assert [entry["count"] for entry in summary["errors"]] == [1, 1]


def test_images_are_opened_as_far_as_asked(data, mixed, options, desk):
    Image.effect_noise((64, 64), 50).save(desk / "broken.png")
    content = (desk / "broken.png").read_bytes()
    (desk / "broken.png").write_bytes(content[: len(content) // 2] + content[-12:])  # it begins and ends as it should
    found = {level: json.loads(data("check", mixed, *options, "--json", "--images", level)[1]) for level in
             ("none", "header", "decode")}  # fmt: skip
    assert [found[level]["num_bad_records"] for level in ("none", "header", "decode")] == [1, 1, 2]


def test_a_config_is_checked_with_its_own_settings(data, config_file, data_file, record):
    data_file(record("<image>What?", "A cat.", image="1.png"), record("Hi", "Hello " * 50))
    code, text = data("check", config_file())
    assert code == 0
    assert "1 samples are cut at max_length" in text
    assert "2 of 2 records" in text


def test_figures_of_a_data_set(data, config_file, data_file, record, desk):
    data_file(*[record("<image>What?", "A cat." * n, image="1.png") for n in range(1, 9)], record("Hi", "Hello."))
    config = config_file("train.max_steps=-1", "train.num_train_epochs=3", "train.gradient_accumulation_steps=4")
    code, text = data("stats", config, "train.per_device_train_batch_size=2", "--png", "lengths.png")
    assert code == 0
    for words in (r"records +9\n", r"samples an epoch +9, 8 with images", r"batches an epoch +5\n", r"steps +6 on one"):
        assert re.search(words, text), words
    assert Image.open(desk / "lengths.png").size == (768, 432)
    figures = json.loads(data("stats", config, "--json")[1])
    assert sum(figures["histogram"]["counts"]) == figures["num_samples"] == 9
    assert figures["num_supervised_tokens"] == sum(6 * n + 1 for n in range(1, 9)) + 7
    packed = json.loads(data("stats", config, "data.pack_to_max_length=true", "--json")[1])
    assert packed["is_packed"]
    assert packed["num_tokens"] == figures["num_tokens"]
    assert packed["num_rows"] < figures["num_rows"]


def test_the_steps_told_are_the_steps_taken(data, workspace):
    for changes in ([], ["data.pack_to_max_length=true"], ["data.max_tokens_per_batch=300"]):
        expected = json.loads(data("stats", "pretrain.yaml", *changes, "--json")[1])["num_optimizer_steps"]
        assert main(["pretrain", "pretrain.yaml", *changes, "--overwrite"]) == 0
        assert json.loads((workspace / "runs/pretrain/manifest.json").read_text())["steps"] == expected


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("check", "missing.json"), "missing.json: no such file"),
        (
            ("check", "data.json", "--report", "no/such/folder.jsonl"),
            "--report: no/such/folder.jsonl cannot be written",
        ),
        (("stats", "data.json", "--png", "no/such/folder.png"), "--png: no/such/folder.png cannot be written"),
        (("check", "data.json", "data.max_length=3"), "a data file has no keys to set"),
        (("check", "data.json", "--format", "lava"), "unknown name 'lava'. Did you mean 'llava'?"),
    ],
)
def test_mistakes_are_one_line(data_file, record, options, argv, words, capsys):
    data_file(record("Hi", "Hello."), record("Hi", "Hello."))
    assert main(["data", *argv, *map(str, options)]) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert len(shown) == 1
    assert words in shown[0]


@pytest.mark.parametrize("action", ["check", "stats"])
def test_each_action_explains_itself(action, capsys):
    with pytest.raises(SystemExit):
        main(["data", action, "--help"])
    assert f"mmtune data {action} " in capsys.readouterr().out.split("example:", 1)[1]
