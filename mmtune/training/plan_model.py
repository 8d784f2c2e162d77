"""What a plan is made of before a run: the model without weights, and the longest batch that there may be."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmtune.build_data import Reader, build_dataset, build_reader, packed, require_good
from mmtune.build_trained import build_outline
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.mixing import path_and_limit
from mmtune.errors import ModelError
from mmtune.models.precision import choose_dtype, keep_trained_weights_in
from mmtune.models.vlm import VisionLanguageModel
from mmtune.progress import Bars
from mmtune.schema import Config
from mmtune.schema_stream import is_streamed
from mmtune.schema_train import batch_size_of
from mmtune.training.checkpointing import LargestBatch, largest_batch
from mmtune.training.held_out import share_held_out
from mmtune.training.model import quicken
from mmtune.training.plan import Plan, Target, make_plan
from mmtune.training.rows import choose_attention

Rows = SampleDataset | PackedDataset


@dataclass(frozen=True)
class PlannedModel:
    """A model without weights, ready to be planned with.

    Attributes:
        model: on the meta device.
        is_joined: the samples of a batch form one row, without padding.
        sources: where the shapes are from.
    """

    model: VisionLanguageModel
    is_joined: bool
    sources: tuple[str, ...]


def planned_model(config: Config, kind: str) -> PlannedModel:
    """Build the model of a run on the meta device, with all that a run changes in it before its first step.

    Args:
        config: of the run.
        kind: `cuda` or `cpu`.

    Raises:
        MMTuneError: the shape of a part is not to be found, or a value does not fit it.
    """
    outline = build_outline(config.model, planned_dtype(config.model.llm.dtype, kind))
    return as_trained(config, outline.model, outline.sources)


def as_trained(config: Config, model: VisionLanguageModel, sources: tuple[str, ...]) -> PlannedModel:
    """Let a built model be as a run trains it: its attention, its fused layers, the dtype of what trains.

    Liger's kernels are not there: recomputed activations stand for them, and they keep no more than these.
    """
    is_joined = choose_attention(config, model) is None and config.data.padding_free
    if config.train.use_liger_kernel:
        config = replace(config, train=replace(config.train, use_liger_kernel=False, recompute_activations=True))
    quicken(config, model)
    keep_trained_weights_in(model, torch.bfloat16 if config.train.pure_bf16 else torch.float32)
    return PlannedModel(model, is_joined, sources)


def planned_dtype(name: str, kind: str) -> torch.dtype:
    """Return the dtype of a run on a device of a kind; for `auto` on a GPU that is not here, bfloat16."""
    if kind == "cuda" and name == "auto" and not torch.cuda.is_available():
        return torch.bfloat16
    return choose_dtype(name, torch.device(kind))


def data_is_here(config: Config) -> bool:
    """Whether all sources are files or folders on this machine that can be prepared as a whole."""
    paths = [path_and_limit(source.path)[0] for source in config.data.train]
    return not is_streamed(config.data) and all(Path(path).expanduser().exists() for path in paths)


def planned_rows(config: Config, reader: Reader | None = None) -> Rows | None:
    """Prepare the data of a config and return its rows, or None where its tokenizer is not here.

    Args:
        config: of the run.
        reader: of its model, where there is one already.

    Raises:
        DataError: a source cannot be read, or records are bad and `data.on_bad_record` is `error`.
    """
    try:
        reader = reader or build_reader(config.model)
    except ModelError:
        return None
    config = replace(config, data=replace(config.data, check_images="none"))
    with Bars() as bars:
        samples, report = build_dataset(config, reader, bars)
    require_good(config.data, samples, report, "`mmtune data check`")
    if config.data.validation_fraction is not None:
        samples = share_held_out(config, samples)[0]
    return packed(config, samples)


def assumed_batch(config: Config, model: VisionLanguageModel) -> LargestBatch:
    """Return the largest batch that a config allows: full rows of `data.max_length`, an image in each.

    A pack holds as many images as have room in it.
    """
    data = config.data
    size = batch_size_of(config)
    rows = size if data.max_tokens_per_batch is None else max(data.max_tokens_per_batch // data.max_length, 1)
    num_tokens = model.vision.num_tokens if model.vision is not None else 0
    images = (data.max_length - 1) // num_tokens if num_tokens else 0
    return LargestBatch((data.max_length,) * rows, rows * (images if data.pack_to_max_length else min(images, 1)))


def planned_batch(config: Config, model: VisionLanguageModel, rows: Rows | None) -> LargestBatch:
    """Return the longest batch of the data, or of any data where it is not here."""
    return assumed_batch(config, model) if rows is None else largest_batch(config, rows)


def plan_for(config: Config, planned: PlannedModel, target: Target, rows: Rows | None) -> Plan:
    """Plan a run with as few blocks computed again as `train.gradient_checkpointing` asks for.

    `auto` without a known memory computes all of them again.
    """
    num_blocks, batch = len(planned.model.blocks), planned_batch(config, planned.model, rows)

    def plan(number: int) -> Plan:
        return make_plan(config, planned.model, batch, target, is_joined=planned.is_joined, num_checkpointed=number)

    wanted = config.train.gradient_checkpointing
    if wanted != "auto":
        share = config.train.gradient_checkpointing_fraction if wanted else 0.0
        return plan(round(share * num_blocks))
    if target.memory is None:
        return plan(num_blocks)
    lowest, highest, found = 0, num_blocks, plan(num_blocks)
    while lowest < highest:
        middle = (lowest + highest) // 2
        tried = plan(middle)
        if tried.fits:
            highest, found = middle, tried
        else:
            lowest = middle + 1
    return found
