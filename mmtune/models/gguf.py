"""Turn a GGUF language model into a plain transformers folder, once, in the cache."""

import importlib.util
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from mmtune.cache import cache_folder
from mmtune.errors import ModelError
from mmtune.hashing import file_hash

log = logging.getLogger(__name__)


def converted_gguf(path: Path) -> Path:
    """Return the folder of fp32 safetensors that holds the same model as a GGUF file.

    Reading a GGUF takes 20 s and more, so it is done once; the folder is named by the file's content.

    Raises:
        ModelError: the `gguf` package is missing, or transformers cannot read the file.
    """
    folder = cache_folder() / f"{path.stem}-{file_hash(path)[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(str(path), "reading a GGUF needs the gguf package. Run: pip install 'mmtune[gguf]'")
    log.info("converting %s to %s, once", path.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _convert(path, beside)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process was first
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _convert(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        llm = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(str(path), f"transformers cannot read this GGUF: {str(error).splitlines()[0][:200]}") from None
    _restore_digit_splitting(tokenizer)
    tokenizer.save_pretrained(folder)
    llm.save_pretrained(folder)


def _restore_digit_splitting(tokenizer: Any) -> None:
    """Split numbers into digits again, as SmolLM2 was trained; a GGUF names that rule but readers drop it."""
    from tokenizers import pre_tokenizers

    if not _splits_digits(tokenizer):
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )


def _splits_digits(tokenizer: Any) -> bool:
    """Whether the vocabulary was learned with digits apart: then no token holds two of them."""
    is_byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.pre_tokenizer)
    return is_byte_level and not any(token.isdigit() and len(token) > 1 for token in tokenizer.get_vocab())
