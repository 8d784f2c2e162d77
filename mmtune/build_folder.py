"""From a folder that is no run to parts that answer: a language model as it was published, or an `hf-llava` export."""

from pathlib import Path

import torch

from mmtune.build import Parts, choose_device
from mmtune.data.choose_template import OF_TOKENIZER, chat_template
from mmtune.data.images import ImageTransform
from mmtune.data.template_of_tokenizer import fitting_names
from mmtune.errors import ConfigError
from mmtune.models.hf_llava import is_hf_llava, load_hf_llava
from mmtune.models.hub import cached_folder, is_hub_name
from mmtune.models.language import EMBEDDED, load_llm, load_tokenizer
from mmtune.models.precision import choose_dtype
from mmtune.models.vlm import VisionLanguageModel
from mmtune.run_folder import CONFIG_FILE

TEMPLATE_OPTION = "--chat-template"


def is_model(name: str) -> bool:
    """Whether a name is that of a model and not of a run; nothing is downloaded to find out."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / CONFIG_FILE).exists()
    if name in EMBEDDED or (folder.suffix == ".gguf" and folder.is_file()):
        return True
    return is_hub_name(name) and cached_folder(name, "huggingface") is not None


def load_model(
    name: str, *, template: str | None = None, quantization: str | None = None, device: torch.device | None = None
) -> Parts:
    """Load a model that `is_model` knows, as it is.

    Args:
        name: a folder, a `.gguf` file, an embedded model, or a hub name that is in the cache.
        template: name of the chat template; None takes the tokenizer's own.
        quantization: of a language model, such as `nf4`.
        device: None takes a GPU where there is one.

    Raises:
        ModelError: it cannot be read.
        ConfigError: it has no chat template and none is named, or it cannot be quantized.
    """
    device = device or choose_device()
    cached = None if Path(name).exists() or not is_hub_name(name) else cached_folder(name, "huggingface")
    name = name if cached is None else str(cached)
    folder, dtype = Path(name).expanduser(), choose_dtype("auto", device)
    tokenizer = load_tokenizer(name)
    if template is None and not tokenizer.chat_template:
        fitting = ", ".join(fitting_names(tokenizer))
        message = f"{name} has no chat template of its own. Name one whose tokens it has: {fitting}."
        raise ConfigError(TEMPLATE_OPTION, message)
    try:
        chosen = chat_template(template or OF_TOKENIZER, tokenizer)
    except ConfigError as error:
        raise ConfigError(TEMPLATE_OPTION, error.message) from None
    if not is_hf_llava(folder):
        llm = load_llm(name, dtype=dtype, device=device, quantization=quantization)
        return Parts(VisionLanguageModel(llm).eval(), tokenizer, chosen, None)
    if quantization is not None:
        raise ConfigError("--4bit", f"{name} is an export in {str(dtype)[6:]}. Chat with its run in 4 bits instead.")
    parts = load_hf_llava(folder, dtype)
    model = VisionLanguageModel(parts.llm, parts.vision, parts.projector).to(device).eval()
    return Parts(model, tokenizer, chosen, ImageTransform(**parts.vision.preprocessing))
