"""The model as the first step of a run finds it: built, with the weights it starts from, in the ways that are fast."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mmtune.build import (
    Parts,
    build_parts,
    cache_vision_features,
    calibrate_projector,
    load_initial_weights,
)
from mmtune.build_data import Reader
from mmtune.build_stack import with_own_stack
from mmtune.models.adapter_start import start_from_weights, starts_from_weights
from mmtune.models.fused_lora import fuse_lora
from mmtune.models.gated_mlp import recompute_gated_activations
from mmtune.models.liger import use_liger_kernels
from mmtune.models.precision import keep_trained_weights_in
from mmtune.models.vlm import VisionLanguageModel
from mmtune.progress import Bars
from mmtune.schema import Config
from mmtune.training.data import TrainingData
from mmtune.training.rows import Collator, choose_collator

log = logging.getLogger(__name__)


@dataclass
class ModelToTrain:
    """A model that is ready to train.

    Attributes:
        parts: model, tokenizer, template and transform.
        collator: makes a batch of its rows.
    """

    parts: Parts
    collator: Collator


def model_to_train(
    config: Config, device: torch.device, reader: Reader, data: TrainingData, checkpoint: Path | None
) -> ModelToTrain:
    """Build the model of a run.

    Args:
        config: of the run.
        device: where it trains.
        reader: of its model.
        data: that it trains on: the projector may start from its images.
        checkpoint: that the run continues from; its weights are loaded later, by the trainer.

    Raises:
        MMTuneError: a part cannot be built, or the weights it starts from are not for it.
    """
    started = time.monotonic()
    model_config = config.model if checkpoint is None else with_own_stack(config.model, checkpoint)
    parts = build_parts(model_config, device, reader)
    log.info("built on %s in %.1f s", device.type, time.monotonic() - started)
    if config.model.stack_on:
        log.info("the new adapter is stacked on %s", " and ".join(config.model.stack_on))
    collator = choose_collator(config, parts.model)
    quicken(config, parts.model)
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
            with Bars() as bars:
                calibrate_projector(config.model, parts, data.samples, bars)
    if config.train.pure_bf16:
        keep_trained_weights_in(parts.model, torch.bfloat16)
    return ModelToTrain(parts, collator)


def quicken(config: Config, model: VisionLanguageModel) -> None:
    """Let parts of a model run in ways that are faster or keep less, as the config says."""
    if config.train.use_liger_kernel:
        use_liger_kernels(model.base_llm, model.device)
    elif config.train.recompute_activations:
        recompute_gated_activations(model.llm)
    if config.train.fused_lora:
        fuse_lora(model)
