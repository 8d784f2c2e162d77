"""The table that a run shows before its first step: what each part is, what of it trains, and how."""

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from torch import nn

from mmtune.models.quantized import weight_sizes
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config
from mmtune.sizes import in_gib

WIDTH = 80
COLUMNS: tuple[tuple[str, JustifyMethod], ...] = (
    ("part", "left"),
    ("parameters", "right"),
    ("trained", "right"),
    ("method", "left"),
    ("dtype", "left"),
    ("rate", "right"),
    ("GiB", "right"),
)
PARTS = ("vision", "projector", "llm")
SHORT_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
UNITS = (("B", 1e9), ("M", 1e6), ("k", 1e3))


@dataclass(frozen=True)
class PartSize:
    """How large a part is.

    Attributes:
        num_weights: numbers that its parameters stand for; of 4-bit weights twice the entries of their tensors.
        num_trained: of them.
        num_bytes: that the parameters take, constants of a quantization included.
        dtypes: what most of the frozen weights and most of the trained ones are kept in, as `bf16, fp32`.
    """

    num_weights: int
    num_trained: int
    num_bytes: int
    dtypes: str


def part_size(part: nn.Module, quantization: str | None = None) -> PartSize:
    """Add up the parameters of a part, tied ones once.

    Args:
        part: of the model.
        quantization: of its frozen weights, such as `nf4`.
    """
    seen: set[int] = set()
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    num_bytes = 0
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            number, size = weight_sizes(module, name, parameter)
            is_packed = parameter.dtype in (torch.uint8, torch.int8)
            dtype = str(quantization) if is_packed else SHORT_DTYPES.get(parameter.dtype, str(parameter.dtype))
            counts[parameter.requires_grad][dtype] += number
            num_bytes += size
    main = [kind.most_common(1)[0][0] for kind in counts.values() if kind]
    trained = sum(counts[True].values())
    return PartSize(sum(counts[False].values()) + trained, trained, num_bytes, ", ".join(dict.fromkeys(main)))


def start_table(config: Config, model: VisionLanguageModel) -> str:
    """Return the table of a run as text of at most 80 columns.

    Args:
        config: of the run.
        model: as it trains; weights are counted as they lie in memory.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title, side in COLUMNS:
        table.add_column(title, justify=side)
    sizes = []
    for name in PARTS:
        part, settings = getattr(model, name), vars(config.model)[name]
        if part is None:
            continue
        quantization = config.model.llm.quantization if name == "llm" else None
        size = part_size(part, quantization)
        sizes.append(size)
        rate = config.train.learning_rate if settings.learning_rate is None else settings.learning_rate
        method = _method(name, settings.tune, config) if size.num_trained else "frozen"
        table.add_row(
            name,
            *_counts(size),
            method,
            size.dtypes,
            f"{rate:g}" if size.num_trained else "",
            in_gib(size.num_bytes),
        )
    whole = PartSize(
        sum(size.num_weights for size in sizes),
        sum(size.num_trained for size in sizes),
        sum(size.num_bytes for size in sizes),
        "",
    )
    table.add_row("all", *_counts(whole), "", "", "", in_gib(whole.num_bytes))
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _method(name: str, tune: Any, config: Config) -> str:
    """Say how a part trains: by an adapter of which kind and rank, in full, or which of its layers."""
    if isinstance(tune, dict):
        return f"top {tune['top_layers']} layers" + (", one by one" if len(tune) > 1 else "")
    if isinstance(tune, list):
        return ", ".join(tune)
    if tune != "adapter":
        return tune
    vision = config.model.vision
    adapter = (vision.adapter if name == "vision" and vision is not None else config.model.adapter) or {}
    kind, rank = adapter.get("kind", "lora"), adapter.get("r")
    return f"{kind} r={rank}" if rank else kind


def _counts(size: PartSize) -> tuple[str, str]:
    return short_number(size.num_weights), short_number(size.num_trained) if size.num_trained else ""


def short_number(number: int) -> str:
    """Return a number with three digits and a unit, such as `1.89 B` and `27.4 k`."""
    for unit, scale in UNITS:
        if number >= 0.9995 * scale:
            return f"{number / scale:.{2 - len(str(int(number / scale))) + 1}f} {unit}"
    return str(number)
