"""Models on the meta device, from configs alone: every shape and dtype of the real one, and not a byte of weights.

The shape is from a local folder, a hub client's cache, a package, or `known_shapes.py`; the network is not asked.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

from mmtune.errors import ModelError
from mmtune.models.efficientnet import EfficientNetLite0
from mmtune.models.hub import cached_folder, is_hub_name
from mmtune.models.internlm2 import MODEL_TYPE as INTERNLM2
from mmtune.models.internlm2 import llama_config
from mmtune.models.json_files import read_json
from mmtune.models.known_shapes import LLM_SHAPES, VISION_SHAPES
from mmtune.models.language import EMBEDDED, llm_folder, set_attention
from mmtune.models.language import PLACE as LLM_PLACE
from mmtune.models.openclip import open_clip_outline
from mmtune.models.quantized import quantization_config, quantization_of
from mmtune.models.vision import EfficientNetEncoder, vision_outline
from mmtune.models.vision_encoder import DEFAULT_FEATURE_LAYER, VisionEncoder
from mmtune.models.vision_towers import CLIP_MEAN, CLIP_STD
from mmtune.models.vision_towers import PLACE as VISION_PLACE
from mmtune.models.vit_encoders import ClipEncoder

META = torch.device("meta")
BLOCK_4BIT, BLOCK_CONSTANTS = 64, 256
"""Weights that share a constant in bitsandbytes' 4-bit layout, and constants that share one in its second layer."""


def llm_outline(
    name_or_path: str,
    *,
    dtype: torch.dtype,
    quantization: str | None = None,
    double_quantization: bool = True,
    hub: str = "huggingface",
    attn_implementation: str = "auto",
) -> tuple[Any, str]:
    """Return what `load_llm` loads, on the meta device, and where its shape is from.

    Arguments as `load_llm`.

    Raises:
        ModelError: the shape is nowhere on this machine, or transformers cannot build it without remote code.
    """
    values, folder, source = _llm_shape(name_or_path, hub)
    if values.get("model_type") == INTERNLM2:
        config: Any = llama_config(values, source)
    elif folder is None:
        config = AutoConfig.for_model(**values)
    else:
        config = _config_of(folder)
    config.dtype = dtype
    try:
        with META:
            llm: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        raise ModelError(source, f"no causal language model can be built of its config: {reason}.") from None
    llm.to(dtype)
    if quantization is not None:
        _quantize(llm, quantization_config(quantization, dtype, double_quantization), double_quantization)
    if attn_implementation != "auto":
        set_attention(llm, attn_implementation)
    return llm.requires_grad_(False).eval(), source


def _llm_shape(name: str, hub: str) -> tuple[dict[str, Any], Path | None, str]:
    """Return the values of `config.json`, the folder that they are from where there is one, and where it is."""
    folder = None
    if not Path(name).expanduser().exists():
        folder = cached_folder(name, hub) if is_hub_name(name) else None
        known = LLM_SHAPES.get(Path(name).name.lower())
        if folder is None and known is not None:
            return known, None, "a shape known to mmtune"
        if folder is None and is_hub_name(name):
            raise _unknown(LLM_PLACE, name, LLM_SHAPES)
    folder = folder or llm_folder(name, hub)
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(str(folder), "has no config.json, so its shape is not known. Name a model folder.")
    return read_json(path), folder, "its package" if name in EMBEDDED else str(path)


