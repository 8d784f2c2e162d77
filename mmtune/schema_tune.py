"""What a value of `tune` and the kind of an adapter may be, as far as the config alone tells."""

from collections.abc import Iterator
from typing import Any

PREFIX_KINDS = ("prefix_tuning", "p_tuning_v2")
TUNE_WORDS = ("frozen", "adapter", "full")
TUNE_KEYS = ("top_layers", "unfreeze_every_steps", "unfreeze_every_epochs")
TUNE_FORMS = "frozen, adapter, full, {top_layers: N} or a list of parameter names"


def wrong_tune(key: str, tune: Any, quantization: str | None = None) -> Iterator[str]:
    """Yield what is wrong with a value of `tune`, each as a sentence with the mend.

    Args:
        key: of the value.
        tune: a word, a mapping with `top_layers` or a list of parameter names.
        quantization: of the part's weights.
    """
    if isinstance(tune, dict):
        yield from _wrong_layers(key, tune)
    elif isinstance(tune, list):
        if not tune or not all(isinstance(name, str) for name in tune):
            yield f"'{key}' as a list holds names of parameters (got {tune}). Such as ['model.layers.23.*']."
    elif tune not in TUNE_WORDS:
        yield f"'{key}' must be {TUNE_FORMS} (got {tune})."
    if quantization and (tune == "full" or isinstance(tune, dict)):
        yield f"'{key}: {tune}' cannot train {quantization} weights. Take tune: adapter, or quantization: null."


def _wrong_layers(key: str, tune: dict[str, Any]) -> Iterator[str]:
    for name in tune:
        if name not in TUNE_KEYS:
            yield f"'{key}' has no key '{name}'. It takes {', '.join(TUNE_KEYS)}."
    if "top_layers" not in tune:
        yield f"'{key}' as a mapping needs top_layers: how many blocks from the last one train."
    for name in TUNE_KEYS[:2]:
        if name in tune and (not isinstance(tune[name], int) or isinstance(tune[name], bool) or tune[name] < 1):
            yield f"'{key}.{name}' must be a whole number of 1 or more (got {tune[name]})."
    epochs = tune.get("unfreeze_every_epochs", 1)
    if not isinstance(epochs, int | float) or not epochs > 0:
        yield f"'{key}.unfreeze_every_epochs' must be greater than 0 (got {epochs})."
    if {"unfreeze_every_steps", "unfreeze_every_epochs"} <= tune.keys():
        yield f"'{key}' unfreezes by steps or by epochs. Set one of unfreeze_every_steps and unfreeze_every_epochs."


def wrong_method(
    adapter: dict[str, Any] | None, quantization: str | None, *, packs: bool, checkpoints: bool
) -> Iterator[str]:
    """Yield what does not go with the kind of an adapter.

    QLoRA is LoRA over quantized weights; prefix tuning takes neither packs nor checkpointing.
    """
    kind = adapter.get("kind") if adapter else None
    if kind == "qlora" and quantization is None:
        mend = "Set model.llm.quantization: nf4, or kind: lora."
        yield f"'model.adapter.kind: qlora' is LoRA over quantized weights. {mend}"
    if kind not in PREFIX_KINDS:
        return
    if packs:
        reason = "keys and values stand in front of a row, which must be one sample"
        yield f"'data.pack_to_max_length' does not go with {kind}: its {reason}. Set it to false."
    if checkpoints:
        reason = "blocks that are computed again would add their keys to the prefix twice"
        yield f"'train.gradient_checkpointing' does not go with {kind}: {reason}. Set it to false."


def cannot_pack(given: dict[str, Any]) -> bool:
    """Whether plain values ask for what does not go with packs: other batches, a stream, a prefix before each row."""
    data = given.get("data") or {}
    adapter = (given.get("model") or {}).get("adapter")
    has_prefix = isinstance(adapter, dict) and adapter.get("kind") in PREFIX_KINDS
    streams = any(source.get("stream") for source in data.get("train") or ())
    return bool(has_prefix or streams or data.get("group_by_length") or data.get("max_tokens_per_batch"))
