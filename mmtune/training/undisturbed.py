"""Use the model in the middle of a training as if it had not been used: no trace in its modes or random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from mmtune.models.device import random_state_kept
from mmtune.models.precision import compute_dtype, computing_in
from mmtune.models.vlm import VisionLanguageModel


@contextmanager
def outside_of_root(model: VisionLanguageModel) -> Iterator[None]:
    """Let parts of a model be run by themselves where FSDP has split it: some weights only the whole model fetches."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


@contextmanager
def undisturbed(model: VisionLanguageModel) -> Iterator[None]:
    """Put a model that trains into eval mode, without gradients and in the dtype it computes in; put all back after.

    The states of Python's, NumPy's and torch's random generators are those of before, so that dropout and whatever else
    draws goes on as if nothing had happened.
    """
    modes = [(module, module.training) for module in model.modules()]
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with (
            random_state_kept(model.device),
            torch.no_grad(),
            computing_in(compute_dtype(model.base_llm), model.device),
        ):
            model.eval()
            with outside_of_root(model):
                yield
    finally:
        for module, is_training in modes:
            module.training = is_training
        random.setstate(python)
        np.random.set_state(numpy_state)
