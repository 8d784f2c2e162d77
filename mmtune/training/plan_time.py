"""How long a run takes by a rate that was measured on one device, and how a run of several devices is counted."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtune.data.dataset import PackedDataset
from mmtune.errors import ConfigError
from mmtune.schema import Config
from mmtune.training.plan import Plan
from mmtune.training.plan_model import Rows
from mmtune.training.steps import batches_per_step, num_batches_per_epoch, num_optimizer_steps

EFFICIENCY = 0.9
"""Of several devices, where nobody says another: an assumption."""


@dataclass(frozen=True)
class Rate:
    """How fast a run is.

    Attributes:
        tokens_per_second: of one device, with image tokens and without padding.
        source: where that is from.
        num_devices: that train together.
        efficiency: share of their rates taken together that is left when they wait for each other.
    """

    tokens_per_second: float
    source: str
    num_devices: int = 1
    efficiency: float = 1.0

    @property
    def of_all(self) -> float:
        """Tokens a second of all devices together."""
        return self.tokens_per_second * self.num_devices * self.efficiency

    def values(self, num_tokens: float | None) -> dict[str, Any]:
        """Return it as plain values for JSON, with the time of so many tokens."""
        seconds = None if num_tokens is None else num_tokens / self.of_all
        return vars(self) | {"tokens_per_second_of_all": self.of_all, "run_tokens": num_tokens, "run_seconds": seconds}


def bench_rate(path: Path) -> tuple[float, str]:
    """Return tokens a second from a file of `mmtune bench --json`, and the device that they were measured on.

    Raises:
        ConfigError: it is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return float(values["figures"]["tokens_per_second"]), str(values["device"])
    except OSError as error:
        message = f"cannot be read: {error.strerror} (resolved to {path.resolve()}). Name a file of mmtune bench."
        raise ConfigError(f"--bench: {path}", message) from None
    except (ValueError, KeyError, TypeError):
        mend = "Make one with: mmtune bench CONFIG --json FILE."
        raise ConfigError(f"--bench: {path}", f"has no figures of a benchmark. {mend}") from None


def share_of_device(config: Config, number: int) -> Config:
    """Return the config of one of several devices, whose batches are a share of `train.global_batch_size`.

    Without that key each device makes steps as one alone would, and the global batch grows with their number.

    Raises:
        ConfigError: it cannot be shared out.
    """
    train = config.train
    whole, size = train.global_batch_size, train.per_device_train_batch_size
    if number == 1 or whole is None:
        return config
    least = number if size == "auto" else number * int(size)
    if whole % least:
        message = f"must be a multiple of {least} for --gpus {number} (got {whole})."
        raise ConfigError("train.global_batch_size", message)
    steps = train.gradient_accumulation_steps if size == "auto" else whole // least
    share = replace(train, global_batch_size=whole // number, gradient_accumulation_steps=steps)
    return replace(config, train=share)


def num_steps_of(config: Config, rows: Rows | None, num_devices: int) -> int | None:
    """Return the optimizer steps of a run; None where they are not known without its data.

    Args:
        config: of one device.
        rows: its data; None where it was not read.
        num_devices: that train together.
    """
    if rows is None:
        return config.train.max_steps if config.train.max_steps > 0 else None
    return num_optimizer_steps(config, num_batches_per_epoch(config, rows), num_devices)


def run_tokens(config: Config, plan: Plan, rows: Rows | None, num_steps: int | None) -> float | None:
    """Return the tokens that a run trains on, all its epochs together; None where its steps are not known.

    Where `train.max_steps` ends it, each batch is taken to have the mean of the data; without data, full rows.

    Args:
        config: of one device.
        plan: of its memory.
        rows: its data; None where it was not read.
        num_steps: optimizer steps.
    """
    an_epoch = None
    if rows is not None:
        samples = rows.samples if isinstance(rows, PackedDataset) else rows
        an_epoch = float(samples.lengths.sum())
        if config.train.max_steps < 0:
            return an_epoch * config.train.num_train_epochs
    if num_steps is None:
        return None
    batches = num_steps * batches_per_step(config, plan.target.spread.num_devices)
    if an_epoch is None or rows is None:
        return float(batches * plan.batch.num_tokens)
    return batches * an_epoch / num_batches_per_epoch(config, rows)


def duration(seconds: float) -> str:
    """Return a time as text."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
