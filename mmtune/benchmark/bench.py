"""A few steps of a config on synthetic data, by the path that every training takes, and what its log says of them."""

import math
import os
import platform
import statistics
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from mmtune.benchmark.random_weights import use_random_weights
from mmtune.benchmark.synthetic import SHAPES, Shape, write_records
from mmtune.build_data import Reader, build_reader
from mmtune.config import to_values
from mmtune.errors import ConfigError
from mmtune.models.device import choose_device
from mmtune.run_folder import library_versions
from mmtune.schema import Config, DataSource
from mmtune.schema_train import batch_size_of, with_whole_batches
from mmtune.training.callbacks import LOG_FILE, read_log
from mmtune.training.run import train

MAX_SAMPLES = 4096


def bench(
    config: Config,
    verb: str,
    *,
    num_steps: int = 8,
    num_warmup_steps: int = 2,
    shape: Shape | None = None,
    random_weights: bool = False,
) -> dict[str, Any]:
    """Train some steps and return their figures, medians over the steps after the warm-up.

    Data is synthetic, a projector starts anew, nothing is kept; all else is as the config says.

    Args:
        config: of a training.
        verb: whose it is.
        num_steps: optimizer steps that count.
        num_warmup_steps: optimizer steps before them.
        shape: of the samples; None takes that of the verb.
        random_weights: take random weights of the real shape for models that are not here.

    Returns:
        `device`, `versions`, `random_weights` (names), `config`, `figures` as `StepMeter.read` names them, with
        `matmul_flops_per_second`, and `losses` of all steps.

    Raises:
        MMTuneError: as `train`.
    """
    config = deepcopy(config)
    replaced = use_random_weights(config.model) if random_weights else []
    with tempfile.TemporaryDirectory(prefix="mmtune-bench-") as name:
        folder = Path(name)
        _shorten(config, folder / "run", num_warmup_steps + num_steps)
        reader = build_reader(config.model)
        num_samples = _num_samples(config, reader)
        records = write_records(folder, reader, shape or SHAPES[verb], num_samples, config.data.max_length)
        config.data.train = [DataSource(path=str(records))]
        given = to_values(config)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        train(config, verb)
        entries = read_log(folder / "run" / LOG_FILE)
    return {
        "device": device_name(choose_device(config.train.device)),
        "versions": library_versions(),
        "verb": verb,
        "random_weights": replaced,
        "config": given,
        "figures": median_figures([entry["speed"] for entry in entries[num_warmup_steps:]]),
        "losses": [entry["loss"] for entry in entries],
    }


def _shorten(config: Config, folder: Path, num_steps: int) -> None:
    config.model.init_from = None
    config.train.output_dir = str(folder)
    config.train.max_steps = num_steps
    config.train.save_steps, config.train.logging_steps = 0, 1
    config.data.check_images = "header"
    config.train.report_to, config.train.alarms = [], "none"
    config.data.validation, config.data.validation_fraction, config.sample = [], None, None
    config.train.metric_for_best_model = config.train.early_stopping_patience = None
    config.train.load_best_model_at_end = False
    if any(source.stream for source in config.data.train):
        raise ConfigError("data.train", "a stream is not measured: synthetic data takes its place. Leave stream out.")


def _num_samples(config: Config, reader: Reader) -> int:
    """As many as the steps need, in whole batches, up to `MAX_SAMPLES`: more steps begin another epoch."""
    train, data, size = config.train, config.data, batch_size_of(with_whole_batches(config))
    if data.pack_to_max_length or data.max_tokens_per_batch:
        tokens = data.max_tokens_per_batch or data.max_length * size
        per_batch = math.ceil(tokens / max(reader.num_image_tokens, 64)) + 1
    else:
        per_batch = size
    per_step = per_batch * train.gradient_accumulation_steps
    return per_step * max(1, min(train.max_steps, MAX_SAMPLES // per_step))


def median_figures(speeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure; of the peak memory the highest."""
    names = [name for name, value in speeds[0].items() if not isinstance(value, dict)]
    figures: dict[str, Any] = {name: statistics.median(speed[name] for speed in speeds) for name in names}
    figures["peak_memory_bytes"] = max(speed["peak_memory_bytes"] for speed in speeds)
    rates = [speed["flops_per_second"] / speed["matmul_share"] for speed in speeds]
    figures["matmul_flops_per_second"] = statistics.median(rates)
    parts = {part: None for speed in speeds for part in speed["seconds"]}
    figures["seconds"] = {
        part: statistics.median(speed["seconds"].get(part, 0.0) for speed in speeds) for part in parts
    }
    return figures


def device_name(device: torch.device) -> str:
    """Return what the device calls itself; of a CPU also its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
