"""A LoRA from elsewhere into an adapter of this model: the same modules, rank and strength, or an error."""

from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from mmtune.errors import CheckpointError
from mmtune.models.weights import load_adapter
from mmtune.models.xtuner_files import Tensors

PLAIN_STARTS = (True, "gaussian")
"""Values of PEFT's `init_lora_weights` that leave the base model's weights as they are."""


def load_lora(part: nn.Module, tensors: Tensors, path: Path, settings: dict[str, Any], owner: str, key: str) -> None:
    """Load LoRA matrices into the adapter that a part has.

    Args:
        part: a PeftModel with a plain LoRA.
        tensors: by PEFT's names in files, without the adapter's name.
        path: where they come from, for errors.
        settings: `r` and `lora_alpha` of the file, as far as it records them.
        owner: the config section whose `tune` trains the part, such as `model.llm`.
        key: the config key of the adapter, such as `model.adapter`.

    Raises:
        CheckpointError: the part has no adapter, or one with another rank, alpha, kind or other modules.
    """
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name}
    if len(ranks) != 1:
        message = f"holds {len(ranks) or 'no'} LoRA ranks where there is one in XTuner's files. Convert it again."
        raise CheckpointError(path, message)
    rank = ranks.pop()
    modules = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in tensors})
    alpha = settings.get("lora_alpha")
    keys = f"kind: lora, r: {rank}, lora_alpha: {'ALPHA' if alpha is None else alpha}"
    mend = f"{key}: {{{keys}, target_modules: [{', '.join(modules)}]}}"
    if not isinstance(part, PeftModel):
        message = f"holds a LoRA of rank {rank}, for which this config has no place."
        raise CheckpointError(path, f"{message} Set {owner}.tune: adapter and {mend}.")
    difference = _difference(part.peft_config["default"], rank, alpha)
    own = get_peft_model_state_dict(part, save_embedding_layers=False)
    there = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in own})
    if difference is None and there != modules:
        difference = f"its LoRA is on {', '.join(modules)}, that of this config on {', '.join(there)}"
    if difference is not None:
        raise CheckpointError(path, f"{difference}. Set {mend}.")
    load_adapter(part, tensors, path)


def _difference(config: Any, rank: int, alpha: float | None) -> str | None:
    """Say in what the adapter of this config is another one, or None."""
    if config.peft_type != "LORA":
        return f"it holds a LoRA, this config has {config.peft_type.lower()}"
    if config.use_rslora or config.use_dora or config.init_lora_weights not in PLAIN_STARTS:
        return "it holds a plain LoRA, this config has a variant of it"
    if config.r != rank:
        return f"its LoRA has rank {rank}, this config r: {config.r}"
    if alpha is not None and config.lora_alpha != alpha:
        return f"its LoRA was trained with lora_alpha {alpha}, this config has {config.lora_alpha}: another strength"
    return None
