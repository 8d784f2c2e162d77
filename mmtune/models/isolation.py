"""Whether a language model keeps packed samples apart: asked of the model itself, before training."""

import torch

from mmtune.errors import ModelError
from mmtune.models.vlm import VisionLanguageModel

SAMPLE_TOKENS = 8
MAX_RELATIVE_CHANGE = 1e-3


@torch.no_grad()
def require_isolation(model: VisionLanguageModel) -> None:
    """Hold that of two samples in one row the second does not depend on the first.

    Attention is kept within samples by `position_ids` that start again at 0; a model that does not read them so would
    train on leaks without a word. The row is run twice with another first sample; what the second becomes must not
    change. Costs two forward passes of 16 tokens, and draws no random number.

    Raises:
        ModelError: the second sample changes.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(3, 3 + 2 * SAMPLE_TOKENS, device=model.device)[None]
    other = ids.clone()
    other[:, :SAMPLE_TOKENS] += 1
    positions = torch.arange(SAMPLE_TOKENS, device=model.device).repeat(2)[None]
    first, second = (model.hidden_states(model.embed(row), positions)[:, SAMPLE_TOKENS:] for row in (ids, other))
    model.train(was_training)
    change = float((first - second).norm() / first.norm())
    if not change <= MAX_RELATIVE_CHANGE:
        name = type(model.base_llm).__name__
        message = f"{name} lets packed samples see each other (relative change {change:.1e}). Set it to false."
        raise ModelError("data.pack_to_max_length", message)
