"""A run whose vision encoder has an adapter: what is exported sees as the run does."""

import json

import pytest

from mmtune.cli import main

VISION_LORA = {"kind": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def run_folder(bench, make_run):
    vision = {"source": "transformers", "name": str(bench / "clip"), "tune": "adapter", "adapter": VISION_LORA}
    folder = make_run("internlm2", "finetune", name="sees-anew", vision=vision)
    assert (folder / "vision_adapter" / "adapter_model.safetensors").is_file()
    return folder


@pytest.mark.parametrize("name", ["hf-llava", "gguf", "xtuner", "merged"])
def test_an_export_gives_the_answers_of_the_run(run_folder, tmp_path, capsys, name):
    assert main(["export", str(run_folder), "--format", name, "--output", str(tmp_path / "out")]) == 0
    assert "answers equal" in "".join(capsys.readouterr())


def test_xtuner_gets_the_whole_tower_with_the_adapter_merged(run_folder, bench, tmp_path):
    assert main(["export", str(run_folder), "--format", "xtuner", "--output", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "visual_encoder" / "config.json").read_text())
    assert written["num_hidden_layers"] == json.loads((bench / "clip" / "config.json").read_text())["num_hidden_layers"]
