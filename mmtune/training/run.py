"""The main path of `pretrain`, `finetune` and `sft`: from a config to a complete run folder."""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import set_seed

from mmtune.build import (
    Parts,
    base_models,
    build_parts,
    cache_vision_features,
    calibrate_projector,
    choose_device,
    load_initial_weights,
)
from mmtune.build_data import build_reader
from mmtune.build_stack import with_own_stack
from mmtune.config import to_values
from mmtune.errors import CheckpointError, ConfigError
from mmtune.models.adapter_start import start_from_weights, starts_from_weights
from mmtune.models.fused_lora import fuse_lora
from mmtune.models.gated_mlp import recompute_gated_activations
from mmtune.models.liger import use_liger_kernels
from mmtune.models.precision import choose_dtype, keep_trained_weights_in
from mmtune.models.weights import save_weights
from mmtune.progress import Bars
from mmtune.run_folder import (
    CONFIG_FILE,
    config_hash,
    is_complete,
    newest_checkpoint,
    read_config,
    write_manifest,
    write_settings,
)
from mmtune.schema import Config
from mmtune.schema_evaluation import evaluates
from mmtune.training.arguments import training_arguments
from mmtune.training.callbacks import LOG_FILE, ProgressBar, RunLog
from mmtune.training.data import PROBLEM_FILES, load_data
from mmtune.training.evaluation import Evaluation
from mmtune.training.meter import StepMeter
from mmtune.training.rows import choose_collator
from mmtune.training.samples import require_samples, sample_callbacks
from mmtune.training.start_table import start_table
from mmtune.training.trainer import RunTrainer

log = logging.getLogger(__name__)


def train(config: Config, verb: str = "finetune", *, resume: bool | str = False, overwrite: bool = False) -> Path:
    """Train what the config says and return the complete run folder.

    Args:
        config: from `load_config`.
        verb: `pretrain`, `finetune` or `sft`; recorded with the run.
        resume: True continues from the newest complete checkpoint, a path from that one.
        overwrite: delete what the output folder holds.

    Raises:
        MMTuneError: config, data, base model or checkpoint are wrong; the message holds place and mend.
    """
    folder = Path(config.train.output_dir)
    if not overwrite and _is_done(folder, config):
        log.info("%s is complete and has this config: nothing to do", folder)
        return folder
    checkpoint = _prepare_folder(folder, config, resume, overwrite)

    device = choose_device(config.train.device)
    dtype = choose_dtype(config.model.llm.dtype, device)
    # A value that the Trainer refuses is said before a model loads.
    training_arguments(config.train, device, dtype, has_evaluation=evaluates(config))
    require_samples(config)
    reader = build_reader(config.model)
    data = load_data(config, reader, folder, _step_of(checkpoint))

    set_seed(config.train.seed)
    started = time.monotonic()
    model_config = config.model if checkpoint is None else with_own_stack(config.model, checkpoint)
    parts = build_parts(model_config, device, reader)
    log.info("built on %s in %.1f s", device.type, time.monotonic() - started)
    if config.model.stack_on:
        log.info("the new adapter is stacked on %s", " and ".join(config.model.stack_on))
    collator = choose_collator(config, parts.model)
    _quicken(config, parts)
    if not config.train.pure_bf16:
        keep_trained_weights_in(parts.model, torch.float32)
    loaded: list[str] = []
    if config.model.init_from is not None and checkpoint is None:
        loaded = load_initial_weights(config.model, parts)
        log.info("loaded %s from %s", " and ".join(loaded), config.model.init_from)
    if config.data.cache_vision_features:
        with Bars() as bars:
            data.cache_features(lambda dataset: cache_vision_features(config.model, parts, dataset, bars))
    if checkpoint is None:
        if "adapter" not in loaded and starts_from_weights(parts.model.llm):
            parts.model.adapter_start = start_from_weights(parts.model.llm)
        if "projector" not in loaded:
            calibrate_projector(config.model, parts, data.samples)
    if config.train.pure_bf16:
        keep_trained_weights_in(parts.model, torch.bfloat16)

    models = base_models(config.model)

    def write_run(target: Path) -> None:
        write_settings(target, config, verb, models, data.facts())
        save_weights(parts.model, target)
        parts.save_readers(target)

    meter = StepMeter(parts.model, parts.transform.image_size if parts.transform else None)
    run_log = RunLog(folder, meter, _step_of(checkpoint))
    bar = ProgressBar(verb, data.num_samples, Console(file=sys.stderr))
    callbacks = [*sample_callbacks(config, parts, meter, _step_of(checkpoint)), run_log, bar]
    evaluation = Evaluation(config, data.held_out, collator) if data.held_out is not None else None
    trainer = RunTrainer(parts.model, config, data.rows, collator, write_run, meter, callbacks, evaluation)
    log.info("%s", start_table(config, parts.model))
    try:
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.close()
    data.log_trained()
    best = trainer.load_best()
    write_run(folder)
    seconds = round(run_log.seconds_before + time.monotonic() - run_log.started, 1)
    write_manifest(folder, steps=result.global_step, train_seconds=seconds, **best)
    log.info("%d steps in %.0f s; the run is in %s", result.global_step, seconds, folder)
    return folder


