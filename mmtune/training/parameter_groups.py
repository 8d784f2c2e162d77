"""Which learning rate and weight decay each trained weight has."""

from typing import Any

from torch import nn

from mmtune.models.methods import loraplus_lr_ratio
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config


def parameter_groups(config: Config, model: VisionLanguageModel, decayed: set[str]) -> list[dict[str, Any]]:
    """Return the groups of an optimizer: each part with its own rate and decay.

    Args:
        config: of the run.
        model: as it trains.
        decayed: names of the weights that decay; norms and biases are not among them.
    """
    groups = []
    adapters = {"llm": config.model.adapter, "vision": config.model.vision.adapter if config.model.vision else None}
    for part in ("llm", "vision", "projector"):
        settings = vars(config.model)[part]
        if settings is None:
            continue
        rate = config.train.learning_rate if settings.learning_rate is None else settings.learning_rate
        decay = config.train.weight_decay if settings.weight_decay is None else settings.weight_decay
        ratio = loraplus_lr_ratio(adapters.get(part))
        trained = {n: p for n, p in model.named_parameters() if n.startswith(f"{part}.") and p.requires_grad}
        chosen: dict[tuple[float, float], list[nn.Parameter]] = {}
        for has_decay in (True, False):
            for name, value in trained.items():
                if (name in decayed) == has_decay:
                    own_rate = rate * ratio if "lora_B" in name else rate
                    chosen.setdefault((own_rate, decay if has_decay else 0.0), []).append(value)
        groups += [{"params": params, "lr": lr, "weight_decay": wd} for (lr, wd), params in chosen.items()]
    return groups
