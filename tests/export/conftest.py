"""Runs to export, made once through the real command line: a tower and adapters on both kinds of language model."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmtune.cli import main
from mmtune.testing import write_internlm2, write_tiny_clip, write_tiny_llm

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220)}
QUESTION = "What colour is it?"
TEMPLATES = {"internlm2": {"chat_template": "internlm2_chat"}, "bytes": {"chat_template": "chatml"}}
TRAIN = {
    "per_device_train_batch_size": 3,
    "max_steps": 10,
    "learning_rate": 0.02,
    "save_steps": 0,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """A folder with the base models, data and runs; the working directory while a run is made."""
    folder = tmp_path_factory.mktemp("export")
    write_internlm2(folder / "internlm2")
    write_tiny_llm(folder / "bytes")
    write_tiny_clip(folder / "clip")
    rng = random.Random(0)
    records, texts = [], []
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (rng.choice((40, 50)), 32), colour).save(folder / f"{number}.png")
        talk = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": f"It is {name}."}]
        records.append({"image": f"{number}.png", "conversations": talk})
        texts.append({"conversations": [{"from": "human", "value": f"Say {name}"}, {"from": "gpt", "value": name}]})
    (folder / "data.json").write_text(json.dumps(records))
    (folder / "text.json").write_text(json.dumps(texts))
    return folder


@pytest.fixture(scope="session")
def make_run(bench):
    """Return a factory of runs: trained once, with a rate at which the adapter says something of its own."""

    def make(base, verb="finetune", name="", settings=None, **model):
        folder = bench / "runs" / (name or f"{base}-{verb}")
        if folder.is_dir():
            return folder
        is_text = verb == "sft"
        parts = {
            "llm": {"name_or_path": str(bench / base), "dtype": "float32"} | TEMPLATES[base] | (settings or {}),
            "vision": None if is_text else {"source": "transformers", "name": str(bench / "clip")},
            "projector": None if is_text else {"kind": "mlp2x_gelu"},
        }
        if verb != "pretrain":
            parts["adapter"] = {"kind": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
        if verb == "finetune":
            kept = [key for key in ("vision", "projector") if key in model]
            first = {key: {k: v for k, v in model[key].items() if k not in ("tune", "adapter")} for key in kept}
            frozen = {key: value for key, value in (settings or {}).items() if key != "tune"}
            parts["init_from"] = str(make(base, "pretrain", name and f"{name}-pretrain", frozen, **first))
        config = {
            "model": parts | model,
            "data": {"train": [{"path": str(bench / ("text.json" if is_text else "data.json"))}], "max_length": 256},
            "train": TRAIN | {"output_dir": str(folder)},
        }
        path = folder.with_suffix(".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(config))
        assert main([verb, str(path)]) == 0
        return folder

    return make


@pytest.fixture
def export(tmp_path, capsys):
    """Return a function that exports through the command line, and gives the folder and the line printed."""

    def run(folder, format_name, *options):
        output = tmp_path / f"{folder.name}-{format_name}"
        code = main(["export", str(folder), "--format", format_name, "--output", str(output), *map(str, options)])
        told = capsys.readouterr()
        assert code == 0, told.err
        return output, told.out.strip()

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that exports, expects exit code 2, and gives the one line of the error."""

    def run(folder, format_name, *options):
        output = tmp_path / "refused"
        capsys.readouterr()
        code = main(["export", str(folder), "--format", format_name, "--output", str(output), *map(str, options)])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
        assert (code, len(lines)) == (2, 1)
        return lines[0].removeprefix("mmtune: ")

    return run


@pytest.fixture
def chat(capsys):
    """Return a function that asks a run through `mmtune chat`."""

    def ask(folder, image=None, question=QUESTION):
        capsys.readouterr()
        shown = ["--image", str(image)] if image is not None else []
        assert main(["chat", str(folder), "--prompt", question, "--max-new-tokens", "12", *shown]) == 0
        return capsys.readouterr().out.removesuffix("\n")

    return ask


@pytest.fixture
def alone(tmp_path):
    """Return a function that runs a script where mmtune cannot be imported, and gives what it prints as JSON."""

    def run(script, *arguments):
        path = tmp_path / "alone.py"
        guard = "import sys\nsys.modules['mmtune'] = None  # importing it fails\n"
        path.write_text(guard + script)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        command = [sys.executable, "-P", str(path), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(tmp_path))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
