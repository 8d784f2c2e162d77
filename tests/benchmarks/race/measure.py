"""How every tool of the race is measured: one callback of the Trainer that they all build on. Knows no tool.

Memory is the resident set of the process: `idle` when imports are done and the model is loaded, `peak` the highest
while it trains (Linux: /proc/self/clear_refs starts the count anew).
"""

import argparse
import gc
import json
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from phases import PhaseClock
from settings import BATCH_SIZE, JOBS
from transformers import TrainerCallback
from transformers import trainer as trainer_module

LIBRARIES = ("mmtune", "trl", "llamafactory", "ms-swift", "torch", "transformers", "peft", "accelerate")


class StepClock(TrainerCallback):
    """Notes when each step ends, its loss, and the memory of the process."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self.idle_mb = self.peak_mb = self.started = 0.0
        self.trained: dict[str, int] = {}
        self.batches: Any = None
        self.phases: PhaseClock | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
    ) -> None:
        """Read every weight once, so that those in mapped files count as loaded; start to measure."""
        if self.started:
            raise RuntimeError("a second training began in this process")
        self.batches = train_dataloader
        for parameter in model.parameters():
            parameter.detach().sum()
        dtypes = {parameter.dtype for parameter in model.parameters()}
        assert dtypes == {torch.float32}, f"the race is run in fp32, this model holds {dtypes}"
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = "projector" if "projector" in name else "lora" if "lora_" in name else "other"
                self.trained[part] = self.trained.get(part, 0) + parameter.numel()
        gc.collect()
        self.idle_mb = _status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        self.cpu.append(time.process_time())
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Note the loss of a step."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the highest memory."""
        self.peak_mb = _status_mb("VmHWM")

    def figures(self) -> dict[str, Any]:
        """Return what was measured."""
        steps = np.diff([self.started, *self.ended])
        later = self.ended[-1] - self.ended[0]
        return {
            "samples_per_second": BATCH_SIZE * (len(steps) - 1) / later if later else None,
            "samples_per_second_with_first_step": BATCH_SIZE * len(steps) / (self.ended[-1] - self.started),
            "cpu_seconds_per_sample": round((self.cpu[-1] - self.cpu[1]) / (BATCH_SIZE * max(1, len(steps) - 1)), 3),
            "seconds_per_step": [round(float(value), 3) for value in steps],
            "losses": self.losses,
            "idle_mb": round(self.idle_mb, 1),
            "peak_mb": round(self.peak_mb, 1),
            "growth_mb": round(self.peak_mb - self.idle_mb, 1),
            "trained_parameters": self.trained,
            "threads": torch.get_num_threads(),
        }


def install_clock(args: argparse.Namespace) -> StepClock:
    """Return a clock that every Trainer made from now on in this process calls, whatever tool makes it."""
    clock = StepClock()
    clock.phases = PhaseClock() if args.phases else None
    trainer_module.DEFAULT_CALLBACKS.extend([clock, clock.phases] if clock.phases else [clock])
    return clock


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}: the race needs Linux")


def compare_batches(
    batches: Any, folder: Path, job: str, *, has_separator: bool = True, pixel_limit: float = 1e-4
) -> dict[str, Any]:
    """Hold a tool's batches to mmtune's ids, labels and pixels; return tokens, supervised tokens and differences.

    Args:
        batches: dicts of `input_ids`, `labels`, maybe `attention_mask`, and `pixel_values`, in the order of training.
        folder: the workload.
        job: of the race.
        has_separator: whether the tool's samples end as mmtune's with the line end behind `<|im_end|>`, which is not
            supervised. Without it a sample is one token shorter, and nothing else changes.
        pixel_limit: how far a pixel may be off, in deviations of the images.
    """
    expected = dict(np.load(folder / f"{job}_expected.npz"))
    if not has_separator:
        kept = np.ones(len(expected["ids"]), dtype=bool)
        kept[np.cumsum(expected["lengths"]) - 1] = False
        expected |= {name: expected[name][kept] for name in ("ids", "labels")}
    ids, labels, pixels = [], [], None
    for batch in batches:
        mask = batch.get("attention_mask")
        for row in range(len(batch["input_ids"])):
            kept = slice(None) if mask is None else mask[row].bool()
            ids.append(batch["input_ids"][row][kept].numpy())
            labels.append(batch["labels"][row][kept].numpy())
        pixels = batch["pixel_values"].float().numpy() if pixels is None else pixels
    found_ids, found_labels = np.concatenate(ids), np.concatenate(labels)
    differences = {
        "ids": _difference(found_ids, expected["ids"]),
        "labels": _difference(found_labels, expected["labels"]),
        "pixels": float(np.abs(pixels - expected["pixels"]).max()) if pixels.shape == expected["pixels"].shape else -1,
    }
    limits = {"ids": 0, "labels": 0, "pixels": pixel_limit}
    wrong = [name for name, value in differences.items() if not 0 <= value <= limits[name]]
    figures = {"tokens": len(found_ids), "supervised_tokens": int((found_labels != -100).sum())}
    print(f"{figures}; differences from mmtune: {differences}")
    if wrong:
        raise SystemExit(f"{job}: this tool's {', '.join(wrong)} are not mmtune's: {differences}")
    return figures | {"differences": differences}


def _difference(found: np.ndarray, expected: np.ndarray) -> int:
    return int((found != expected).sum()) if found.shape == expected.shape else len(found) - len(expected) or -1


def run_arguments(text: str | None) -> argparse.Namespace:
    """Return the arguments that every runner takes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--folder", type=Path, required=True, help="the workload, made by workload.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--phases", action="store_true", help="also say where the time of a step goes (by hooks)")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    return args


def write_result(path: Path, tool: str, job: str, clock: StepClock, **facts: Any) -> None:
    """Write the figures of a run and print the main ones."""
    versions = {"python": platform.python_version()}  # `library_versions` is not in the peers' environments
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    figures = clock.figures()
    if clock.phases:
        figures["phases"] = clock.phases.figures()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tool": tool, "job": job, "versions": versions, **figures, **facts}, indent=1) + "\n")
    rate = figures["samples_per_second"]
    print(f"{tool} {job}: {rate:.3f} samples/s, memory +{figures['growth_mb']:.0f} MB, losses {figures['losses'][:3]}")
