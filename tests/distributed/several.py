"""Trains several runs in each of the processes that torchrun starts, so that they import torch once. Not a test.

Usage: torchrun --nproc_per_node 2 several.py RUNS, where RUNS is a JSON file of argument lists for `mmtune`. The exit
codes of rank N are written to `codes-N.json`.
"""

import json
import os
import sys
from pathlib import Path

import torch

from mmtune.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = [main(argv) for argv in json.loads(Path(sys.argv[1]).read_text())]
    Path(f"codes-{os.environ['RANK']}.json").write_text(json.dumps(codes))
