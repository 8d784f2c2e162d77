"""Held-out losses and hits equal those of the full logits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmtune.conversation import IGNORE_INDEX
from mmtune.models.loss import answer_loss
from mmtune.models.scoring import score_states


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_scores_equal_the_full_logits(chunk_size):
    torch.manual_seed(0)
    head, hidden = nn.Linear(16, 11, bias=False), torch.randn(3, 20, 16)
    labels = torch.randint(0, 11, (3, 20)).masked_fill(torch.rand(3, 20) < 0.5, IGNORE_INDEX)
    losses, is_right = score_states(hidden, labels, head, chunk_size)
    logits, targets = head(hidden)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    kept = targets != IGNORE_INDEX
    torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none")[kept])
    assert torch.equal(is_right, (logits.argmax(-1) == targets)[kept])
    assert 0 < is_right.sum() < len(is_right)
    torch.testing.assert_close(losses.mean(), answer_loss(hidden, labels, head))