def _quicken(config: Config, parts: Parts) -> None:
    """Let parts of the model run in ways that are faster or keep less, as the config says."""
    if config.train.use_liger_kernel:
        use_liger_kernels(parts.model.base_llm, parts.model.device)
    elif config.train.recompute_activations:
        recompute_gated_activations(parts.model.llm)
    if config.train.fused_lora:
        fuse_lora(parts.model)


def _is_done(folder: Path, config: Config) -> bool:
    if not is_complete(folder):
        return False
    if config_hash(read_config(folder)) == config_hash(config):
        return True
    differences = ", ".join(config_differences(read_config(folder), config)[:4])
    message = (
        f"holds a complete run with another config ({differences}). Take another train.output_dir, or --overwrite."
    )
    raise CheckpointError(folder, message)


def _prepare_folder(folder: Path, config: Config, resume: bool | str, overwrite: bool) -> Path | None:
    """Make the folder ready to write to; return the checkpoint to continue from."""
    if folder.is_file():
        raise ConfigError("train.output_dir", f"{folder} is a file. Name a folder.")
    if overwrite and folder.exists():
        _delete_run(folder)
    checkpoint = _checkpoint_to_resume(folder, config, resume)
    if not resume and folder.exists() and {path.name for path in folder.iterdir()} - {*PROBLEM_FILES}:
        newest = newest_checkpoint(folder)
        hint = f"--resume continues from {newest.name}; " if newest else "it has no checkpoint; "
        raise CheckpointError(
            folder, f"holds files of an incomplete run. {hint}--overwrite deletes it and starts anew."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        message = f"cannot write to {folder.resolve()}: {error.strerror}. Mend its mode, or name another folder."
        raise ConfigError("train.output_dir", message) from None
    return checkpoint


def _delete_run(folder: Path) -> None:
    """Delete a run's folder, and no other: a wrong output_dir must not cost somebody's files."""
    files = (CONFIG_FILE, LOG_FILE, *PROBLEM_FILES)
    is_run = any((folder / name).exists() for name in files) or any(folder.glob("checkpoint-*"))
    if any(folder.iterdir()) and not is_run:
        message = f"{folder.resolve()} holds files but no run, so --overwrite leaves it alone. Name another folder."
        raise ConfigError("train.output_dir", message)
    shutil.rmtree(folder)


def _checkpoint_to_resume(folder: Path, config: Config, resume: bool | str) -> Path | None:
    if not resume:
        return None
    checkpoint = newest_checkpoint(folder) if resume is True else Path(str(resume))
    if checkpoint is None:
        log.info("%s has no complete checkpoint: starting at step 0", folder)
        return None
    if not is_complete(checkpoint):
        raise CheckpointError(checkpoint, "not a complete checkpoint. --resume alone takes the newest complete one.")
    differences = config_differences(read_config(checkpoint), config)
    if differences:
        message = f"was made with another config: {', '.join(differences[:6])}. Set these back, or start a new run."
        raise CheckpointError(checkpoint, message)
    log.info("continuing from %s", checkpoint)
    return checkpoint


def config_differences(before: Config, now: Config) -> list[str]:
    """Name the keys on which two configs differ, as `key: before -> now`; the output folder does not count."""
    old, new = _flat(to_values(before)), _flat(to_values(now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key != "train.output_dir")
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
    elif isinstance(values, list) and values:
        pairs = [_flat(value, f"{prefix}[{number}]") for number, value in enumerate(values)]
    else:
        return {prefix: values}
    return {key: value for part in pairs for key, value in part.items()}


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
