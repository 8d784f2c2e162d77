"""Several trained adapters made one, by PEFT's `add_weighted_adapter` and in its words.

PEFT combines LoRA and IA3. What it would combine wrongly without a word is refused here.
"""

from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.models.stacking import kind_of

MERGED = "merged"
PLACE = "--combination"


@dataclass(frozen=True)
class Needs:
    """What a combination of PEFT takes besides the weights: `density`, and whether it decides signs by majority."""

    density: bool = False
    signs: bool = False
    rank: bool = False


COMBINATIONS: dict[str, Needs] = {
    "cat": Needs(),  # ranks add up; exactly the weighted sum of the updates
    "linear": Needs(),  # A and B are summed apart: same rank, mixed terms
    "svd": Needs(rank=True),  # the sum, cut to a rank
    "ties": Needs(density=True, signs=True),  # Yadav et al. 2023, arXiv:2306.01708
    "ties_svd": Needs(density=True, signs=True, rank=True),
    "dare_linear": Needs(density=True),  # Yu et al. 2023, arXiv:2311.03099
    "dare_ties": Needs(density=True, signs=True),
    "dare_linear_svd": Needs(density=True, rank=True),
    "dare_ties_svd": Needs(density=True, signs=True, rank=True),
    "magnitude_prune": Needs(density=True),
    "magnitude_prune_svd": Needs(density=True, rank=True),
}
"""PEFT's `combination_type` -> what it needs."""

PLAIN = {
    "use_dora": False,
    "lora_bias": False,
    "bias": "none",
    "modules_to_save": None,
    "trainable_token_indices": None,
}
"""What an adapter may hold besides its matrices, which PEFT leaves behind when it combines."""


@dataclass(frozen=True)
class Combination:
    """How adapters become one.

    Attributes:
        name: a key of `COMBINATIONS`; None takes `cat` for LoRA, `linear` for IA3.
        density: share of the values that are kept.
        svd_rank: of the result; None takes the largest rank there is.
        majority_sign_method: `total` or `frequency`; None is PEFT's own, `total`.

    Raises:
        ConfigError: the name is unknown, or a value is missing or has no effect.
    """

    name: str | None = None
    density: float | None = None
    svd_rank: int | None = None
    majority_sign_method: str | None = None

    def __post_init__(self) -> None:
        needs = Needs() if self.name is None else lookup(COMBINATIONS, self.name, PLACE)
        if needs.density and self.density is None:
            raise ConfigError("--density", f"{self.name} keeps a share of the values. Set it, such as --density 0.5.")
        given = {
            "density": (self.density, needs.density),
            "svd_rank": (self.svd_rank, needs.rank),
            "majority_sign_method": (self.majority_sign_method, needs.signs),
        }
        for key, (value, is_used) in given.items():
            if value is not None and not is_used:
                users = ", ".join(name for name, needs in COMBINATIONS.items() if _uses(needs, key))
                raise ConfigError(f"--{key.replace('_', '-')}", f"has an effect on {users} alone. Leave it out.")


def _uses(needs: Needs, key: str) -> bool:
    return {"density": needs.density, "svd_rank": needs.rank, "majority_sign_method": needs.signs}[key]


def combine_adapters(model: PeftModel, weights: dict[str, float], how: Combination) -> str:
    """Add an adapter `MERGED` made of others; return the combination that was taken.

    Args:
        model: with the adapters.
        weights: PEFT's name of each adapter -> its weight.
        how: see `Combination`.

    Raises:
        ConfigError: PEFT cannot combine these, or not that way.
    """
    names = list(weights)
    kind = kind_of(model.peft_config[names[0]])
    for name in names:
        _check_plain(model.peft_config[name].to_dict(), kind)
    chosen = how.name or ("cat" if kind == "lora" else "linear")
    tuner: Any = model.base_model
    try:
        if kind == "ia3":
            _check_linear(chosen)
            tuner.add_weighted_adapter(names, list(weights.values()), MERGED)
            _check_layers(model, names, IA3Layer, "ia3_l")
        else:
            _combine_loras(model, weights, chosen, how)
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"PEFT cannot combine these adapters by {chosen}: {str(error).splitlines()[0].rstrip('.')}."
        raise ConfigError(PLACE, f"{message} Take another combination.") from None
    return chosen


