"""What to change in a run that does not fit: each change is planned anew, and what it saves is said."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmtune.errors import MMTuneError
from mmtune.schema import Config
from mmtune.schema_train import batch_size_of
from mmtune.sizes import gib
from mmtune.training.plan import Plan
from mmtune.training.plan_model import PlannedModel, Rows, plan_for, planned_model
from mmtune.training.start_table import short_number

SMALL_RANK = 64
SHORTEST = 1024


@dataclass(frozen=True)
class Change:
    """A change of a config that takes less memory.

    Attributes:
        words: as typed behind `mmtune`, such as `train.gradient_checkpointing=true`.
        price: what it costs.
        apply: makes it in a config.
        is_of_model: the model is another one with it, so that it is built anew.
    """

    words: str
    price: str
    apply: Callable[[Config], None]
    is_of_model: bool = False


@dataclass(frozen=True)
class Advice:
    """A change and what comes of it.

    Attributes:
        change: itself.
        saved: bytes less at the peak.
        total: bytes that are needed with this and all changes before it.
    """

    change: Change
    saved: int
    total: int


def advise(config: Config, plan: Plan, planned: PlannedModel, rows: Rows | None) -> list[Advice]:
    """Return changes in the order of their price, each with all before it, until the run fits or none is left.

    Args:
        config: of the run; it is left as it is.
        plan: of it.
        planned: its model.
        rows: its data, or None.
    """
    config, found, total = copy.deepcopy(config), [], plan.total
    for change in _changes(config):
        tried = copy.deepcopy(config)
        change.apply(tried)
        try:
            model = planned_model(tried, plan.target.kind) if change.is_of_model else planned
            now = plan_for(tried, model, plan.target, rows if tried.data == config.data else None)
        except MMTuneError:
            continue  # such as bitsandbytes is not installed
        if now.total >= total:
            continue
        found.append(Advice(change, total - now.total, now.total))
        config, planned, total = tried, model, now.total
        if now.fits:
            break
    return found


def floor_reason(plan: Plan) -> str | None:
    """Say that no batch and no checkpointing makes a run fit, where weights, gradients and states alone do not."""
    memory: int | None = plan.target.memory
    if memory is None or plan.always <= memory:
        return None
    trained = sum(part.size.num_trained for part in plan.parts)
    context = "Python" if plan.target.kind == "cpu" else "CUDA"
    return (
        f"weights, gradients, optimizer states and {context} alone take {gib(plan.always)} with"
        f" {short_number(trained)} trained parameters: no batch size and no checkpointing makes it fit"
    )


def _changes(config: Config) -> Iterator[Change]:
    """Yield the changes that a config leaves room for; those first that change the result least."""
    train, data, model = config.train, config.data, config.model
    if train.gradient_checkpointing is not True:
        yield Change(
            "train.gradient_checkpointing=true",
            "a third more time",
            _setter("train", gradient_checkpointing=True, gradient_checkpointing_fraction=1.0),
        )
    if not data.padding_free:
        yield Change("data.padding_free=true", "the same result", _setter("data", padding_free=True))
    size, steps = batch_size_of(config), train.gradient_accumulation_steps
    if data.max_tokens_per_batch is None and size > 1:
        values: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": size * steps}
        words = " ".join(f"train.{key}={value}" for key, value in values.items())
        yield Change(words, "the same result, less speed", _setter("train", **values))
    if "8bit" not in train.optim and "adafactor" not in train.optim:
        yield Change("train.optim=paged_adamw_8bit", "states in 8 bit", _setter("train", optim="paged_adamw_8bit"))
    if model.llm.quantization is None and model.llm.tune in ("frozen", "adapter"):
        yield Change("model.llm.quantization=nf4", "weights in 4 bit", _quantize, True)
    if model.vision is not None and model.vision.tune != "frozen":
        yield Change("model.vision.tune=frozen model.vision.adapter=null", "the encoder learns nothing", _freeze, True)
    adapter = model.adapter or {}
    if isinstance(adapter.get("r"), int) and adapter["r"] > SMALL_RANK:
        yield Change(f"model.adapter.r={SMALL_RANK}", "a smaller adapter", _lower_rank, True)
    if "lm_head" in (adapter.get("target_modules") or []):
        yield Change("model.adapter.target_modules=all-linear", "no adapter on the head", _leave_head, True)
    if data.max_length > SHORTEST:
        yield Change(f"data.max_length={SHORTEST}", "longer samples are cut", _setter("data", max_length=SHORTEST))


def _setter(section: str, **values: Any) -> Callable[[Config], None]:
    def apply(config: Config) -> None:
        for key, value in values.items():
            setattr(vars(config)[section], key, value)

    return apply


def _quantize(config: Config) -> None:
    config.model.llm.quantization = "nf4"


def _freeze(config: Config) -> None:
    assert config.model.vision is not None
    config.model.vision.tune, config.model.vision.adapter = "frozen", None


def _lower_rank(config: Config) -> None:
    assert config.model.adapter is not None
    config.model.adapter = config.model.adapter | {"r": SMALL_RANK}


def _leave_head(config: Config) -> None:
    assert config.model.adapter is not None
    config.model.adapter = config.model.adapter | {"target_modules": "all-linear"}
