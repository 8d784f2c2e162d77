"""What a config with streamed data cannot ask for: whatever needs the data as a whole before training."""

from collections.abc import Iterator
from typing import Any

from mmtune.schema import Config, DataConfig, ModelConfig


def is_streamed(data: DataConfig) -> bool:
    """Whether the data is read while training; all sources are, or none."""
    return any(source.stream for source in data.train)


def wrong_streams(config: Config) -> Iterator[str]:
    """Yield what is wrong with a config of streamed data, each as a sentence with the mend."""
    data, train = config.data, config.train
    if not is_streamed(data):
        return
    if not all(source.stream for source in data.train):
        yield "'data.train' has sources with stream: true and without. Stream all of them, or none."
    if train.max_steps < 1:
        yield f"a stream has no length, so 'train.max_steps' says when it is enough (got {train.max_steps}). Set it."
    for key, value, off in _needs_all(config):
        if value != off:
            mend = f"Set {'null' if off is None else str(off).lower()}, or leave stream out."
            yield f"'{key}' needs all samples before training, and a stream has none. {mend}"
    if train.dataloader_num_workers > 1:
        got = f"got {train.dataloader_num_workers}"
        yield f"a stream is read by one process, so 'train.dataloader_num_workers' is 0 or 1 ({got}). Set 1."
    yield from _wrong_calibration(config.model)


def _needs_all(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and the value that needs nothing."""
    data = config.data
    yield "data.pack_to_max_length", data.pack_to_max_length, False
    yield "data.group_by_length", data.group_by_length, False
    yield "data.max_tokens_per_batch", data.max_tokens_per_batch, None
    yield "data.cache_vision_features", data.cache_vision_features, False
    for number, source in enumerate(data.train):
        yield f"data.train[{number}].limit", source.limit, None
        yield f"data.train[{number}].repeat", source.repeat, 1.0
        yield f"data.train[{number}].weight", source.weight, None


def _wrong_calibration(model: ModelConfig) -> Iterator[str]:
    """A projector that another run has calibrated (`init_from`) needs no images."""
    if model.projector is None or model.init_from is not None:
        return
    wanted = {"standardize": False, "warm_start_epochs": 0, "initial_scale": None}
    for key, off in wanted.items():
        if vars(model.projector)[key] != off:
            mend = f"Set {'null' if off is None else str(off).lower()}, or start from a run with model.init_from."
            yield f"'model.projector.{key}' needs images before training, and a stream cannot be read ahead. {mend}"
