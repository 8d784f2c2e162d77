"""Starts `probe.py` and reads what it says, also where a library takes its process down."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 300.0
"""What one process of the probe may take; a cold disk needs a minute to import torch."""


@dataclass(frozen=True)
class Probe:
    """What a step gave: values, or the one line of its error and the package in which it arose."""

    values: dict[str, Any] | None
    error: str | None = None
    module: str | None = None


def probe(steps: Sequence[str]) -> dict[str, Probe]:
    """Take steps of `probe.py` in other processes: as many as it takes until each has an answer.

    Args:
        steps: `torch`, `training`, `module:NAME`.
    """
    found: dict[str, Probe] = {}
    while waiting := [step for step in steps if step not in found]:
        answers, end = _run(waiting)
        found |= answers
        if end is not None and (left := [step for step in waiting if step not in found]):
            found[left[0]] = Probe(None, end)
    return found


def _run(steps: Sequence[str]) -> tuple[dict[str, Probe], str | None]:
    """Run one process; return the answers that it gave and how it ended, None where it took all steps."""
    command = [sys.executable, "-P", "-m", "mmtune.doctor.probe", *steps]
    paths = os.pathsep.join(path for path in sys.path if path)  # it imports what this process would import
    environment = os.environ | {"PYTHONPATH": paths}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=SECONDS, check=False)
        output, end = done.stdout, _end(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as expired:
        output, end = expired.stdout or b"", f"did not end within {SECONDS:.0f} seconds"
    answers = {}
    for line in output.decode("utf-8", "replace").split("\n")[:-1]:  # what is cut off has no line end
        value = json.loads(line)
        answers[value["step"]] = Probe(value.get("values"), value.get("error"), value.get("module"))
    if end is None and len(answers) < len(steps):
        end = "ended the program without a word"
    return answers, end


def _end(code: int, stderr: bytes) -> str | None:
    """Return how a process ended in words; None where nothing was wrong."""
    if code == 0:
        return None
    if code < 0:
        return f"ended the program by {signal.Signals(-code).name}"
    last = stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"ended the program with code {code}" + (f": {last[0]}" if last else "")