def _combine_loras(model: PeftModel, weights: dict[str, float], chosen: str, how: Combination) -> None:
    names, tuner = list(weights), model.base_model
    if len(names) == 1 and chosen not in ("cat", "linear"):  # PEFT would take linear without a word
        raise ConfigError(PLACE, f"{chosen} needs two adapters or more. Take linear for one.")
    most = min(min(layer.in_features, layer.out_features) for layer in _layers(model, LoraLayer))
    if how.svd_rank is not None and how.svd_rank > most:
        raise ConfigError("--svd-rank", f"{how.svd_rank} is more than a layer has ({most}). Take {most} or less.")
    first: Any = model.peft_config[names[0]]
    # The scalings of the layers are worked out already; the result, whose config is copied of this one, has scaling 1.
    first.use_rslora = False
    add: Any = tuner.add_weighted_adapter
    add(
        names, list(weights.values()), MERGED, combination_type=chosen, density=how.density, svd_rank=how.svd_rank,
        majority_sign_method=how.majority_sign_method or "total",
        svd_full_matrices=False,  # the vectors beyond the rank are thrown away: the result is the same
    )  # fmt: skip
    _check_layers(model, names, LoraLayer, "lora_A")
    rank = model.peft_config[MERGED].to_dict()["r"]
    found = {layer.lora_A[MERGED].weight.shape[0] for layer in _layers(model, LoraLayer) if MERGED in layer.lora_A}
    if found != {rank}:
        message = f"{chosen} gives layers of ranks {', '.join(map(str, sorted(found)))} where {rank} is meant."
        raise ConfigError(PLACE, f"{message} Take cat, or a smaller --svd-rank.")


def _layers(model: PeftModel, layer_class: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, layer_class)]


def _check_layers(model: PeftModel, names: list[str], layer_class: type, matrices: str) -> None:
    """Refuse results that lack a layer of an adapter; for IA3 also if one adapter lacks it, which PEFT counts as 0."""
    for layer in _layers(model, layer_class):
        held = getattr(layer, matrices)
        has = [name for name in names if name in held]
        if (has and MERGED not in held) or (has and matrices == "ia3_l" and len(has) < len(names)):
            message = "the adapters are on other layers, which PEFT cannot combine. Take adapters on the same layers."
            raise ConfigError(PLACE, message)


def _check_plain(config: dict[str, Any], kind: str) -> None:
    if kind not in ("lora", "ia3"):
        raise ConfigError(PLACE, f"PEFT combines lora and ia3 adapters alone (got {kind}). Stack them: model.stack_on.")
    for key, plain in PLAIN.items():
        value = config.get(key, plain)
        if value != plain:
            message = f"an adapter has {key}: {value}, which combining would lose. Take adapters without it."
            raise ConfigError(PLACE, message)


def _check_linear(chosen: str) -> None:
    if chosen != "linear":
        raise ConfigError(PLACE, f"PEFT combines ia3 adapters by linear alone (got {chosen}). Leave it out.")


def adapter_options(model: PeftModel, name: str) -> dict[str, Any]:
    """Return an adapter's config as `model.adapter` takes it: the kind, and what differs from PEFT's defaults."""
    config: Any = model.peft_config[name]
    values, usual = config.to_dict(), type(config)().to_dict()
    left_out = ("peft_type", "task_type", "base_model_name_or_path", "inference_mode", "auto_mapping", "peft_version")
    changed = {key: value for key, value in values.items() if key not in left_out and value != usual[key]}
    if kind_of(config) == "lora":
        changed |= {"r": values["r"], "lora_alpha": values["lora_alpha"]}
    plain = {key: sorted(value) if isinstance(value, set | list) else value for key, value in changed.items()}
    return {"kind": kind_of(config), **plain}
