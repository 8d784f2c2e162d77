"""Whether a language model keeps the samples of a row apart: asked of the model itself, before training."""

import torch

from mmtune.errors import ModelError
from mmtune.models.vlm import VisionLanguageModel

SAMPLE_TOKENS = 8
MAX_RELATIVE_CHANGE = 1e-3
MAX_RELATIVE_DIFFERENCE = 5e-2
"""Between a sample in a row and the same sample alone: other kernels, so in bfloat16 more than a change by a leak."""


@torch.no_grad()
def leak_between_samples(model: VisionLanguageModel) -> str | None:
    """Say how a model lets samples of one row see each other; None where it keeps them apart.

    Attention is kept within samples by `position_ids` that start again at 0 and by `sample_lengths`; a model that does
    not read them so would train on leaks without a word. A row of two samples is run twice with another first one:
    what the second becomes must not change, and must be what it is alone. Costs three forward passes of at most 16
    tokens, and draws no random number.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(3, 3 + 2 * SAMPLE_TOKENS, device=model.device)[None]
    other = ids.clone()
    other[:, :SAMPLE_TOKENS] += 1
    positions = torch.arange(SAMPLE_TOKENS, device=model.device).repeat(2)[None]
    lengths = (SAMPLE_TOKENS, SAMPLE_TOKENS)
    first, second = (
        model.hidden_states(model.embed(row), positions, lengths)[:, SAMPLE_TOKENS:].float() for row in (ids, other)
    )
    alone = model.hidden_states(model.embed(ids[:, SAMPLE_TOKENS:])).float()
    model.train(was_training)
    change, difference = (float((first - hidden).norm() / first.norm()) for hidden in (second, alone))
    if change <= MAX_RELATIVE_CHANGE and difference <= MAX_RELATIVE_DIFFERENCE:
        return None
    name = type(model.base_llm).__name__
    return f"{name} lets packed samples see each other (relative change {max(change, difference):.1e})"


def require_isolation(model: VisionLanguageModel) -> None:
    """Hold that packed samples are kept apart.

    Raises:
        ModelError: they are not; see `leak_between_samples`.
    """
    leak = leak_between_samples(model)
    if leak is not None:
        raise ModelError("data.pack_to_max_length", f"{leak}. Set it to false.")
