"""What can go wrong in a step: numbers that are not finite, memory that is out, a data worker that has died."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from mmtune.errors import EndedElsewhere, TrainingError
from mmtune.models.vlm import VisionLanguageModel
from mmtune.processes import rank
from mmtune.training.checkpoints import CheckpointWriter
from mmtune.training.ranks import agreed, gathered, highest, is_lost

log = logging.getLogger(__name__)
SHOWN_RECORDS = 8
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
WORKER_DIED = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is killed by signal: (.+?)\.|exited)")

PlacesOfStep = Callable[[int], list[str]]
"""From optimizer steps done to the places of the records in each batch of the next step."""


class FiniteSteps(TrainerCallback):
    """Holds that a step whose loss or gradient is not finite changes no weight, and ends a run of several in a row.

    The trainer tells it the losses of a step's batches and the norm of the gradient.

    Args:
        model: that is trained.
        max_steps: how many such steps in a row are let pass.
        places: names the records of a step.
        writer: of the checkpoints.
    """

    def __init__(self, model: VisionLanguageModel, max_steps: int, places: PlacesOfStep, writer: CheckpointWriter):
        self.model, self.max_steps, self.places, self.writer = model, max_steps, places, writer
        self.losses: list[torch.Tensor] = []
        self.norm: Any = None
        self.has_scaler = False
        self.num_in_a_row = self.num_skipped = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the step before."""
        self.losses, self.norm = [], None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the gradients of a step that is not finite.

        A scaler of float16 gradients drops them by itself and looks for a scale that fits: then the loss alone counts.

        Raises:
            TrainingError: too many steps in a row were not finite.
        """
        losses = torch.stack([loss.float() for loss in self.losses])
        norm = torch.as_tensor(0.0 if self.has_scaler else self.norm, device=losses.device)
        is_finite = bool(torch.isfinite(losses).all() & torch.isfinite(norm))
        if not highest(not is_finite):
            self.num_in_a_row = 0
            return
        self.num_in_a_row += 1
        self.num_skipped += 1
        what = self._what(losses.tolist(), float(norm), state.global_step)
        found = gathered((bool(torch.isfinite(losses).all()), what))
        what = next((text for is_fine, text in found if not is_fine), found[0][1])  # of a rank whose loss is to blame
        if not self.has_scaler:
            self.model.zero_grad(set_to_none=True)
        if self.num_in_a_row > self.max_steps:
            with agreed():
                raise TrainingError(f"{self.writer.folder}: step {state.global_step + 1}", f"{what} {self._mend()}")
        log.warning("step %d: %s This step changes no weight.", state.global_step + 1, what)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say how many steps were dropped."""
        if self.num_skipped:
            steps = "1 step was" if self.num_skipped == 1 else f"{self.num_skipped} steps were"
            log.warning("%s not finite and changed no weight", steps)

    def _what(self, losses: list[float], norm: float, step: int) -> str:
        """What is not finite, and the records of this rank's batches where a loss is not, else of all its batches."""
        places = self.places(step)
        bad = [number for number, loss in enumerate(losses) if not abs(loss) < float("inf")]
        if bad:
            text = f"the loss is {losses[bad[0]]}"
            places = [places[number] for number in bad] if places else []
        else:
            names = [n for n, p in self.model.named_parameters() if p.grad is not None and not _is_finite(p.grad)]
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            text = f"the gradient's norm is {norm} ({names[0]}{more})" if names else f"the gradient's norm is {norm}"
        shown = [place for batch in places if batch for place in batch.split(", ")]
        rest = f" and {len(shown) - SHOWN_RECORDS} more" if len(shown) > SHOWN_RECORDS else ""
        return f"{text}; its records: {', '.join(shown[:SHOWN_RECORDS]) or 'unknown, of a stream'}{rest}."

    def _mend(self) -> str:
        newest = self.writer.newest()
        kept = f"{newest.name} is from before" if newest else "There is no checkpoint yet"
        so_far = f"That were {self.num_in_a_row} steps in a row (train.max_nonfinite_steps={self.max_steps}); {kept}."
        return f"{so_far} Look at these records, lower train.learning_rate, or compute in bfloat16 or float32."


def _is_finite(value: torch.Tensor) -> bool:
    own = (
        value.to_local() if isinstance(value, DTensor) else value
    )  # to look at all of it, others would have to look too
    return bool(torch.isfinite(own).all())


@contextmanager
def faults_named(writer: CheckpointWriter, num_workers: int, out_of_memory: Callable[[], str]) -> Iterator[None]:
    """Turn what ends a training from outside into one line that says what to do.

    Args:
        writer: of the checkpoints of the run.
        num_workers: processes that open images.
        out_of_memory: says which batch did not fit and what to change.

    Raises:
        TrainingError: see above.
        EndedElsewhere: another process of several has ended.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        folder, newest = writer.folder, writer.newest()
        goes_on = f"--resume continues from {newest.name}." if newest else "There is no checkpoint yet."
        if is_lost(error):
            level = logging.ERROR if rank() == 0 else logging.WARNING  # one of them says it
            log.log(level, "another process of this run has ended, so it ends: its own message says why. %s", goes_on)
            raise EndedElsewhere(str(error)) from error
        died = WORKER_DIED.search(str(error))
        if died:
            killed = f" was killed ({died[2]}; when nobody did that, memory was full)" if died[2] else " has died"
            mend = f"Lower train.dataloader_num_workers (now {num_workers}) or free memory."
            raise TrainingError(folder, f"a data worker (process {died[1]}){killed}. {mend} {goes_on}") from error
        if is_out_of_memory(error):
            raise TrainingError(folder, f"out of memory {out_of_memory()} {goes_on}") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the GPU's or the machine's memory is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
