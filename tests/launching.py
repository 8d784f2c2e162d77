"""Starts runs of two processes with torchrun. Not fetched by pytest."""

import json
import os
import subprocess
import sys
from pathlib import Path

LONGEST = 1500
"""Seconds of a launch: processes that wait for each other would not end."""
SEVERAL = Path(__file__).parent / "several.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


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
