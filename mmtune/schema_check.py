"""What the values of a config may be, beyond their types: bounds of numbers, and keys that need or exclude others.

What only evaluation, streams, adapters or the batch ask is in `schema_evaluation.py` and its neighbours.
"""

import dataclasses
import math
from collections.abc import Iterator

from mmtune.schema import Config, DataConfig, ModelConfig
from mmtune.schema_tune import wrong_method, wrong_tune

ABOVE_0 = (
    "train.per_device_train_batch_size",
    "train.gradient_accumulation_steps",
    "train.global_batch_size",
    "train.num_train_epochs",
    "train.learning_rate",
    "train.logging_steps",
    "train.dataloader_prefetch_factor",
    "train.save_total_limit",
    "model.llm.learning_rate",
    "model.vision.learning_rate",
    "model.projector.learning_rate",
    "model.vision.image_size",
    "model.vision.grid",
    "data.max_tokens_per_batch",
    "data.shuffle_buffer",
    "train.per_device_eval_batch_size",
    "train.early_stopping_patience",
    "sample.max_new_tokens",
)
AT_LEAST_0 = (
    "train.weight_decay",
    "train.max_grad_norm",
    "train.save_steps",
    "train.max_nonfinite_steps",
    "train.dataloader_num_workers",
    "train.seed",
    "train.eval_steps",
    "train.early_stopping_threshold",
    "sample.every_steps",
    "model.llm.weight_decay",
    "model.vision.weight_decay",
    "model.projector.weight_decay",
)
"""Keys whose numbers have a lower bound; a null is not checked."""


def wrong_values(config: Config, verb: str) -> Iterator[str]:
    """Yield what is wrong with the values of a config beyond their types, each as a sentence with the mend."""
    data, train = config.data, config.train
    yield from _wrong_numbers(config)
    yield from _wrong_batches(data)
    yield from _wrong_sources(data)
    if train.sequence_parallel_size != 1:
        size = train.sequence_parallel_size
        reason = "what spreads a sample over devices lets packed samples see each other (docs/distributed.md)"
        mend = "Set 1; for long samples, train.gradient_checkpointing: true."
        yield f"'train.sequence_parallel_size' can only be 1 (got {size}): {reason}. {mend}"
    if not data.train:
        yield "'data.train' names no data. Give it as a list: [{path: data/train.json}]."
    yield from _wrong_parts(config)
    yield from _wrong_for_verb(config.model, verb)


def _numbers(config: Config, keys: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    values = dataclasses.asdict(config)
    for key in keys:
        section, *names = key.split(".")
        value = values[section]
        for name in names:
            value = value and value[name]
        if value is not None and value != "auto":
            yield key, value


def _wrong_numbers(config: Config) -> Iterator[str]:
    data, train = config.data, config.train
    for key, value in _numbers(config, ABOVE_0):
        if not (value > 0 and math.isfinite(value)):
            yield f"'{key}' must be greater than 0 (got {value})."
    for key, value in _numbers(config, AT_LEAST_0):
        if not (value >= 0 and math.isfinite(value)):
            yield f"'{key}' must be 0 or more (got {value})."
    for key, value in _numbers(config, ("train.adam_beta1", "train.adam_beta2")):
        if not 0 <= value < 1:
            yield f"'{key}' must be at least 0 and less than 1 (got {value})."
    if not 0 < train.gradient_checkpointing_fraction <= 1:
        share = train.gradient_checkpointing_fraction
        yield f"'train.gradient_checkpointing_fraction' must be above 0 and at most 1 (got {share})."
    if train.max_steps != -1 and train.max_steps < 1:
        yield f"'train.max_steps' must be 1 or more, or -1 to follow num_train_epochs (got {train.max_steps})."
    if not train.output_dir.strip():
        yield "'train.output_dir' is empty. Name the folder that the run is written to."
    if not 0 <= train.warmup_ratio < 1:
        yield f"'train.warmup_ratio' is a share of all steps: at least 0, less than 1 (got {train.warmup_ratio})."
    if data.max_length < 2:
        yield f"'data.max_length' must be at least 2 tokens (got {data.max_length})."


def _wrong_batches(data: DataConfig) -> Iterator[str]:
    budget = data.max_tokens_per_batch
    if budget is not None and budget < data.max_length:
        yield f"'data.max_tokens_per_batch' must hold a sample of data.max_length={data.max_length} (got {budget})."
    if data.pack_to_max_length:
        for key, value in (("group_by_length", data.group_by_length), ("max_tokens_per_batch", budget)):
            if value:
                yield f"'data.{key}' and 'data.pack_to_max_length' do not go together: packs are full. Set one of them."


def _wrong_sources(data: DataConfig) -> Iterator[str]:
    for number, source in enumerate(data.train):
        place = f"data.train[{number}]"
        for key, value in (("limit", source.limit), ("repeat", source.repeat), ("weight", source.weight)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                yield f"'{place}.{key}' must be greater than 0 (got {value})."
    if len({source.weight is None for source in data.train}) == 2:
        yield "'data.train' has sources with a weight and without. Give each a weight, or none."


def _wrong_parts(config: Config) -> Iterator[str]:
    model, data, train = config.model, config.data, config.train
    if (model.vision is None) != (model.projector is None):
        absent, present = ("vision", "projector") if model.vision is None else ("projector", "vision")
        yield f"'model.{present}' is set but 'model.{absent}' is not. Set both to see images, none for text."
    if (model.llm.tune == "adapter") != (model.adapter is not None):
        yield "'model.adapter' and 'model.llm.tune: adapter' go together. Set both, or none."
    if model.stack_on and model.adapter is None:
        yield "'model.stack_on' needs a new 'model.adapter' to stack. Set one, or leave stack_on out."
    if model.vision is not None and (model.vision.tune == "adapter") != (model.vision.adapter is not None):
        yield "'model.vision.adapter' and 'model.vision.tune: adapter' go together. Set both, or none."
    yield from wrong_tune("model.llm.tune", model.llm.tune, model.llm.quantization)
    if model.vision is not None:
        yield from wrong_tune("model.vision.tune", model.vision.tune)
    yield from wrong_method(
        model.adapter,
        model.llm.quantization,
        packs=data.pack_to_max_length,
        checkpoints=bool(train.gradient_checkpointing),
    )
    if data.cache_vision_features and (model.vision is None or model.vision.tune != "frozen"):
        got = "there is no model.vision" if model.vision is None else f"model.vision.tune is {model.vision.tune}"
        yield f"'data.cache_vision_features' needs a frozen vision encoder ({got}). Set it to false."


def _wrong_for_verb(model: ModelConfig, verb: str) -> Iterator[str]:
    if verb == "pretrain" and model.vision is None:
        needs = "pretrain needs 'model.vision' and 'model.projector': it trains the projector."
        yield f"{needs} `mmtune sft` trains on text."
    if verb == "pretrain" and model.llm.tune != "frozen":
        got = f"got model.llm.tune: {model.llm.tune}"
        yield f"pretrain trains the projector alone ({got}). `mmtune finetune` trains both."
    if verb == "finetune" and model.init_from is None:
        yield "finetune needs 'model.init_from': the run folder of a pretrain. `mmtune pretrain` makes one."
