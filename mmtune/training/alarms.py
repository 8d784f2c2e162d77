"""Alarms: what is odd about a run is said once, with cause and mend, and kept in `log.jsonl`.

The checks of logged figures are in `alarm_checks.py`; those of weights and gradients are here.
"""

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mmtune.errors import TrainingAlarm
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config
from mmtune.training.alarm_checks import CHECKS, NEAR_ZERO
from mmtune.training.callbacks import RunLog
from mmtune.training.history import History
from mmtune.training.meter import StepMeter

log = logging.getLogger(__name__)

PARTS = ("projector", "vision", "llm")
NEEDS_IMAGES = ("projector", "vision")
DOES_NOT_MOVE, NO_GRADIENT = "does_not_move", "no_gradient"
STILL_STEPS, STILL_CHANGE = 20, 1e-6
"""Adam at a rate of 1e-6, in the first 20 steps of a long warm-up, changes weights of 0.02 by a share of 1e-5."""
MOST_WATCHED = 4_000_000
"""Numbers of a part whose start is kept: 16 MB."""
DEAD_STEPS, STEPS_BETWEEN_CHECKS, CLOSELY_WATCHED = 10, 50, 100
"""After the first 100 steps since a start or resume each 50th is looked at: on a GPU a look waits for the step."""
NAMED_TENSORS = 3


