"""What a run shows while it trains: a progress bar with the time left, a JSONL log, a plot of the loss."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from mmtune.training.meter import StepMeter

LOG_FILE = "log.jsonl"
PLOT_FILE = "loss.png"


class RunLog(TrainerCallback):
    """Appends one JSON object a logged step, and one an evaluation, to `log.jsonl`; plots the loss when training ends.

    Args:
        folder: the run folder.
        meter: gives the figures of the steps since the last line.
        first_step: the step a resumed run starts from; later lines of the interrupted run are dropped.
    """

    def __init__(self, folder: Path, meter: StepMeter, first_step: int = 0):
        self.path, self.folder, self.meter = folder / LOG_FILE, folder, meter
        kept = [entry for entry in read_log(self.path) if entry["step"] <= first_step]
        self.seconds_before = kept[-1]["seconds"] if kept else 0.0
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self.started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Append the step's figures."""
        if not logs or "train_runtime" in logs or not state.is_world_process_zero:
            return
        seconds = round(self.seconds_before + time.monotonic() - self.started, 3)
        entry = {"step": state.global_step, "epoch": state.epoch, "seconds": seconds}
        if "loss" in logs:
            entry |= {key: logs[key] for key in ("loss", "learning_rate", "grad_norm") if key in logs}
            entry["speed"] = self.meter.read()
        else:  # an evaluation
            entry |= {key: value for key, value in logs.items() if key not in entry}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw `loss.png`."""
        if state.is_world_process_zero:
            plot_loss(read_log(self.path), self.folder / PLOT_FILE)


class ProgressBar(TrainerCallback):
    """One line: step, loss, learning rate, samples a second, time left. Without a terminal, a line now and then.

    Args:
        name: what stands before the figures.
        num_samples: of an epoch; None: of a stream, whose loader has no length.
        console: where it is shown.
    """

    LINES_WITHOUT_TERMINAL = 20

    def __init__(self, name: str, num_samples: int | None, console: Console):
        self.name, self.num_samples, self.console = name, num_samples, console
        self.progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Open the bar."""
        samples_per_batch = float(args.per_device_train_batch_size)
        if self.num_samples is not None:
            samples_per_batch = self.num_samples / len(given["train_dataloader"])
        self.samples_per_step = samples_per_batch * args.gradient_accumulation_steps
        self.first_step, self.started = state.global_step, time.monotonic()
        if self.console.is_terminal and state.is_world_process_zero:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
            )
            times = (
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.progress = Progress(*columns, *times, console=self.console)
            self.task = self.progress.add_task(self.name, total=state.max_steps, completed=state.global_step, facts="")
            self.progress.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the newest figures."""
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        steps = state.global_step - self.first_step
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = steps * self.samples_per_step / seconds
        facts = f"loss {logs['loss']:.3f}  lr {logs['learning_rate']:.1e}  {rate:.1f} samples/s"
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step, facts=facts)
        elif state.global_step % max(1, state.max_steps // self.LINES_WITHOUT_TERMINAL) == 0:
            left = seconds / max(steps, 1) * (state.max_steps - state.global_step)
            self.console.print(f"{self.name}  step {state.global_step}/{state.max_steps}  {facts}  {left:.0f} s left")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after an error."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's log; a last line cut off by a crash is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def plot_loss(entries: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss over the steps, each step pale and a running mean strong, and that of held-out data as dots."""
    from matplotlib.figure import Figure

    held_out = [(entry["step"], entry["eval_loss"]) for entry in entries if "eval_loss" in entry]
    entries = [entry for entry in entries if "loss" in entry]
    if not entries:
        return
    steps, losses = [entry["step"] for entry in entries], [entry["loss"] for entry in entries]
    smooth, mean = [], losses[0]
    for loss in losses:
        mean = 0.9 * mean + 0.1 * loss
        smooth.append(mean)
    figure = Figure(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="#9db8d9", linewidth=0.8, label="each step")
    axes.plot(steps, smooth, color="#1f4e8c", linewidth=1.8, label="running mean")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="#c2571a", markersize=3, linewidth=1.2, label="held out")
    axes.set(xlabel="optimizer step", ylabel="loss per supervised token", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
