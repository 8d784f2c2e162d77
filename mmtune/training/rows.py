"""How the samples of a batch become the rows of a tensor: joined without padding where the model allows it."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from mmtune.data.collate import collate, collate_joined
from mmtune.errors import ModelError
from mmtune.models.attention import is_blockwise, use_blockwise_attention
from mmtune.models.isolation import leak_between_samples, require_isolation
from mmtune.models.prompts import has_prefix, has_prompts
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config

log = logging.getLogger(__name__)
Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]


def choose_collator(config: Config, model: VisionLanguageModel) -> Collator:
    """Return what makes a batch of samples or packs; chooses the attention of the model with it.

    With `data.padding_free` all samples of a batch form one row, which costs no padding and no square mask: attention
    runs sample by sample. A model that cannot do so trains on padded rows, which is said.

    Raises:
        ModelError: packs are asked for, and the model lets packed samples see each other.
    """
    reason = choose_attention(config, model)
    if config.data.pack_to_max_length:
        require_isolation(model)
    if config.data.padding_free:
        if not config.data.pack_to_max_length:  # a model that trains on packs has been asked already
            reason = reason or leak_between_samples(model)
        if reason is None:
            return collate_joined
        log.info("batches are padded: %s", reason)
    if config.data.pack_to_max_length and has_prompts(model.llm):
        message = "padded packs have no place for the virtual tokens of each sample. Set it to false."
        raise ModelError("data.pack_to_max_length", message)
    return partial(collate, pad_token_id=model.config.pad_token_id or 0)


def choose_attention(config: Config, model: VisionLanguageModel) -> str | None:
    """Give a model the attention of its run; return why its layers take no row of several samples, None where they do.

    Weights are not asked, so that a model without any can be planned with.
    """
    if config.model.llm.attn_implementation == "auto" and config.data.padding_free:
        use_blockwise_attention(model.base_llm)
    if has_prefix(model.llm):
        return "prefix tuning puts keys and values in front of a row, which must be one sample"
    if not is_blockwise(model.base_llm):
        implementation = model.config._attn_implementation
        return f"{type(model.base_llm).__name__} with attention '{implementation}' takes no row of several samples"
    return None
