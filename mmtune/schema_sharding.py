"""What does not go with DeepSpeed or FSDP, as far as the config alone tells."""

from collections.abc import Iterator

from mmtune.schema import Config

DEEPSPEED_SETTINGS = ("zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
"""Words of `train.deepspeed`: files of `configs/deepspeed` that work as they are."""


def wrong_sharding(config: Config) -> Iterator[str]:
    """Yield what is wrong with `train.deepspeed` and `train.fsdp`, each as a sentence with the mend."""
    word, train = config.train.deepspeed, config.train
    if word is not None and word not in DEEPSPEED_SETTINGS and not word.endswith(".json"):
        yield f"'train.deepspeed' must be {', '.join(DEEPSPEED_SETTINGS)} or a JSON file of DeepSpeed's (got {word})."
    if word is not None and train.fsdp:
        yield "'train.deepspeed' and 'train.fsdp' both split a model over devices. Set one of them."
    if word is None and not train.fsdp:
        return
    key = f"train.deepspeed: {word}" if word is not None else "train.fsdp: true"
    for name, tune in (
        ("llm", config.model.llm.tune),
        ("vision", config.model.vision.tune if config.model.vision else None),
    ):
        if isinstance(tune, dict) and len(tune) > 1:
            reason = "all that trains is split when training begins"
            yield f"'{key}' does not go with layers that open one after the other: {reason}. Set model.{name}.tune to \
{{top_layers: {tune.get('top_layers')}}}."
    if (config.model.adapter or {}).get("kind") == "adalora":
        reason = "AdaLoRA moves its ranks by whole gradients, of which each device holds a part"
        yield f"'{key}' does not go with adalora: {reason}. Set model.adapter.kind: lora."
    if train.fsdp and config.model.llm.quantization is not None:
        reason = "every device would hold all of the quantized weights, and only the little that trains would be split"
        yield f"'train.fsdp' does not go with {config.model.llm.quantization} weights: {reason}. Take deepspeed: zero3."
    if train.pure_bf16 and word is not None:
        reason = "DeepSpeed keeps fp32 copies of bfloat16 weights for its optimizer by itself"
        yield f"'train.pure_bf16' has no meaning with '{key}': {reason}. Set it to false."
