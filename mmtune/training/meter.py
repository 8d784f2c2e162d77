"""What a training step does and how long its parts take: the figures of `log.jsonl` and of `mmtune bench`."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback

from mmtune.conversation import IGNORE_INDEX
from mmtune.models.device import synchronize
from mmtune.models.precision import compute_dtype
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.work import StepWork, matmul_rate
from mmtune.processes import num_processes
from mmtune.training.ranks import highest, summed

DATA, VISION, PROJECTOR, LLM, HEAD = "data", "vision", "projector", "llm_forward", "head"
BACKWARD, OPTIMIZER, OTHER = "backward", "optimizer", "other"
SAVING, ASIDE = "saving", "aside"
PARTS = (DATA, VISION, PROJECTOR, LLM, HEAD, BACKWARD, OPTIMIZER, OTHER)
"""Parts of a step, in the order of their time in it; `saving` and `aside` are none."""


class Stopwatch:
    """Adds up the time of parts that follow one another.

    On CUDA the marks are events in the stream: nothing waits for them until `read`, and what is added up is the time
    of the device, in `data` that in which it had nothing to do.

    Args:
        device: whose time it is.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.laps: list[tuple[str, Any, Any]] = []
        self.last = self._now()

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, part: str) -> None:
        """End a part: it began where the one before ended."""
        now = self._now()
        self.laps.append((part, self.last, now))
        self.last = now

    def read(self) -> dict[str, float]:
        """Return the seconds of each part since the last reading, and forget them."""
        synchronize(self.device)
        seconds: dict[str, float] = {}
        for part, start, end in self.laps:
            length = end - start if isinstance(end, float) else start.elapsed_time(end) / 1000
            seconds[part] = seconds.get(part, 0.0) + length
        self.laps.clear()
        return seconds


class StepMeter(TrainerCallback):
    """Counts what steps train on and times their parts.

    The Trainer tells it the batches (`count`), the end of each backward pass and, as a callback, that of each step.
    Hooks on the model tell the parts of the forward pass while it trains.

    Args:
        model: that is trained.
        image_size: pixels a side; None for text.
    """

    def __init__(self, model: VisionLanguageModel, image_size: int | None):
        self.model = model
        self.work = StepWork(model, image_size)
        self.matmul_rate = matmul_rate(model.device, compute_dtype(model.base_llm))
        self.watch = Stopwatch(model.device)
        self.hooks: list[RemovableHandle] = []
        self.step_images = 0  # of the newest step
        self.figures: dict[str, Any] = {}  # of the last reading at a log, for all who show them
        self._forget()

    def _forget(self) -> None:
        self.steps = self.samples = self.tokens = self.slots = self.images = 0
        self.supervised: int | torch.Tensor = 0
        self.lengths: list[int] = []

    def count(self, batches: Iterable[dict[str, Any]]) -> None:
        """Add the batches of a step."""
        self.steps += 1
        images_before = self.images
        for batch in batches:
            lengths = batch["sample_lengths"]
            self.samples += len(lengths)
            self.tokens += sum(lengths)
            self.lengths += lengths
            self.slots += batch["input_ids"].numel()
            self.images += num_images(batch)
            self.supervised = self.supervised + (batch["labels"] != IGNORE_INDEX).sum()
        self.step_images = self.images - images_before

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to time: a part ends where the forward pass of its module does."""
        model = self.model
        self.hooks = [model.register_forward_pre_hook(lambda *_: self.watch.lap(OTHER))]
        for module, part in (
            (model.vision, VISION),
            (model.projector, PROJECTOR),
            (model.base_llm.get_decoder(), LLM),
            (model, HEAD),
        ):
            if module is not None:
                self.hooks.append(module.register_forward_hook(lambda *_, part=part: self.watch.lap(part)))
        self.watch = Stopwatch(model.device)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the model as it was."""
        for hook in self.hooks:
            hook.remove()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the optimizer's part."""
        self.watch.lap(OPTIMIZER)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave what runs inside out of the figures, such as an evaluation in the middle of a training."""
        watch, self.watch = self.watch, Stopwatch(self.model.device)
        try:
            yield
        finally:
            self.watch = watch
            watch.lap(ASIDE)

    def read(self) -> dict[str, Any]:
        """Return the figures of the steps since the last reading, and forget them; nothing where there were none.

        They are those of all processes together: `samples_per_second`, `tokens_per_second` with image tokens and
        without padding, `supervised_tokens_per_second`, `flops_per_second` as `StepWork` counts, `matmul_share` of it
        in the rate of the devices for a matrix product, `padding_share` of all slots, and `peak_memory_bytes` since the
        start, of the process that took most. Of this process are `data_wait_share` of the time, `seconds_per_step` and
        the `seconds` of each part in it.
        """
        seconds = self.watch.read()
        if not self.steps:
            return {}
        for part in (SAVING, ASIDE):
            seconds.pop(part, None)
        total = sum(seconds.values())
        flops = self.work.flops(self.lengths, self.images, int(self.supervised))
        counts = np.array([self.samples, self.tokens, int(self.supervised), self.slots, flops], dtype=np.float64)
        samples, tokens, supervised, slots, flops = summed(counts).tolist()
        figures = {
            "samples_per_second": samples / total,
            "tokens_per_second": tokens / total,
            "supervised_tokens_per_second": supervised / total,
            "flops_per_second": flops / total,
            "matmul_share": flops / total / (self.matmul_rate * num_processes()),
            "padding_share": 1 - tokens / slots,
            "data_wait_share": seconds.get(DATA, 0.0) / total,
            "peak_memory_bytes": int(highest(peak_memory_bytes(self.model.device))),
            "seconds_per_step": total / self.steps,
            "seconds": {part: _rounded(seconds[part] / self.steps) for part in PARTS if part in seconds},
        }
        self._forget()
        return {name: _rounded(value) if isinstance(value, float) else value for name, value in figures.items()}

    def read_for_log(self) -> dict[str, Any]:
        """Read, keep the figures for the callbacks of this log, and return those that are single numbers."""
        self.figures = self.read()
        return {name: value for name, value in self.figures.items() if not isinstance(value, dict)}


def num_images(batch: dict[str, Any]) -> int:
    """Return how many images a batch has, as pixels or as features."""
    images = batch.get("pixel_values", batch.get("image_features"))
    return 0 if images is None else len(images)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was in use since the start: of the GPU by tensors, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()  # torch keeps what it has taken: the most so far
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