def _config_of(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        raise ModelError(str(folder / "config.json"), f"cannot be read as a model's config: {reason}.") from None


def _unknown(place: str, name: str, known: Any) -> ModelError:
    message = f"'{name}' is not on this machine, and planning downloads nothing."
    return ModelError(place, f"{message} Name a local folder; known without one: {', '.join(known)}.")


def _quantize(llm: Any, config: Any, double_quantization: bool) -> None:
    """Let transformers choose and replace the layers as it does when it loads; lay weights out as bitsandbytes."""
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(llm, device_map={"": "cpu"})
    llm.hf_quantizer = quantizer
    for module in llm.modules():
        kind = quantization_of(module)
        if kind == "nf4":
            module.weight = _packed_4bit(module, double_quantization)
        elif kind == "int8":
            module.weight = _rows_8bit(module)
    quantizer.postprocess_model(llm)


def _packed_4bit(layer: Any, double_quantization: bool) -> Any:
    """Two weights to a byte, a constant for every 64; with double quantization the constants in bytes too."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    shape = torch.Size((layer.out_features, layer.in_features))
    num_constants = math.ceil(shape.numel() / BLOCK_4BIT)
    packed = torch.empty((shape.numel() + 1) // 2, 1, dtype=torch.uint8, device=META)
    weight: Any = torch.Tensor._make_subclass(Params4bit, packed)
    state: dict[str, Any] = {"shape": shape, "blocksize": BLOCK_4BIT, "quant_type": "nf4", "dtype": layer.compute_dtype}
    code = torch.empty(16, device=META)
    if double_quantization:
        inner = QuantState(
            absmax=torch.empty(math.ceil(num_constants / BLOCK_CONSTANTS), device=META),
            code=torch.empty(256, device=META),
            blocksize=BLOCK_CONSTANTS,
            dtype=torch.float32,
        )
        absmax = torch.empty(num_constants, dtype=torch.uint8, device=META)
        weight.quant_state = QuantState(absmax, code=code, offset=torch.empty((), device=META), state2=inner, **state)
    else:
        weight.quant_state = QuantState(torch.empty(num_constants, device=META), code=code, **state)
    weight.bnb_quantized, weight.quant_type, weight.blocksize = True, "nf4", BLOCK_4BIT
    weight.compress_statistics, weight.quant_storage, weight.module = double_quantization, torch.uint8, layer
    return weight


def _rows_8bit(layer: Any) -> Any:
    """A byte for each weight and the largest value of each row."""
    from bitsandbytes.nn import Int8Params

    data = torch.empty(layer.out_features, layer.in_features, dtype=torch.int8, device=META)
    weight: Any = torch.Tensor._make_subclass(Int8Params, data)
    weight.CB, weight.SCB, weight.has_fp16_weights = data, torch.empty(layer.out_features, device=META), False
    return weight


def vision_shape(
    source: str, name: str, dtype: torch.dtype, options: dict[str, Any], hub: str = "huggingface"
) -> tuple[VisionEncoder, str]:
    """Return what `load_vision` loads, on the meta device, and where its shape is from.

    Arguments as `load_vision`; of open_clip's weights nothing is read.

    Raises:
        ConfigError: the source is unknown or does not take one of the options.
        ModelError: the shape is nowhere on this machine.
    """
    if source == "efficientnet":
        with META:
            network = EfficientNetLite0()
        grid, image_size = options.get("grid", 4), options.get("image_size", 128)
        return _frozen(EfficientNetEncoder(network, grid, image_size), torch.float32), "mmtune's own code"
    folder = Path(name).expanduser() if Path(name).expanduser().is_dir() else None
    if folder is None and is_hub_name(name) and not name.startswith(("ViT-", "RN")):
        folder = cached_folder(name, hub)
    if folder is not None and source == "transformers":
        outline = vision_outline(source, str(folder), options, hub)
        return _frozen(outline, dtype), str(folder / "config.json")
    layer = options.get("feature_layer", DEFAULT_FEATURE_LAYER)
    known = VISION_SHAPES.get(name.replace("ViT-L/14", "ViT-L-14").rpartition("/")[2].lower())
    if known is None and source == "open_clip" and importlib.util.find_spec("open_clip") is not None:
        return _frozen(open_clip_outline(str(folder or name), layer), dtype), "open_clip"
    if known is None:
        raise _unknown(VISION_PLACE, name, VISION_SHAPES)
    with META:
        tower = CLIPVisionModel(CLIPVisionConfig(**known))
    preprocessing = {"image_size": known["image_size"], "mean": CLIP_MEAN, "std": CLIP_STD, "resample": "bicubic"}
    return _frozen(ClipEncoder(tower, layer, preprocessing), dtype), "a shape known to mmtune"


def _frozen(encoder: VisionEncoder, dtype: torch.dtype) -> VisionEncoder:
    module: nn.Module = encoder.to(META, dtype).requires_grad_(False)
    module.train()
    return encoder
