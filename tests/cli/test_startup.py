"""What is loaded until the first training step: nothing that this run does not need. Modules, not seconds."""

import json
import subprocess
import sys

from training_workspace import models, workspace

__all__ = ["models", "workspace"]

# deepspeed is not among them: accelerate imports it wherever it is installed.
FOR_OTHER_RUNS = {
    "matplotlib": "the plot of the loss, when training ends",
    "openpyxl": "tables",
    "webdataset": "shards that are written",
    "gguf": "GGUF files, once",
    "torchvision": "open_clip",
    "open_clip": "open_clip",
    "timm": "open_clip",
    "gradio": "the web page",
    "fastapi": "the server",
    "tensorflow": "nothing of ours",
    "jax": "nothing of ours",
}
CODE = """
import json, sys
from mmtune.cli import main
from mmtune.training.trainer import RunTrainer

def step(self, *given, **named):
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    sys.stdout.flush()
    raise SystemExit(0)

RunTrainer.training_step = step
main(["pretrain", "pretrain.yaml"])
"""


def test_the_first_step_needs_none_of_what_other_runs_need(workspace):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"torch", "transformers", "mmtune"} <= loaded
    assert not loaded & FOR_OTHER_RUNS.keys()
