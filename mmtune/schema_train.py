"""What is wrong with the numbers of a training: rates, noise, memory. Beyond what types and bounds say."""

from collections.abc import Iterator
from dataclasses import replace

from mmtune.schema import Config


def wrong_training(config: Config) -> Iterator[str]:
    """Yield what is wrong with the section `train`, each as a sentence with the mend."""
    train = config.train
    yield from _wrong_global_batch(config)
    alpha, smoothing = train.neftune_noise_alpha, train.label_smoothing_factor
    if alpha is not None and not 0 <= alpha < float("inf"):
        yield f"'train.neftune_noise_alpha' must be 0 or more (got {alpha}). The paper takes 5 to 15; null: no noise."
    if not 0 <= smoothing < 1:
        yield f"'train.label_smoothing_factor' must be at least 0 and less than 1 (got {smoothing})."
    is_low_rank = train.optim.startswith(("galore", "apollo"))
    if is_low_rank and not train.optim_target_modules:
        example = "such as [q_proj, v_proj], or [all-linear]"
        yield f"'train.optim: {train.optim}' needs 'train.optim_target_modules': parts of layers' names, {example}."
    if train.optim_target_modules and not is_low_rank:
        yield f"'train.optim_target_modules' is for GaLore and APOLLO (got train.optim: {train.optim}). Leave it out."


def _wrong_global_batch(config: Config) -> Iterator[str]:
    train = config.train
    size, steps, whole = train.per_device_train_batch_size, train.gradient_accumulation_steps, train.global_batch_size
    key = "train.global_batch_size"
    if whole is None:
        if size == "auto":
            mend = f"Set '{key}': the samples of an optimizer step, such as 128."
            yield f"'train.per_device_train_batch_size: auto' needs the batch that it splits. {mend}"
        return
    if config.data.max_tokens_per_batch is not None:
        got = f"data.max_tokens_per_batch: {config.data.max_tokens_per_batch}"
        yield f"'{key}' counts samples, and batches by tokens ({got}) hold any number of them. Set one of the two."
    elif size == "auto":
        if steps != 1:
            got = f"got train.gradient_accumulation_steps: {steps}"
            yield f"'train.per_device_train_batch_size: auto' sets the accumulation itself ({got}). Leave that out."
    elif whole % size:
        yield f"'{key}' must be a multiple of train.per_device_train_batch_size={size} (got {whole})."
    elif steps not in (1, whole // size):
        product = f"{size} x train.gradient_accumulation_steps={steps} = {size * steps}"
        yield f"'{key}: {whole}' is not train.per_device_train_batch_size={product}. Leave one of the three out."


def set_accumulation(config: Config) -> None:
    """Let the accumulation follow from the global batch, where that is set and the batch of a device is a number."""
    train = config.train
    size = train.per_device_train_batch_size
    if train.global_batch_size is not None and size != "auto":
        train.gradient_accumulation_steps = train.global_batch_size // size


def batch_size_of(config: Config) -> int:
    """Return the samples of a batch; `auto` has been settled by now."""
    size = config.train.per_device_train_batch_size
    assert isinstance(size, int), "train.per_device_train_batch_size is auto still"
    return size


def with_whole_batches(config: Config) -> Config:
    """Return a config whose `auto` is the global batch at once: as many steps, for counting them."""
    if config.train.per_device_train_batch_size != "auto":
        return config
    assert config.train.global_batch_size is not None, "the config refuses auto without it"
    return replace(config, train=replace(config.train, per_device_train_batch_size=config.train.global_batch_size))
