"""Tiny models with random weights, in the layouts of the real ones: to test parts, configs and whole runs in seconds.

Part of the package, so that users can test parts of their own the same way.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmtune.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from mmtune.models.known_shapes import INTERNLM2_SHAPE

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the 256 bytes and `SPECIAL_TOKENS`."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )


def write_tiny_llm(folder: Path | str, seed: int = 0, **changes: Any) -> Path:
    """Write a Llama of 2 layers and width 32 with random weights and the byte tokenizer.

    Args:
        folder: made where it does not exist.
        seed: of the weights.
        changes: keys of `LlamaConfig` that differ.
    """
    folder = Path(folder)
    tokenizer = byte_tokenizer()
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**(settings | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_clip(folder: Path | str, seed: int = 0, **changes: Any) -> Path:
    """Write a CLIP tower of 3 blocks and width 16 with random weights: 32 pixels, 4 x 4 patches.

    Args:
        folder: made where it does not exist.
        seed: of the weights.
        changes: keys of `CLIPVisionConfig` that differ.
    """
    folder = Path(folder)
    settings = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPVisionModel(CLIPVisionConfig(**(settings | changes))).save_pretrained(folder)
    return folder


TINY_INTERNLM2_SHAPE = INTERNLM2_SHAPE | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
INTERNLM2_CONTROL_TOKENS = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
"""The last ids of the vocabulary, in their order."""


def write_internlm2(
    folder: Path | str, *, seed: int = 0, num_shards: int = 2, dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Write an InternLM2 with random weights in the hub's layout: shards with an index, SentencePiece tokenizer.

    Tiny unless `changes` say otherwise; `**INTERNLM2_SHAPE` makes one of the size of InternLM2-chat-1.8B. At most one
    shard is held in memory.

    Args:
        folder: made where it does not exist.
        seed: of the weights.
        num_shards: weight files.
        dtype: of the weights.
        changes: keys of `config.json` that differ from `TINY_INTERNLM2_SHAPE`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shape: dict[str, Any] = TINY_INTERNLM2_SHAPE | changes
    shapes = list(_internlm2_weights(shape))
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        name = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        names = shapes[shard * len(shapes) // num_shards : (shard + 1) * len(shapes) // num_shards]
        save_file({key: _random_weight(size, generator, dtype) for key, size in names}, folder / name, {"format": "pt"})
        weight_map |= {key: name for key, _ in names}
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    code = "modeling_internlm2.InternLM2ForCausalLM"
    auto_map = {"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModelForCausalLM": code}
    facts = {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "auto_map": auto_map}
    _write_json(folder / "config.json", facts | shape | {"torch_dtype": str(dtype).removeprefix("torch.")})
    write_internlm2_tokenizer(folder, shape["vocab_size"])
    return folder


def _internlm2_weights(shape: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and size of each weight, in the order of the layers."""
    vocab, width, inner = shape["vocab_size"], shape["hidden_size"], shape["intermediate_size"]
    head = width // shape["num_attention_heads"]
    fused = (shape["num_attention_heads"] + 2 * shape["num_key_value_heads"]) * head
    yield "model.tok_embeddings.weight", (vocab, width)
    for layer in range(shape["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        yield f"{name}.attention.wqkv.weight", (fused, width)
        yield f"{name}.attention.wo.weight", (width, width)
        yield f"{name}.feed_forward.w1.weight", (inner, width)
        yield f"{name}.feed_forward.w3.weight", (inner, width)
        yield f"{name}.feed_forward.w2.weight", (width, inner)
        yield f"{name}.attention_norm.weight", (width,)
        yield f"{name}.ffn_norm.weight", (width,)
    yield "model.norm.weight", (width,)
    yield "output.weight", (vocab, width)


def _random_weight(size: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    weight = torch.randn(size, generator=generator)
    return (1 + 0.1 * weight if len(size) == 1 else weight / size[-1] ** 0.5).to(dtype)


def write_internlm2_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write `tokenizer.model` and `tokenizer_config.json` as InternLM2 has them, with few pieces that mean something.

    The vocabulary: `<unk> <s> </s>`, the 256 bytes, letters and frequent words, unused pieces, six control tokens.
    """
    from sentencepiece import sentencepiece_model_pb2

    spm: Any = sentencepiece_model_pb2

    model = spm.ModelProto()
    model.trainer_spec.model_type = spm.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    kinds = spm.ModelProto.SentencePiece
    pieces = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    pieces += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    letters = "\u2581etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,?!"
    words = [
        "th",
        "he",
        "in",
        "is",
        "the",
        "\u2581th",
        "\u2581the",
        "\u2581is",
        "What",
        "\u2581a",
        "at",
        "cat",
        "\u2581cat",
    ]
    pieces += [(text, kinds.NORMAL) for text in (*words, *letters)]
    pieces += [(f"[UNUSED_TOKEN_{number}]", kinds.USER_DEFINED) for number in range(vocab_size - len(pieces))]
    for rank, (text, kind) in enumerate(pieces):
        model.pieces.add(piece=text, score=-float(rank), type=kind)
    model.trainer_spec.vocab_size = len(pieces)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    first = vocab_size - len(INTERNLM2_CONTROL_TOKENS)
    added = {0: "<unk>", 1: "<s>", 2: "</s>"} | dict(enumerate(INTERNLM2_CONTROL_TOKENS, first))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    values = {
        "added_tokens_decoder": {str(number): {"content": text} | flags for number, text in added.items()},
        "additional_special_tokens": list(reversed(INTERNLM2_CONTROL_TOKENS)),
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "InternLM2Tokenizer",
    }
    _write_json(folder / "tokenizer_config.json", values)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
