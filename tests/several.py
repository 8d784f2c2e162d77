"""Trains several runs in each of the processes that torchrun starts, so that these import torch once. Not a test.

Usage: torchrun --nproc_per_node 2 several.py RUNS, a JSON list of `[arguments of mmtune, what befalls rank 1]`. The
exit codes of rank N are written to `codes-N.json`, and the time of what befalls to `befallen`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import TrainerCallback

import mmtune.training.run
from mmtune.cli import main
from mmtune.processes import rank

STEP = 2
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


class Fate(TrainerCallback):
    """What befalls rank 1 in its second step."""

    def __init__(self, name):
        self.name = name

    def on_step_begin(self, args, state, control, **_):
        if rank() != 1 or state.global_step + 1 != STEP:
            return
        Path("befallen").write_text(str(time.time()))
        if self.name == "out of memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        os.kill(os.getpid(), SIGNALS[self.name])


def run(argv, fate):
    trainer = mmtune.training.run.RunTrainer
    if fate:

        class Befallen(trainer):
            def __init__(self, *given):
                super().__init__(*given)
                self.add_callback(Fate(fate))

        mmtune.training.run.RunTrainer = Befallen
    try:
        return main(argv)
    finally:
        mmtune.training.run.RunTrainer = trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = []
    for argv, fate in json.loads(Path(sys.argv[1]).read_text()):
        codes.append(run(argv, fate))
        Path(f"codes-{rank()}.json").write_text(json.dumps(codes))
    sys.exit(codes[-1])
