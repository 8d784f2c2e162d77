"""The wheel, installed in an empty environment with its declared dependencies, lists configs and trains a step."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path, data_file, record, tiny):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("mmtune-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)

    assert "demo/pretrain" in run(scripts / "mmtune", "configs", "list", cwd=tmp_path)
    data = data_file(record("<image>\nWhat is it?", "A cat.", image="1.png"))
    config = {
        "model": {
            "llm": {"name_or_path": str(tiny.llm), "chat_template": "chatml"},
            "vision": {"source": "transformers", "name": str(tiny.clip)},
            "projector": {},
        },
        "data": {"train": [{"path": str(data.resolve())}], "max_length": 512},
        "train": {"output_dir": "run", "max_steps": 1, "device": "cpu"},
    }
    (tmp_path / "one_step.yaml").write_text(yaml.safe_dump(config))
    run(scripts / "mmtune", "pretrain", "one_step.yaml", cwd=tmp_path)
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert (tmp_path / "run" / "loss.png").is_file()
