"""The names of tuning methods: what each is in PEFT's words, and which of them this package makes itself.

A method is chosen by `adapter.kind`. Most names are PEFT's own; some are options of another method there, and are
named here as the literature names them.
"""

from dataclasses import dataclass, field
from typing import Any

ALL_LINEAR = {"target_modules": "all-linear"}


@dataclass(frozen=True)
class Method:
    """A method by its name in the literature.

    Attributes:
        kind: PEFT's name, or one of `OWN_KINDS`.
        implied: keys that make PEFT's kind this method.
        defaults: keys that may be set otherwise.
        source: where it is described.
    """

    kind: str
    source: str
    implied: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)


_PROMPT = {"num_virtual_tokens": 20}

METHODS: dict[str, Method] = {
    "lora": Method("lora", "Hu et al. 2021, arXiv:2106.09685", {}, ALL_LINEAR),
    "qlora": Method("lora", "Dettmers et al. 2023, arXiv:2305.14314", {}, ALL_LINEAR),  # over quantized weights
    "dora": Method("lora", "Liu et al. 2024, arXiv:2402.09353", {"use_dora": True}, ALL_LINEAR),
    "rslora": Method("lora", "Kalajdzievski 2023, arXiv:2312.03732", {"use_rslora": True}, ALL_LINEAR),
    "pissa": Method("lora", "Meng et al. 2024, arXiv:2404.02948", {}, {"init_lora_weights": "pissa", **ALL_LINEAR}),
    "olora": Method("lora", "Büyükakyüz 2024, arXiv:2406.01775", {"init_lora_weights": "olora"}, ALL_LINEAR),
    "loraplus": Method("lora", "Hayou et al. 2024, arXiv:2402.12354", {}, {"loraplus_lr_ratio": 16.0, **ALL_LINEAR}),
    "adalora": Method("adalora", "Zhang et al. 2023, arXiv:2303.10512", {}, ALL_LINEAR),
    "ia3": Method("ia3", "Liu et al. 2022, arXiv:2205.05638"),
    "vera": Method("vera", "Kopiczko et al. 2024, arXiv:2310.11454", {}, ALL_LINEAR),
    "oft": Method("oft", "Qiu et al. 2023, arXiv:2306.07280", {}, ALL_LINEAR),
    "boft": Method("boft", "Liu et al. 2024, arXiv:2311.06243", {}, ALL_LINEAR),
    "loha": Method("loha", "Hyeon-Woo et al. 2022, arXiv:2108.06098", {}, ALL_LINEAR),
    "lokr": Method("lokr", "Yeh et al. 2024, arXiv:2309.14859", {}, ALL_LINEAR),
    "miss": Method("miss", "Kang & Yin 2024, arXiv:2409.15371", {}, ALL_LINEAR),
    "ln_tuning": Method("ln_tuning", "Zhao et al. 2023, arXiv:2312.11420"),
    "prompt_tuning": Method(
        "prompt_tuning", "Lester et al. 2021, arXiv:2104.08691", {}, {"prompt_tuning_init": "SAMPLE_VOCAB", **_PROMPT}
    ),
    "p_tuning": Method("p_tuning", "Liu et al. 2021, arXiv:2103.10385", {}, {"encoder_hidden_size": 128, **_PROMPT}),
    "prefix_tuning": Method("prefix_tuning", "Li & Liang 2021, arXiv:2101.00190", {}, _PROMPT),
    "p_tuning_v2": Method("prefix_tuning", "Liu et al. 2021, arXiv:2110.07602", {"prefix_projection": False}, _PROMPT),
    "bitfit": Method("bitfit", "Ben Zaken et al. 2021, arXiv:2106.10199"),
    "houlsby": Method("houlsby", "Houlsby et al. 2019, arXiv:1902.00751"),
}
"""Tested here with images, in training, answers, files and resume. Other names of PEFT's go to it as they are."""

OWN_KINDS = ("bitfit", "houlsby")
"""Kinds that PEFT does not have."""

REFUSED_KINDS = {
    "adaption_prompt": "its zero-init attention replaces layers that read the image",
    "cartridge": "it is a prefix made from a text, not trained on pictures",
    "cpt": "its context is text of its own",
    "multitask_prompt_tuning": "it needs task ids, which image data has not",
    "poly": "it needs task ids, which image data has not",
    "xlora": "it mixes adapters by an extra pass that drops the image",
    "shadow": "its network runs in PEFT's own forward pass, past the image",
    "trainable_tokens": "it trains rows of the embedding, and pictures have none",
}
"""Kinds of PEFT that cannot work here, and why."""

OPTIMIZER_KEYS = ("loraplus_lr_ratio",)
"""Keys of `adapter` that the optimizer reads, not PEFT."""


def kind_of(adapter: dict[str, Any] | None) -> str | None:
    """Return PEFT's name of an adapter's kind, or the own kind's; None without an adapter."""
    if adapter is None:
        return None
    name = adapter.get("kind", "lora")
    return METHODS[name].kind if name in METHODS else name


def loraplus_lr_ratio(adapter: dict[str, Any] | None) -> float:
    """Return how many times as fast LoRA's B matrices learn as its A matrices: LoRA+'s ratio, else 1."""
    if adapter is None:
        return 1.0
    name = adapter.get("kind", "lora")
    defaults = METHODS[name].defaults if name in METHODS else {}
    return float(adapter.get("loraplus_lr_ratio", defaults.get("loraplus_lr_ratio", 1.0)))
