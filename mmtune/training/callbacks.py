"""The log of a run: `log.jsonl`, one JSON object a line, and the plot of its loss."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mmtune.processes import rank
from mmtune.training.meter import SAVING, StepMeter
from mmtune.training.plot import PLOT_FILE, plot_loss

LOG_FILE = "log.jsonl"
SUMMARY_KEY = "train_runtime"
KEPT_HISTORY = 10
TRAINING_KEYS = ("loss", "learning_rate", "grad_norm")
BLOCK_BYTES = 1 << 16


class RunLog(TrainerCallback):
    """Appends a line to `log.jsonl` at each logged step, evaluation and alarm; plots the loss as epochs end.

    A line is one write to a file opened for appending, so that it is whole or absent after a crash of the process; at
    a checkpoint and every `SECONDS_BETWEEN_SYNCS` the disk is told to keep what it has, against a crash of the machine.

    Args:
        folder: the run folder.
        meter: has the figures of the steps since the last line.
        first_step: the step a resumed run starts from; later lines of the interrupted run are dropped.
        title: of the plot.
    """

    SECONDS_BETWEEN_SYNCS = 60.0
    SHARE_FOR_PLOTS = 0.02
    """Of the time, what plots between epochs may take: where epochs last less than a second, not each is drawn."""

    def __init__(self, folder: Path, meter: StepMeter, first_step: int = 0, title: str = ""):
        self.path, self.folder, self.meter, self.title = folder / LOG_FILE, folder, meter, title
        last = drop_after(self.path, first_step) if rank() == 0 else None
        self.seconds_before = last["seconds"] if last else 0.0
        self.started = self.synced = time.monotonic()
        self.next_plot = 0.0
        self.file = self.path.open("ab", buffering=0) if rank() == 0 else None  # no other machine needs the folder

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append the figures of the steps since the last line, or those of an evaluation."""
        if not logs or SUMMARY_KEY in logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            self.append(state, {key: logs[key] for key in TRAINING_KEYS if key in logs} | {"speed": self.meter.figures})
        else:
            self.append(state, logs)

    def append(self, state: Any, facts: dict[str, Any]) -> None:
        """Append one line; numbers that are not finite become null, which JSON has."""
        seconds = round(self.seconds_before + time.monotonic() - self.started, 3)
        line = {"step": state.global_step, "epoch": state.epoch, "seconds": seconds}
        line |= {key: _finite(value) for key, value in facts.items() if key not in line}
        assert self.file is not None, "rank 0 alone writes the log"
        self.file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        if time.monotonic() - self.synced > self.SECONDS_BETWEEN_SYNCS:
            self._sync()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint does not outlive the lines before it."""
        self._sync()

    def _sync(self) -> None:
        if self.file is not None:
            os.fsync(self.file.fileno())
        self.synced = time.monotonic()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw `loss.png` between epochs."""
        started = time.monotonic()
        if state.is_world_process_zero and state.global_step < state.max_steps and started >= self.next_plot:
            self._plot()
            self.meter.watch.lap(SAVING)
            ended = time.monotonic()
            self.next_plot = ended + (ended - started) / self.SHARE_FOR_PLOTS

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw `loss.png` of the whole run."""
        if state.is_world_process_zero:
            self._sync()
            self._plot()

    def _plot(self) -> None:
        plot_loss(read_log(self.path), self.folder / PLOT_FILE, self.title)

    def close(self) -> None:
        """Close the file, also after an error."""
        if self.file is not None:
            self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all lines of a log: steps have `loss`; one cut off by a crash is left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def shorten_history(history: list[dict[str, Any]], *, evaluates: bool) -> None:
    """Drop entries of the Trainer's history, which each checkpoint writes anew; `log.jsonl` has them all.

    Args:
        history: `log_history` of its state; the last `KEPT_HISTORY` stay.
        evaluates: keep what was logged since the last evaluation too: the next one takes means of it.
    """
    start = max(0, len(history) - KEPT_HISTORY)
    if evaluates:
        marks = [number for number, entry in enumerate(history) if "loss" not in entry]
        start = min(start, marks[-1] if marks else 0)
    del history[:start]


def drop_after(path: Path, step: int) -> dict[str, Any] | None:
    """Cut the lines behind a step off a log, and one that a crash cut; return the last line that stays.

    Read from the end, so that the time depends on what is dropped and not on the length of the run.
    """
    if not path.is_file():
        return None
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        unread, rest = end, b""
        while unread > 0:
            size = min(BLOCK_BYTES, unread)
            unread = file.seek(unread - size)
            rest = file.read(size) + rest
            while b"\n" in rest[:-1] or (unread == 0 and rest):
                start = rest.rfind(b"\n", 0, -1) + 1
                entry = _entry(rest[start:])
                if entry is not None and entry["step"] <= step:
                    file.truncate(end)
                    return entry
                end -= len(rest) - start
                rest = rest[:start]
        file.truncate(0)
    return None


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return a whole line as it was written, or None."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "step" in entry else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
