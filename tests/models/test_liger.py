import pytest
import torch

from mmtune.cli import main
from mmtune.errors import ConfigError
from mmtune.models.liger import use_liger_kernels


def test_on_a_cpu_it_is_refused_in_one_line(config_file, data_file, record, capsys):
    data_file(record("<image>", "A cat.", image="1.png"))
    assert main(["pretrain", config_file("train.use_liger_kernel=true", "train.device=cpu")]) == 2
    assert (
        "train.use_liger_kernel: Liger's kernels run on CUDA alone (got cpu). Set it to false."
        in capsys.readouterr().err
    )


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mmtune\[liger\]'"):
        use_liger_kernels(torch.nn.Identity(), torch.device("cuda"))
