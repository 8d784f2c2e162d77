"""Read `gguf` exports back: the language model by transformers' own loader, the vision part by its names."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmtune.export.gguf_tensors import VISION_NAMES, gguf_name
from mmtune.export.parity import Parity, Probe, compare, logits_of_llm
from mmtune.export.source import Source


def read_back(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    """Ask the export: text and, through `mmproj.gguf`, images."""
    from transformers import AutoModelForCausalLM, GgufConfig

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    llm = loaded.eval()
    vision = folder / "mmproj.gguf"
    sees = read_vision(vision) if vision.is_file() else None
    transform = source.parts.transform

    @torch.inference_mode()
    def read(probe: Probe) -> torch.Tensor:
        if probe.image is None or sees is None or transform is None:
            return logits_of_llm(llm, probe)
        return logits_of_llm(llm, probe, sees(transform(probe.image)[None]))

    return compare(probes, read, f"transformers {transformers.__version__} (gguf_file=)", source.dtype)


class GgufVision(nn.Module):
    """The vision encoder and the projector of an `mmproj.gguf`."""

    def __init__(self, tower: nn.Module, projector: nn.Module):
        super().__init__()
        self.tower, self.projector = tower, projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map pixels float[N, 3, H, W] to embeddings float[N, tokens, hidden_size]."""
        return self.projector(self.tower(pixel_values).last_hidden_state[:, 1:])


def read_vision(path: Path) -> GgufVision:
    """Build the vision part from the keys and tensors of its file alone."""
    import gguf

    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        tensors[tensor.name] = torch.from_numpy(np.array(values, dtype=np.float32))
    is_gelu, is_silu = (key in reader.fields for key in ("clip.use_gelu", "clip.use_silu"))
    tower: Any = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=value("clip.vision.embedding_length"),
            intermediate_size=value("clip.vision.feed_forward_length"),
            num_hidden_layers=value("clip.vision.block_count"),
            num_attention_heads=value("clip.vision.attention.head_count"),
            image_size=value("clip.vision.image_size"),
            patch_size=value("clip.vision.patch_size"),
            layer_norm_eps=value("clip.vision.attention.layer_norm_epsilon"),
            hidden_act="gelu" if is_gelu else "silu" if is_silu else "quick_gelu",
        )
    )
    for name, own in tower.state_dict().items():
        if not name.startswith("post_layernorm"):
            own.copy_(tensors.pop(gguf_name(name, VISION_NAMES, "v.")).reshape(own.shape))
    width_in, width_out = tensors["mm.0.weight"].shape[1], value("clip.vision.projection_dim")
    projector = nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
    projector.load_state_dict({name.removeprefix("mm."): tensor for name, tensor in tensors.items()})
    return GgufVision(tower, projector).eval()
