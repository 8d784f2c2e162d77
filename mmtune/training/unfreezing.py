"""What happens to the model around optimizer steps: layers that open one after the other, AdaLoRA's budget."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerState

from mmtune.models.adalora import allocate, is_adalora, set_total_steps
from mmtune.models.tuning import top_blocks
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config
from mmtune.training.ranks import agreed


@dataclass
class Schedule:
    """When the blocks of a part begin to train, the last one first.

    Attributes:
        blocks: from the last one downwards.
        every_steps: optimizer steps between one and the next, or None.
        every_epochs: epochs between one and the next, or None.
    """

    blocks: list[nn.Module]
    every_steps: int | None
    every_epochs: float | None

    def num_open(self, state: TrainerState) -> int:
        """Return how many blocks train in the step after `state.global_step`."""
        if self.every_steps is not None:
            return 1 + state.global_step // self.every_steps
        assert self.every_epochs is not None
        return 1 + int((state.epoch or 0.0) / self.every_epochs + 1e-6)


class GradualUnfreezing(TrainerCallback):
    """Lets the blocks of `{top_layers: N, unfreeze_every_steps: S}` train one after the other, from the last down.

    Which ones train follows from the step alone, so a resumed run goes on as it would have. Blocks that wait have no
    gradient, and the optimizer leaves them as they are.

    Source: Universal Language Model Fine-tuning (Howard & Ruder 2018, arXiv:1801.06146), section 3.3.
    """

    def __init__(self, model: VisionLanguageModel, config: Config):
        self.schedules = []
        for name, settings, part in (
            ("llm", config.model.llm, model.llm),
            ("vision", config.model.vision, model.vision),
        ):
            tune = settings.tune if settings is not None else None
            if part is not None and isinstance(tune, dict) and len(tune) > 1:
                blocks = top_blocks(part, tune["top_layers"], f"model.{name}.tune")
                steps, epochs = tune.get("unfreeze_every_steps"), tune.get("unfreeze_every_epochs")
                self.schedules.append(Schedule(blocks, steps, epochs))

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Freeze what waits; the optimizer knows all blocks by now."""
        self._open(state)

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Open the next block when its time has come."""
        self._open(state)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Open all: the run folder holds them all."""
        for block in self._waiting():
            block.requires_grad_(True)

    @contextmanager
    def all_open(self) -> Iterator[None]:
        """Count all blocks among the trained ones, as a checkpoint does."""
        waiting = self._waiting()
        for block in waiting:
            block.requires_grad_(True)
        try:
            yield
        finally:
            for block in waiting:
                block.requires_grad_(False)

    def _open(self, state: TrainerState) -> None:
        for schedule in self.schedules:
            for number, block in enumerate(schedule.blocks):
                block.requires_grad_(number < schedule.num_open(state))

    def _waiting(self) -> list[nn.Module]:
        blocks = [block for schedule in self.schedules for block in schedule.blocks]
        return [block for block in blocks if not any(value.requires_grad for value in block.parameters())]


class RankAllocation(TrainerCallback):
    """Moves AdaLoRA's budget of ranks after each optimizer step; nothing for other methods."""

    def __init__(self, model: VisionLanguageModel):
        self.llm = model.llm

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Move the budget while the gradients of the step are still there."""
        # After a step that was not finite there are no gradients.
        if is_adalora(self.llm) and any(value.grad is not None for value in self.llm.parameters()):
            allocate(self.llm, state.global_step + 1)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Tell AdaLoRA how many steps there are."""
        with agreed():
            set_total_steps(self.llm, state.max_steps, "model.adapter")
