"""On which keys two configs of a run differ, and which of them let it go on."""

import re
from typing import Any

from mmtune.config import to_values
from mmtune.schema import Config

FREE = (
    "train.output_dir",
    "train.logging_steps",
    "train.save_steps",
    "train.save_total_limit",
    "train.max_nonfinite_steps",
    "train.eval_steps",
    "train.per_device_eval_batch_size",
    "train.report_to",
    "train.run_name",
    "train.project",
    "train.alarms",
    "train.dataloader_num_workers",
    "train.dataloader_prefetch_factor",
    "data.check_images",
)
"""Keys that change no weight."""

ROUNDED = (
    "train.gradient_checkpointing",
    "train.gradient_checkpointing_fraction",
    "train.fused_lora",
    "train.use_liger_kernel",
    "train.recompute_activations",
    "train.device",
    "train.fsdp",
    "model.llm.attn_implementation",
    "data.padding_free",
    "data.cache_vision_features",
)
"""Keys that change weights by rounding alone: the mathematics is the same."""

EXTENDING = ("train.num_train_epochs", "train.max_steps")
"""Keys that make a run longer or shorter."""

STOPPING = ("train.early_stopping_patience", "train.early_stopping_threshold")
"""Keys that say when a run stops early: with others it may go on, or would have stopped before."""

AT_THE_END = ("train.load_best_model_at_end",)
"""Keys of what becomes of the weights when training is over."""

ELSEWHERE = ("model.llm.name_or_path", "model.vision.name", "model.vision.pretrained", "model.hub")
"""Keys of files that may have moved: their content is compared."""

SPLIT = ("train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.global_batch_size")
"""Keys that say what a step trains on: the product of the first two, or the third."""


OF_THE_MIX = ("limit", "repeat", "weight", "stream")
"""Keys of a source that say how much of it an epoch holds."""


def config_differences(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Return the keys on which two configs differ, with both values."""
    old, new = flat(to_values(before)), flat(to_values(now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {key: (old.get(key), new.get(key)) for key in keys}


def is_allowed(key: str, differences: dict[str, tuple[Any, Any]], config: Config) -> bool:
    """Whether a run may go on although a key differs."""
    if key in SPLIT:
        is_ordered_by_batch = config.data.group_by_length or config.data.max_tokens_per_batch is not None
        now = vars(config.train)
        sizes = [differences.get(key, (now[_last(key)],) * 2) for key in SPLIT]
        before, after = (_global_batch(*split) for split in zip(*sizes, strict=True))
        return before == after and not is_ordered_by_batch
    source = re.fullmatch(r"data\.train\[\d+\]\.(\w+).*", key)
    if source is not None:  # what its records are is compared by their content
        return source[1] not in OF_THE_MIX or differences[key][0] is None
    return changes_nothing(key) or key in (*ROUNDED, *EXTENDING, *STOPPING, *AT_THE_END, *ELSEWHERE)


def changes_nothing(key: str) -> bool:
    """Whether a key has no say in the weights of a run."""
    return key in FREE or key == "sample" or key.startswith("sample.")


def _global_batch(size: int | str, steps: int, whole: int | None) -> int:
    return whole if whole is not None else int(size) * steps


def extends(differences: dict[str, tuple[Any, Any]]) -> bool:
    """Whether a run with these differences may be longer than before, or has more data."""
    return any(key in (*EXTENDING, *STOPPING) or key.startswith("data.train[") for key in differences)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def meaning(key: str) -> str | None:
    """Return what follows from a difference that is allowed; None where nothing does."""
    if key in EXTENDING:
        return "the learning rate follows the schedule of the new length from here on"
    if key in ROUNDED or key in SPLIT:
        return "results are the same but for rounding"
    return None


def shown(key: str, before: Any, now: Any) -> str:
    """Return a difference as a reader sees it."""
    return f"{key}: {before} -> {now}"


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values with one key each, such as `data.train[0].path`."""
    if isinstance(values, dict) and values:
        pairs = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
    elif isinstance(values, list) and values:
        pairs = [flat(value, f"{prefix}[{number}]") for number, value in enumerate(values)]
    else:
        return {prefix: values}
    return {key: value for part in pairs for key, value in part.items()}
