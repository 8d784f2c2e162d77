"""Bottleneck adapters behind the sub-layers of each block, which PEFT does not have.

Source: Parameter-Efficient Transfer Learning for NLP (Houlsby et al. 2019, arXiv:1902.00751), section 2.1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.models.blocks import blocks_of

OUTPUT_LAYERS = ("o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2", "wo", "w2", "dense_4h_to_h")
"""The last linear layers of attention and MLP in the models of transformers."""


@dataclass
class HoulsbyConfig:
    """Keys of `kind: houlsby`, in the words of LLM-Adapters (Hu et al. 2023, arXiv:2304.01933).

    Attributes:
        bottleneck_size: width between the two layers of an adapter.
        non_linearity: between them; a name of transformers' activations.
        target_modules: the layers that adapters stand behind; None: the last one of attention and of the MLP.
    """

    bottleneck_size: int = 64
    non_linearity: str = "gelu"
    target_modules: list[str] | None = None


class HoulsbyAdapter(nn.Module):
    """`h + up(act(down(h)))` of the output h of a frozen layer; zero at the start, so that nothing changes."""

    def __init__(self, base_layer: Any, config: HoulsbyConfig):
        super().__init__()
        self.base_layer = base_layer
        device = base_layer.weight.device
        self.down = nn.Linear(base_layer.out_features, config.bottleneck_size, device=device)
        self.up = nn.Linear(config.bottleneck_size, base_layer.out_features, device=device)
        self.activation = ACT2FN[config.non_linearity]
        nn.init.normal_(self.down.weight, std=base_layer.out_features**-0.5)
        for zeros in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeros)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float[..., in] to float[..., out]."""
        h = self.base_layer(x)
        return h + self.up(self.activation(self.down(h.to(self.down.weight.dtype)))).to(h.dtype)


def insert_adapters(llm: nn.Module, config: HoulsbyConfig, place: str) -> None:
    """Put an adapter behind the sub-layers of each block of a frozen model; the adapters alone train.

    Raises:
        ConfigError: no such layer or activation, or a width below 1.
    """
    lookup(ACT2FN, config.non_linearity, f"{place}.non_linearity")
    if config.bottleneck_size < 1:
        raise ConfigError(f"{place}.bottleneck_size", f"must be 1 or more (got {config.bottleneck_size}).")
    wanted = tuple(config.target_modules or OUTPUT_LAYERS)
    missing = set(config.target_modules or ())
    is_any = False
    for block in blocks_of(llm):
        for path, layer in list(block.named_modules()):
            parent, _, name = path.rpartition(".")
            if name in wanted and "weight" in dict(layer.named_parameters(recurse=False)):
                block.get_submodule(parent).register_module(name, HoulsbyAdapter(layer, config))
                missing.discard(name)
                is_any = True
    if missing or not is_any:
        names = {path.rpartition(".")[2] for block in blocks_of(llm) for path, _ in block.named_modules()} - {""}
        message = f"no layer is called {', '.join(sorted(missing or wanted))}. There are: {', '.join(sorted(names))}."
        raise ConfigError(f"{place}.target_modules", message)


def has_houlsby(llm: nn.Module) -> bool:
    """Whether a model holds such adapters, which cannot be merged into its weights."""
    return any(isinstance(module, HoulsbyAdapter) for module in llm.modules())
