"""Starts runs of two processes with torchrun. Not fetched by pytest."""

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from mmtune.training.callbacks import read_log

LONGEST = 1500
"""Seconds of a launch: processes that wait for each other would not end."""
SEVERAL = Path(__file__).parent / "several.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

NO_DROPOUT = "model.adapter={kind: lora, r: 4, lora_alpha: 8, lora_dropout: 0.0}"
FULL = ("model.adapter=null", "model.llm.tune=full", "model.vision.tune=full", "train.learning_rate=1e-3")
DROPOUT = ("model.adapter={kind: lora, r: 4, lora_dropout: 0.2}", "train.neftune_noise_alpha=5", "train.save_steps=2")


def launched(folder, *what):
    """Start torchrun with two processes; its output goes to `output.txt`."""
    environment = os.environ | {"MMTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen([*TORCHRUN, *what], cwd=folder, env=environment, stdout=output, stderr=output)


def run_pair(folder, runs):
    """Let two processes train several runs; return the exit code of torchrun.

    Args:
        folder: the working directory.
        runs: pairs of arguments of mmtune and what befalls rank 1, or None.
    """
    (folder / "runs.json").write_text(json.dumps(runs))
    process = launched(folder, str(SEVERAL), "runs.json")
    try:
        return process.wait(LONGEST)
    finally:
        process.kill()


def train_pair(folder, argv):
    """Let two processes train several runs, all of which succeed; `folder` is the working directory."""
    assert run_pair(folder, [[each, None] for each in argv]) == 0, (folder / "output.txt").read_text()
    for number in (0, 1):
        assert json.loads((folder / f"codes-{number}.json").read_text()) == [0] * len(argv)


def weights(folder):
    """Return all tensors that a run has trained, by file and name."""
    return {
        f"{path.relative_to(folder)} {name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        if "checkpoint" not in path.as_posix()
        for name, value in load_file(path).items()
    }


def logged(folder, key):
    """Return the values of a key in the log of a run."""
    return [entry[key] for entry in read_log(folder / "log.jsonl") if key in entry]
