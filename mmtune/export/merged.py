"""`merged`: the language model with its adapter merged, in Llama's layout for transformers or in InternLM2's own."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict

from mmtune.build import Parts
from mmtune.conversation import Conversation
from mmtune.data.encode import encode
from mmtune.errors import ConfigError
from mmtune.export.chat_format import generation_config, plain_tokenizer
from mmtune.export.parity import Parity, Probe, compare_text
from mmtune.export.source import Source, merged_llm
from mmtune.models.internlm2 import MODEL_TYPE, num_heads, to_internlm2
from mmtune.models.json_files import read_json
from mmtune.models.language import load_llm, load_tokenizer
from mmtune.run_folder import write_json

MAX_SHARD_SIZE = "2GB"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".index.json", ".gguf")


def check(source: Source) -> None:
    """Refuse InternLM2's layout for other models.

    Raises:
        ConfigError: the base model is no InternLM2.
    """
    model_type = read_json(source.llm_folder / "config.json").get("model_type")
    if source.layout == "internlm2" and model_type != MODEL_TYPE:
        message = f"internlm2 needs an InternLM2 base (model_type '{model_type}' in {source.llm_folder})."
        raise ConfigError("--layout", f"{message} Take --layout llama.")


def write(source: Source, folder: Path) -> None:
    """Write the language model, its tokenizer with the chat template, and where answers stop."""
    llm = merged_llm(source.parts, source.dtype)
    if source.layout == "internlm2":
        _write_internlm2(llm, source.llm_folder, folder)
    else:
        write_llama(llm, source.parts, folder)


def write_llama(llm: Any, parts: Parts, folder: Path) -> None:
    """Write a language model as transformers does, with the tokenizer and the stop tokens of a run."""
    llm.generation_config = generation_config(parts)
    llm.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    plain_tokenizer(parts).save_pretrained(folder)


def _write_internlm2(llm: Any, base: Path, folder: Path) -> None:
    """Write weights under InternLM2's names, beside all other files of the base folder."""
    for path in sorted(base.iterdir()):
        if path.is_file() and not path.name.endswith(WEIGHT_SUFFIXES):
            shutil.copyfile(path, folder / path.name)
    dtype = str(llm.dtype).removeprefix("torch.")
    write_json(folder / "config.json", read_json(base / "config.json") | {"torch_dtype": dtype})
    weights = dict(to_internlm2(llm.state_dict(), *num_heads(llm.config)))
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    save_torch_state_dict(contiguous, folder, max_shard_size=MAX_SHARD_SIZE)


def read_back(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    """Ask the export: with transformers alone, or InternLM2's layout with mmtune."""
    if source.layout == "internlm2":
        return _read_internlm2(source, folder, probes)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    llm: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=source.dtype)
    reader = f"transformers {transformers.__version__}"
    return compare_text(folder, probes, llm, lambda probe: chat_ids(tokenizer, probe.question), reader, source.dtype)


def chat_ids(tokenizer: Any, question: str) -> list[int]:
    """Return what a tokenizer of transformers makes of a question by its own chat template."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False)
    return tokenizer(text)["input_ids"]


def _read_internlm2(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    tokenizer = load_tokenizer(str(folder))
    llm = load_llm(str(folder), dtype=source.dtype, device=torch.device("cpu"))
    reader = "mmtune (transformers 5 cannot run InternLM2's own code)"

    def read_ids(probe: Probe) -> list[int]:
        prompt = Conversation((probe.message,))
        template = source.parts.template
        return encode(prompt, template, tokenizer, num_image_tokens=0, add_generation_prompt=True).input_ids

    return compare_text(folder, probes, llm, read_ids, reader, source.dtype)
