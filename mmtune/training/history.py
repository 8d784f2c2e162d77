"""What a run has logged since it was started or resumed, as far as the checks of `alarm_checks.py` look back."""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

RECENT, BASE, SHORT = 50, 50, 10
KEPT, FIRST = 200, 20


@dataclass
class History:
    """What a run has logged since it was started or resumed.

    Attributes:
        verb: pretrain, finetune or sft.
        chance_loss: of guessing: ln of the vocabulary.
        warmup_steps: in which the rate rises.
        starts_anew: whether it started at step 0 with a projector that nothing has trained or fitted.
        max_grad_norm: to which gradients are clipped; 0: not at all.
        num_workers: that load data.
        padding_free: whether batches are asked to have no padding.
        step: of the newest log.
        num_logs: since then.
        losses: of the last logs.
        norms: of gradients, of the last logs.
        first_losses: of the first logs.
        best_median: lowest median of `RECENT` losses so far.
        idle_logs: that followed one another with a rate of 0, steps left.
        seconds: of the steps so far, the first log left out.
        wait_seconds: of them without data.
        padding: share of each log.
        supervised: tokens a second of the newest log; None where nothing was measured.
    """

    verb: str
    chance_loss: float
    warmup_steps: int
    starts_anew: bool
    max_grad_norm: float
    num_workers: int
    padding_free: bool
    step: int = 0
    num_logs: int = 0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    first_losses: list[float] = field(default_factory=list)
    best_median: float = math.inf
    idle_logs: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    padding: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    supervised: float | None = None

    def add(self, step: int, logs: dict[str, float], figures: dict[str, float], rate: float) -> None:
        """Add a log.

        Args:
            step: of it.
            logs: with `loss`, and `grad_norm` where gradients are clipped; a loss that is not finite does not count.
            figures: of the meter.
            rate: the highest of all groups of weights.
        """
        num_steps, self.step = step - self.step, step
        self.supervised = figures.get("supervised_tokens_per_second")
        if figures and self.num_logs:
            seconds = figures["seconds_per_step"] * num_steps
            self.seconds += seconds
            self.wait_seconds += seconds * figures["data_wait_share"]
            self.padding.append(figures["padding_share"])
        self.num_logs += 1
        self.idle_logs = 0 if rate else self.idle_logs + 1
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            return
        if len(self.first_losses) < FIRST:
            self.first_losses.append(logs["loss"])
        self.losses.append(logs["loss"])
        if "grad_norm" in logs:
            self.norms.append(logs["grad_norm"])
        if len(self.losses) >= RECENT:
            self.best_median = min(self.best_median, median_of_last(self.losses, RECENT))

    def is_settled(self, num_logs: int) -> bool:
        """Whether so many losses were logged and as many steps lie behind the warm-up."""
        return len(self.losses) >= num_logs and self.step >= self.warmup_steps + num_logs


def mean_of_last(values: deque[float], number: int) -> float:
    """Return the mean of the last values."""
    return statistics.fmean(islice(reversed(values), number))


def median_of_last(values: deque[float], number: int) -> float:
    """Return the median of the last values."""
    return statistics.median(islice(reversed(values), number))


def before_last(values: deque[float]) -> list[float]:
    """Return the values that stand before the last `SHORT`, as many as make a base; empty where there are fewer."""
    return list(islice(reversed(values), SHORT, SHORT + BASE)) if len(values) >= SHORT + BASE else []