class Alarms(TrainerCallback):
    """Looks after a run.

    Args:
        config: of the run; `train.alarms` says whether an alarm is a warning or ends the run.
        verb: whose limits hold.
        model: that trains.
        meter: counts what steps train on.
        run_log: keeps the alarms.
    """

    def __init__(self, config: Config, verb: str, model: VisionLanguageModel, meter: StepMeter, run_log: RunLog):
        self.config, self.verb, self.model, self.meter, self.run_log = config, verb, model, meter, run_log
        self.went_off: dict[str, list[int]] = defaultdict(list)  # name of an alarm -> where it went off
        self.dead_steps: dict[str, int] = defaultdict(int)  # part -> looks in a row that found no gradient
        self.steps_at_work: dict[str, int] = defaultdict(int)
        self.at_start: dict[str, dict[str, torch.Tensor]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep how the trained weights start."""
        projector = self.config.model.projector
        is_fitted = self.config.model.init_from is not None or (projector is not None and projector.warm_start_epochs)
        self.first_step = state.global_step
        self.history = History(
            self.verb,
            chance_loss=math.log(self.model.config.vocab_size),
            warmup_steps=args.get_warmup_steps(state.max_steps),
            starts_anew=self.verb == "pretrain" and state.global_step == 0 and not is_fitted,
            max_grad_norm=args.max_grad_norm,
            num_workers=args.dataloader_num_workers,
            padding_free=self.config.data.padding_free,
            step=state.global_step,
        )
        self.parts = {name: trained for name in PARTS if (trained := self._trained(name))}
        for name, trained in self.parts.items():
            self.at_start[name] = _copies(trained)

    def _trained(self, part: str) -> dict[str, torch.nn.Parameter]:
        """Return the trained weights of a part; none where parts of them lie on several devices."""
        module = getattr(self.model, part)
        named = () if module is None or self.model.is_split else module.named_parameters()
        return {f"{part}.{name}": value for name, value in named if value.requires_grad}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look whether the gradient of a part is 0; engines that shard gradients keep them elsewhere."""
        done = state.global_step - self.first_step
        is_due = done < CLOSELY_WATCHED or done % STEPS_BETWEEN_CHECKS == 0
        is_learned = bool(self.history.losses) and self.history.losses[-1] < NEAR_ZERO
        if not is_due or is_learned or args.deepspeed or args.fsdp:
            return
        for part, trained in self.parts.items():
            if not self._works(part):
                continue
            is_dead = not any(value.grad is not None and bool(value.grad.any()) for value in trained.values())
            self.dead_steps[part] = self.dead_steps[part] + 1 if is_dead else 0
            if self.dead_steps[part] == DEAD_STEPS:
                self._raise(state, NO_GRADIENT, _no_gradient(part, list(trained)))

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """After some steps, look whether each trained part has moved."""
        for part in [part for part in self.at_start if self._works(part)]:
            self.steps_at_work[part] += 1
            if self.steps_at_work[part] < STILL_STEPS:
                continue
            start = self.at_start.pop(part)
            change = max(_change(self.parts[part][name], value) for name, value in start.items())
            if change < STILL_CHANGE:
                self._raise(state, DOES_NOT_MOVE, self._still(part, change, given["optimizer"]))

    def _works(self, part: str) -> bool:
        """Whether a part had something to do in the newest step: steps of text alone do without projector."""
        return part not in NEEDS_IMAGES or self.meter.step_images > 0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **given: Any) -> None:
        """Check the figures of the log."""
        if not logs or "loss" not in logs:
            return
        rate = max((group["lr"] for group in given["optimizer"].param_groups), default=0.0)
        is_over = state.global_step >= state.max_steps
        self.history.add(state.global_step, logs, self.meter.figures, 1.0 if is_over else rate)
        for name, check in CHECKS.items():
            text = check(self.history)
            if text is not None:
                self._raise(state, name, text)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say which alarms went off, and how often."""
        if self.went_off:
            times = [f"{name} {len(at)}x from step {at[0]}" for name, at in self.went_off.items()]
            log.warning("alarms of this run: %s", ", ".join(times))

    def _raise(self, state: Any, name: str, text: str) -> None:
        """Say an alarm the first time and count it; end the run where the config says so."""
        self.went_off[name].append(state.global_step)
        if len(self.went_off[name]) > 1:
            return
        self.run_log.append(state, {"alarm": name, "message": text})
        if self.config.train.alarms == "error":
            place = f"{Path(self.config.train.output_dir)}, step {state.global_step}"
            raise TrainingAlarm(place, f"{text} (alarm {name}; train.alarms is error)")
        log.warning("step %d: %s (alarm %s)", state.global_step, text, name)

    def _still(self, part: str, change: float, optimizer: Any) -> str:
        """Say why a part does not move."""
        ids = {id(value) for value in self.parts[part].values()}
        groups = [group for group in optimizer.param_groups if ids & {id(value) for value in group["params"]}]
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        if self.config.train.deepspeed:  # its optimizer holds flat pieces of the weights
            own = vars(self.config.model)[part].learning_rate
            rates = [self.config.train.learning_rate if own is None else own]
        opening = f"the {part} trains but does not move ({STILL_STEPS} steps changed it by a share of {change:.0e})"
        key = f"model.{part}.learning_rate"
        if not rates:
            return f"{opening}: the optimizer does not hold its weights. Take another train.optim."
        if self.dead_steps[part]:
            return f"{opening}: its gradient is 0. Check that the data has images, and which layers train."
        dtypes = {str(value.dtype).removeprefix("torch.") for value in self.parts[part].values()}
        if dtypes & {"bfloat16", "float16"}:
            return (
                f"{opening}: its rate is {max(rates):.1e} and its weights are {dtypes.pop()}, which rounds such steps \
away. Set train.pure_bf16 to false, or raise {key}."
            )
        return f"{opening}: its rate is {max(rates):.1e}. Raise {key} or train.learning_rate."


def _no_gradient(part: str, names: list[str]) -> str:
    """Say of which weights the gradient is 0."""
    shown = ", ".join(names[:NAMED_TENSORS]) + (", ..." if len(names) > NAMED_TENSORS else "")
    return (
        f"the gradient of the whole {part} was 0 at {DEAD_STEPS} steps in a row ({shown}): it learns nothing. Check "
        "that the loss depends on it (images in the data, layers below the one that is read), and with float16 take "
        "bfloat16 or float32."
    )


def _copies(trained: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return copies of a part's first weights, `MOST_WATCHED` numbers at most but of one tensor."""
    kept: dict[str, torch.Tensor] = {}
    left = MOST_WATCHED
    for name, value in trained.items():
        if kept and value.numel() > left:
            break
        kept[name], left = value.detach().to("cpu", copy=True), left - value.numel()
    return kept


def _change(value: torch.Tensor, start: torch.Tensor) -> float:
    """Return how far a tensor is from its start, as a share of it."""
    before = start.float()
    size = float(torch.linalg.vector_norm(before))
    return float(torch.linalg.vector_norm(value.detach().cpu().float() - before)) / max(size, 1e-12)
