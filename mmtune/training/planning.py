"""`mmtune plan`: a config's memory, steps, disk and, where the model is tried, time, and what to change."""

import textwrap
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmtune.errors import ConfigError
from mmtune.models.device import choose_device
from mmtune.models.weights import saved_bytes
from mmtune.schema import Config
from mmtune.sizes import GIB, gib
from mmtune.training.batch_size import is_auto, with_largest_batch
from mmtune.training.cards import find_card
from mmtune.training.plan import Plan, Target, target_here
from mmtune.training.plan_advice import Advice, advise, floor_reason
from mmtune.training.plan_model import Rows, data_is_here, plan_for, planned_model, planned_rows
from mmtune.training.plan_table import batch_line, checkpointing_line, plan_table, plan_values, split_values, verdict
from mmtune.training.plan_time import Rate, duration, num_steps_of, run_tokens, share_of_device
from mmtune.training.probe import Probe, probe
from mmtune.training.start_table import WIDTH
from mmtune.training.steps import FEW_STEPS
from mmtune.training.zero import spread_of_run

ESTIMATED = " (estimated)"


@dataclass(frozen=True)
class Report:
    """All that `mmtune plan` says.

    Attributes:
        config: with its batch size as a number.
        plan: of its memory.
        sources: where the shapes of the models are from.
        rows: its data; None where it was not read.
        num_steps: optimizer steps; None where they are not known.
        num_tokens: that are trained on, of all epochs; None where they are not known.
        checkpoint_bytes: that a checkpoint takes on disk.
        reason: why no batch size helps, where none does.
        advice: what to change.
        probe: what was measured, where that was asked for.
        rate: of all devices, where one of a device was given.
    """

    config: Config
    plan: Plan
    sources: tuple[str, ...]
    rows: Rows | None
    num_steps: int | None
    num_tokens: float | None
    checkpoint_bytes: int
    reason: str | None
    advice: list[Advice]
    probe: Probe | None
    rate: Rate | None = None

    def values(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return plan_values(self.plan) | {
            "shapes": list(self.sources),
            "split": split_values(self.config),
            "data_is_read": self.rows is not None,
            "optimizer_steps": self.num_steps,
            "checkpoint_bytes": self.checkpoint_bytes,
            "reason": self.reason,
            "changes": [
                {"set": step.change.words, "saved_bytes": step.saved, "total_bytes": step.total} for step in self.advice
            ],
            "probe": None if self.probe is None else vars(self.probe) | {"run_seconds": self.probed_seconds()},
            "rate": None if self.rate is None else self.rate.values(self.num_tokens),
        }

    def probed_seconds(self) -> float | None:
        """Return how long the run takes by its longest batch; None where either is not known."""
        if self.probe is None or self.num_tokens is None:
            return None
        return self.probe.run_seconds(self.num_tokens)


def choose_target(config: Config, gpu_memory: float | None, card: str | None = None) -> Target:
    """Return where a run is planned for: a card of a given size or name, the device that is here, or any card.

    Raises:
        ConfigError: the run is for another device, or no card is known by that name.
    """
    if gpu_memory is not None or card is not None:
        if config.train.device != "auto":
            option = "--gpu-memory" if card is None else "--gpu"
            raise ConfigError(option, f"train.device is {config.train.device}. Leave one of the two out.")
        if card is not None:
            name, memory = find_card(card)
            return Target("cuda", f"{name} with {memory / GIB:.1f} GiB", memory)
        return Target("cuda", f"a card of {gpu_memory:g} GiB", round((gpu_memory or 0) * GIB))
    if config.train.device != "auto":
        device = choose_device(config.train.device)
        return target_here(device, "this machine" if device.type == "cpu" else "the GPU of this Mac")
    if torch.cuda.is_available():
        device = torch.device("cuda")
        return target_here(device, torch.cuda.get_device_name(device))
    return Target("cuda", "a CUDA card")


def plan_run(
    config: Config,
    *,
    gpu_memory: float | None,
    reads_data: bool,
    probes: bool,
    card: str | None = None,
    rate: Rate | None = None,
    num_devices: int = 1,
) -> Report:
    """Plan a run.

    Args:
        config: of the run.
        gpu_memory: GiB of the card; None takes the device that is here.
        reads_data: prepare the data, where it is here, for its longest batch and its steps.
        probes: load the model and run the longest batch.
        card: a name of the table of cards, in place of `gpu_memory`.
        rate: that was measured.
        num_devices: that train together; the plan is that of each.

    Raises:
        MMTuneError: the shape of a model is not to be found, or the config does not fit it.
    """
    target = choose_target(config, gpu_memory, card)
    config = share_of_device(config, num_devices)
    planned = planned_model(config, target.kind)
    target = replace(target, spread=spread_of_run(config.train, num_devices, planned.model.config.hidden_size))
    rows = planned_rows(config) if reads_data and data_is_here(config) else None
    if is_auto(config):
        config = with_largest_batch(config, planned, target, rows)
    plan = plan_for(config, planned, target, rows)
    num_steps = num_steps_of(config, rows, num_devices)
    return Report(
        config=config,
        plan=plan,
        sources=planned.sources,
        rows=rows,
        num_steps=num_steps,
        num_tokens=run_tokens(config, plan, rows, num_steps),
        checkpoint_bytes=saved_bytes(planned.model) + sum(part.optimizer for part in plan.parts),
        reason=floor_reason(plan) if plan.fits is False else None,
        advice=advise(config, plan, planned, rows) if plan.fits is False else [],
        probe=probe(config, plan) if probes else None,
        rate=rate,
    )


def report_lines(report: Report) -> list[str]:
    """Return the report as lines of text."""
    plan, train = report.plan, report.config.train
    size, steps = train.per_device_train_batch_size, train.gradient_accumulation_steps
    number = plan.target.spread.num_devices
    several = f"{number} x " if number > 1 else ""
    how = f", {plan.target.spread.name}" if number > 1 else ""
    lines = [f"plan for {several}{plan.target.name}{how}; shapes of {', '.join(report.sources)}"]
    lines += ["", plan_table(plan), "", verdict(plan) + ESTIMATED]
    lines += [f"because {report.reason}"] if report.reason else []
    lines += _advice_lines(report)
    lines += ["", batch_line(plan, report.rows is not None), checkpointing_line(plan)]
    devices = f" x {number} devices" if number > 1 else ""
    lines.append(f"an optimizer step: {size} x accumulation {steps}{devices} = {size * steps * number} rows")
    lines += [*_steps_lines(report), _disk_line(report), *_time_lines(report)]
    return [part for line in lines for part in _wrapped(line)]


def short_lines(report: Report) -> list[str]:
    """Return the report without its tables: whether it fits and what to change, steps, disk and time."""
    plan = report.plan
    lines = [verdict(plan) + ESTIMATED, *([f"because {report.reason}"] if report.reason else [])]
    lines += [line for line in _advice_lines(report) if line]
    lines += [batch_line(plan, report.rows is not None), *_steps_lines(report), _disk_line(report)]
    lines += ["time: not known; --probe runs the longest batch here"] if report.probe is None else _time_lines(report)
    return [part for line in lines for part in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    """Break a sentence into lines; tables, paths and what is typed stay as they are."""
    if "\n" in line or line.startswith(" "):
        return [line]
    options = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(line, WIDTH, **options) or [""]  # type: ignore[arg-type]


def _advice_lines(report: Report) -> list[str]:
    if report.plan.fits is not False:
        return []
    if not report.advice:
        return ["nothing that mmtune knows makes it fit: take a smaller model or a larger card"]
    lines = ["", "to change, each with those above it:"]
    for step in report.advice:
        lines.append(f"  {step.change.words}")
        lines.append(f"      saves {gib(step.saved)}, needs {step.total / GIB:.2f} ({step.change.price})")
    if step.total > (report.plan.target.memory or 0):
        lines.append("that is not enough: take a smaller model or a larger card")
    return lines


def _steps_lines(report: Report) -> list[str]:
    if report.num_steps is None:
        return ["optimizer steps: not known without the data"]
    lines = [f"optimizer steps: {report.num_steps:,}"]
    if report.num_steps < FEW_STEPS and report.config.train.max_steps < 0:
        lines.append("few steps teach little: raise train.num_train_epochs or lower the accumulation")
    return lines


def _disk_line(report: Report) -> str:
    size, train = report.checkpoint_bytes, report.config.train
    if not train.save_steps:
        return f"disk: {gib(size)}, once at the end"
    kept = train.save_total_limit
    number = "every one is kept" if kept is None else f"{kept} kept and the end: {gib((kept + 1) * size)}"
    return f"disk: {gib(size)} a checkpoint, {number}"


def _time_lines(report: Report) -> list[str]:
    found, rate, tokens = report.probe, report.rate, report.num_tokens
    lines = []
    if found is not None:
        whole = "" if tokens is None else f", about {duration(found.run_seconds(tokens))} in all by its tokens"
        alone = " on one device" if report.plan.target.spread.num_devices > 1 else ""
        lines.append(f"time: {found.seconds:.2f} s for the longest batch on {found.device}{whole}{alone}")
    if rate is not None:
        several = f" x {rate.num_devices} x efficiency {rate.efficiency:g}" if rate.num_devices > 1 else ""
        together = f"{rate.of_all:,.0f} tokens/s ({rate.tokens_per_second:,.0f} {rate.source}{several})"
        if tokens is None:
            lines.append(f"time: not known without the data or train.max_steps; {together}")
        else:
            full = "" if report.rows is not None else " in full rows"
            lines.append(
                f"time: about {duration(tokens / rate.of_all)} for {tokens:,.0f} tokens{full} at {together}; estimated"
            )
    return lines or ["time: not known; --probe runs the longest batch here, --tokens-per-second takes a measured rate"]
