"""Which device a process gets."""

import pytest
import torch

from mmtune.errors import ConfigError
from mmtune.models.device import choose_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_each_process_of_a_machine_has_its_own_gpu(two_gpus, monkeypatch):
    assert choose_device() == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    told = "train.device: torchrun started 4 processes here for 2 GPUs. Start --nproc_per_node 2."
    with pytest.raises(ConfigError, match=told):
        choose_device()
