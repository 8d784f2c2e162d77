"""The examples of docs/library.md on a CUDA device."""

import pytest
import torch
from test_library import photo, test_the_examples_of_the_page_run_in_their_order
from training_workspace import models, workspace

__all__ = ["models", "photo", "test_the_examples_of_the_page_run_in_their_order", "workspace"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
