"""From a config to parts: the only place where config, data and models meet."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmtune.build_data import Progress, Reader, build_reader, untold, vision_options
from mmtune.build_stack import initial_parts, with_own_stack
from mmtune.build_trained import assemble, trained_llm
from mmtune.cache import cache_folder
from mmtune.conversation import IGNORE_INDEX
from mmtune.data.dataset import SampleDataset
from mmtune.data.feature_store import FeatureShape, FeatureStore, cache_features
from mmtune.errors import CheckpointError, ConfigError
from mmtune.hashing import sampled_hash, value_hash
from mmtune.models.device import choose_device, device_to_answer
from mmtune.models.language import llm_folder, load_llm
from mmtune.models.precision import choose_dtype, compute_dtype, computing_in
from mmtune.models.vision import load_vision, vision_path
from mmtune.models.warm_start import fit_to_words
from mmtune.models.weights import held_parts, load_weights, wanted_parts
from mmtune.models.xtuner import load_xtuner
from mmtune.models.xtuner_files import is_xtuner
from mmtune.parts import Parts
from mmtune.run_folder import (
    VERSIONS_FILE,
    read_config,
    read_json,
    require_complete,
)
from mmtune.schema import ModelConfig, VisionConfig
from mmtune.sizes import gib

log = logging.getLogger(__name__)
CALIBRATION_IMAGES = 256
WARM_START_IMAGES = 800


def build_parts(config: ModelConfig, device: torch.device | None = None, reader: Reader | None = None) -> Parts:
    """Build a model from its config; the projector and the adapters are new.

    Args:
        config: of the model.
        device: where it goes; None takes a GPU where there is one.
        reader: of the same config, where there is one already.
    """
    device = device or choose_device()
    dtype = choose_dtype(config.llm.dtype, device)
    reader = reader or build_reader(config)
    llm: Any = load_llm(
        config.llm.name_or_path,
        dtype=dtype,
        device=device,
        quantization=config.llm.quantization,
        double_quantization=config.llm.double_quantization,
        hub=config.hub,
        attn_implementation=config.llm.attn_implementation,
    )
    llm, vision = trained_llm(config, llm), None
    if config.vision is not None:
        source, name = config.vision.source, config.vision.name
        vision = load_vision(source, name, dtype, vision_options(config.vision), config.hub)
    model = assemble(config, llm, vision, device)
    return Parts(model, reader.tokenizer, reader.template, reader.transform)


def calibrate_projector(
    config: ModelConfig, parts: Parts, dataset: SampleDataset | None, progress: Progress = untold
) -> None:
    """Fit a new projector's statistics, words and output scale to the first training images, where the config asks.

    Args:
        config: of the model.
        parts: of it; the projector is new.
        dataset: whose images it is fitted to; None for a stream.
        progress: told what is being done and how far it is.

    Raises:
        ConfigError: there are no images to fit it to; none can be seen before a stream (None) is trained.
    """
    projector, settings = parts.model.projector, config.projector
    if projector is None or settings is None:
        return
    if not (settings.standardize or settings.warm_start_epochs or settings.initial_scale):
        return
    if dataset is None:
        message = "a stream shows no image before training. Set standardize, warm_start_epochs and initial_scale back."
        raise ConfigError("model.projector", message)
    limit = WARM_START_IMAGES if settings.warm_start_epochs else CALIBRATION_IMAGES
    chosen = np.flatnonzero(dataset.num_images == 1)[:limit].tolist()
    if not chosen:
        raise ConfigError("data.train", "holds no image, so the projector cannot be calibrated. Add image records.")
    features = torch.cat([_features(parts, dataset, number) for number in _told(chosen, progress)])
    embeddings: Any = parts.model.base_llm.get_input_embeddings().weight
    if settings.standardize:
        projector.fit_standardization(features[:CALIBRATION_IMAGES])
    if settings.warm_start_epochs:
        words = [[token for token in dataset.sample(number).labels if token != IGNORE_INDEX] for number in chosen]
        tell = partial(progress, "the projector's start")
        num_words = fit_to_words(projector, features, words, embeddings, settings.warm_start_epochs, tell)
        log.info("projector started near %d words of %d captions", num_words, len(chosen))
    if settings.initial_scale:
        projector.fit_output_scale(
            features, settings.initial_scale * float(embeddings.detach().float().pow(2).mean().sqrt())
        )


def _told(numbers: list[int], progress: Progress) -> Iterator[int]:
    for done, number in enumerate(numbers):
        progress("images for the projector's start", done, len(numbers))
        yield number


@torch.no_grad()
def _features(parts: Parts, dataset: SampleDataset, index: int) -> torch.Tensor:
    if dataset.features is not None:
        return dataset.image_features(index).to(parts.model.device)
    assert parts.model.vision is not None
    device = parts.model.device
    with computing_in(compute_dtype(parts.model.base_llm), device):  # trained layers are kept in another dtype
        return parts.model.vision(dataset.pixel_values(index).to(device))


def cache_vision_features(config: ModelConfig, parts: Parts, dataset: SampleDataset, progress: Progress) -> None:
    """Compute the features of all images of a dataset that are not on disk yet, and let its items hold them.

    Raises:
        DataError: too little disk space, or an image that cannot be read.
    """
    vision, transform = parts.model.vision, parts.transform
    assert vision is not None
    assert transform is not None
    assert config.vision is not None
    dtype = next(vision.parameters()).dtype
    shape = FeatureShape(vision.num_tokens, vision.hidden_size, dtype)
    models = base_models(config)
    key = [asdict(config.vision), models.get("vision", {}).get("hash"), transform.to_dict(), str(dtype)]
    store = FeatureStore(cache_folder() / "features" / value_hash(key)[:32], shape)

    def encode_images(pixels: torch.Tensor) -> torch.Tensor:
        return vision(pixels.to(parts.model.device))

    dataset.features = [
        cache_features(
            part, dataset.images_of(number), store, transform, encode_images, _announce_features,
            partial(progress, "vision features"),
        )
        for number, part in enumerate(dataset.parts)
    ]  # fmt: skip


def _announce_features(num_images: int, num_bytes: int, folder: Path, free: int) -> None:
    sizes = f"{gib(num_bytes)} (free: {gib(free)})"
    log.info("features of %d images go to %s: %s", num_images, folder, sizes)


def load_initial_weights(config: ModelConfig, parts: Parts) -> list[str]:
    """Load what `init_from` holds, a run or weights of XTuner, into a new model; return the names of the parts.

    Raises:
        CheckpointError: the run is incomplete, or its parts do not fit this model.
    """
    assert config.init_from is not None
    folder = Path(config.init_from)
    if is_xtuner(folder):
        return load_xtuner(parts.model, folder)
    require_complete(folder)
    held, wanted = initial_parts(config, folder), wanted_parts(parts.model)
    left_over = [part for part in held if part not in wanted]
    if left_over:
        message = f"holds a trained {', '.join(left_over)} that this config has no place for."
        raise CheckpointError(folder, f"{message} Set the same `tune` and `adapter`.")
    return load_weights(parts.model, folder, parts=tuple(held))


def load_run(
    folder: Path | str,
    *,
    llm: str | None = None,
    vision: str | None = None,
    quantization: Literal["nf4", "int8"] | None = None,
    device: torch.device | None = None,
) -> Parts:
    """Build the model of a run folder or checkpoint with its trained weights, ready to answer.

    Args:
        folder: the run.
        llm: where the base language model is now, if it moved.
        vision: where the vision encoder is now, if it moved.
        quantization: of the base language model; None takes what the run was trained with.
        device: None takes a GPU where there is one.

    Raises:
        CheckpointError: the run is incomplete, or a base model is not the one it was trained on.
    """
    folder = Path(folder)
    require_complete(folder)
    config = read_config(folder)
    if quantization is not None:
        if "llm" in held_parts(folder):
            message = "trained the language model itself, whose weights are not quantized. Ask it as it is."
            raise CheckpointError(folder, message)
        config.model.llm.quantization = quantization
    config.model = with_own_stack(config.model, folder)
    if llm is not None:
        config.model.llm.name_or_path = llm
    if vision is not None and config.model.vision is not None:
        _move_vision(config.model.vision, vision)
    recorded = read_json(folder / VERSIONS_FILE)["base_models"]
    for part, now in base_models(config.model).items():
        before = recorded.get(part)  # none where open_clip's cache held the weights
        if before is not None and now["hash"] != before["hash"]:
            hashes = f"hash {before['hash'][:12]}, now {now['hash'][:12]}"
            message = f"was trained on another {part} than {now['path']} ({hashes})."
            raise CheckpointError(folder, f"{message} Name the right one with --{part}.")
    parts = build_parts(config.model, device or device_to_answer(config.train.device))
    load_weights(parts.model, folder)
    parts.model.eval().requires_grad_(False)
    return parts


def _move_vision(config: VisionConfig, path: str) -> None:
    """Set where the encoder is now: its weights file where that has a key of its own, else its folder."""
    if config.pretrained is None:
        config.name = path
    else:
        config.pretrained = path


def base_models(config: ModelConfig) -> dict[str, dict[str, str]]:
    """Return name, path and hash of the models that a run builds on and does not hold."""
    folder = llm_folder(config.llm.name_or_path, config.hub)
    found = {"llm": {"name": config.llm.name_or_path, "path": str(folder), "hash": sampled_hash(folder)}}
    vision = config.vision
    if vision is not None:
        path = vision_path(vision.source, vision.name, vision.pretrained, config.hub)
        if path is not None:
            found["vision"] = {"name": vision.name, "path": str(path), "hash": sampled_hash(path)}
    return found
