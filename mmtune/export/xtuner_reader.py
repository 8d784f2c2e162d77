"""Read `xtuner` exports back as XTuner's loaders do: PEFT on the base's own layout, AutoModel for the projector."""

from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionModel, LlamaForCausalLM

from mmtune.errors import CheckpointError
from mmtune.export.parity import Parity, Probe, compare, logits_of_llm
from mmtune.export.source import Source
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.internlm2 import MODEL_TYPE, llama_config, num_heads, to_llama
from mmtune.models.json_files import read_json
from mmtune.models.vision_towers import tower_folder


def read_back(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    """Ask the export, about text and images."""
    llm = _read_llm(source, folder).to(torch.float32).eval()
    config, transform = source.config.model.vision, source.parts.transform
    assert config is not None
    assert transform is not None
    own = folder / "visual_encoder"
    tower: Any = CLIPVisionModel.from_pretrained(
        own if own.is_dir() else tower_folder(config.name, source.config.model.hub), dtype=torch.float32
    )
    # As the loaders of this layout do it; the code that is run is this package's own, copied there by the export.
    projector: Any = AutoModel.from_pretrained(folder / "projector", trust_remote_code=True, dtype=torch.float32)
    layer = -2 if config.feature_layer is None else config.feature_layer

    @torch.inference_mode()
    def read(probe: Probe) -> torch.Tensor:
        if probe.image is None:
            return logits_of_llm(llm, probe)
        states = tower(transform(probe.image)[None], output_hidden_states=True).hidden_states
        return logits_of_llm(llm, probe, projector(states[layer][:, 1:]))

    return compare(probes, read, f"peft {peft.__version__} on the base's own layout", source.dtype)


def _read_llm(source: Source, folder: Path) -> Any:
    """Return the language model with the exported adapter merged by PEFT."""
    base = folder / "llm" if (folder / "llm").is_dir() else source.llm_folder
    adapter = folder / "llm_adapter"
    if read_json(base / "config.json").get("model_type") != MODEL_TYPE:
        llm: Any = AutoModelForCausalLM.from_pretrained(base, dtype=source.dtype, local_files_only=True)
        return PeftModel.from_pretrained(llm, str(adapter)).merge_and_unload() if adapter.is_dir() else llm
    weights = {name: tensor.to(source.dtype) for name, tensor in read_weights(base)}
    if adapter.is_dir():
        weights = merge_by_names(weights, adapter)
    llm = LlamaForCausalLM(llama_config(read_json(base / "config.json")))
    llm.load_state_dict(dict(to_llama(weights.items(), *num_heads(llm.config))))
    return llm


def merge_by_names(weights: dict[str, torch.Tensor], adapter: Path) -> dict[str, torch.Tensor]:
    """Let PEFT merge an adapter into weights of any layout, without the model's code.

    Args:
        weights: of the base, by its own names.
        adapter: PEFT's folder.

    Raises:
        CheckpointError: the adapter has names that the base has not.
    """
    root = nn.Module()
    for name, tensor in weights.items():
        *path, kind = name.split(".")
        module = root
        for number, part in enumerate(path):
            if part not in dict(module.named_children()):
                is_linear = number == len(path) - 1 and tensor.ndim == 2 and "embed" not in part
                module.add_module(part, _empty_linear(tensor) if is_linear else nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(kind, nn.Parameter(tensor, requires_grad=False))
    model: Any = PeftModel(root, LoraConfig.from_pretrained(str(adapter)))
    result: Any = set_peft_model_state_dict(model, load_file(adapter / "adapter_model.safetensors"))
    unset = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or unset:
        wrong = (*result.unexpected_keys, *unset)[0]
        raise CheckpointError(adapter, f"PEFT finds no place for '{wrong}' in the base. The export must not be used.")
    return model.merge_and_unload().state_dict()


def _empty_linear(weight: torch.Tensor) -> nn.Module:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
