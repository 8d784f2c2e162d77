"""The benchmark scripts run from end to end on tiny models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from readme import ROOT
from talk_workspace import home

from mmtune.cli import main

__all__ = ["home"]


@pytest.mark.slow
def test_methods_are_measured_from_the_start_of_a_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = {"num_caption_images": 8, "num_dialogue_images": 12, "num_heldout_captions": 2}
    scenes |= {"num_heldout_questions_per_group": 2, "num_unseen_questions_per_group": 1}
    steps = {"steps": [{"name": "data", "verb": "make-scenes", "config": scenes}]}
    Path("demo.yaml").write_text(yaml.safe_dump(steps))
    assert main(["run", "demo.yaml"]) == 0
    data = "data.train.0.path=runs/demo/data/captions.json"
    assert main(["pretrain", "demo/pretrain", data, "train.max_steps=1", "train.output_dir=runs/demo/pretrain"]) == 0
    names = ["lora", "prompt_tuning", "bottom 20 frozen, gradual"]
    script = [sys.executable, str(ROOT / "tests" / "benchmarks" / "methods.py"), "--steps", "2", "--questions", "4"]
    subprocess.run([*script, "--only", *names], check=True)
    results = json.loads(Path("runs/methods/methods.json").read_text())
    assert list(results) == names
    assert [row["trained"] for row in results.values()] == [2442240, 11520, 35400960]


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_tiny_models(tmp_path):
    script = ROOT / "tests" / "benchmarks" / "gpu" / "recipe.py"
    subprocess.run([sys.executable, str(script), "--smoke", "--output", str(tmp_path)], check=True, cwd=tmp_path)
    results = json.loads((tmp_path / "cases.json").read_text())
    assert len(results) == 9
    assert not [name for name, result in results.items() if "error" in result]
    assert (tmp_path / "table.md").read_text().count("\n| finetune, ") == 7
    assert "Self CPU" in (tmp_path / "profile.txt").read_text()


@pytest.mark.slow
def test_the_start_of_a_resumed_run_is_measured(tmp_path):
    script = ROOT / "tests" / "benchmarks" / "resume.py"
    command = [sys.executable, str(script), "--records", "300", "--step", "20"]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    fresh, resumed = done.stdout.splitlines()[-2:]
    assert fresh.startswith("fresh ")
    assert resumed.startswith("resumed ")
    assert resumed.endswith("4 images opened by then, 14 in all")  # of 6 steps of 2, and a batch ahead


@pytest.mark.slow
def test_load_is_put_on_a_server(home):
    script = [sys.executable, str(ROOT / "tests" / "benchmarks" / "serve_load.py"), "run", "--images", "."]
    command = [*script, "--requests", "16", "--queue", "4"]
    done = subprocess.run(command, check=True, cwd=home, capture_output=True, text=True)
    alone, hasty, *_, memory, end = done.stdout.splitlines()
    assert alone.startswith("one by one: 16 answered")
    assert hasty.startswith("at once, 429 is given up: ")
    assert "at once, 429 asks again: 16 same in" in done.stdout
    assert memory.startswith("memory: ")
    assert end == "the server ended with 0"
