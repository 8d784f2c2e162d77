"""What DeepSpeed's settings of a run are, and where it is refused, each time in one line."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from mmtune.cli import main
from mmtune.config import load_config
from mmtune.errors import ConfigError
from mmtune.schema_sharding import DEEPSPEED_SETTINGS
from mmtune.shipped import shipped_folder
from mmtune.training.arguments import training_arguments
from mmtune.training.zero import is_zero3, require_filled, require_splittable, zero_settings


@pytest.fixture
def launched(monkeypatch):
    """The environment that a launcher gives to a single process."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


def settings_of(config_file, *changes, dtype=torch.float32):
    return zero_settings(load_config(config_file(*changes), [], "pretrain").train, dtype)


@pytest.mark.parametrize("word", DEEPSPEED_SETTINGS)
def test_each_word_is_a_shipped_file(launched, config_file, word):
    settings = settings_of(config_file, f"train.deepspeed={word}")
    assert settings == json.loads((shipped_folder() / "deepspeed" / f"{word}.json").read_text())
    assert settings["zero_optimization"]["stage"] == int(word[4])
    assert ("offload_optimizer" in settings["zero_optimization"]) == word.endswith("offload")
    assert is_zero3(settings) == word.startswith("zero3")


def test_the_file_for_nvme_differs_from_that_for_memory_in_the_place_alone():
    folder = shipped_folder() / "deepspeed"
    nvme, cpu = (json.loads((folder / f"zero3_{name}.json").read_text()) for name in ("nvme", "offload"))
    for name in ("offload_optimizer", "offload_param"):
        assert nvme["zero_optimization"][name]["nvme_path"] == "/local_nvme"
        assert nvme["zero_optimization"].pop(name)["device"] == "nvme"
        assert cpu["zero_optimization"].pop(name)["device"] == "cpu"
    assert nvme == cpu


CONFIGS = {
    "train.deepspeed=zero4": "'train.deepspeed' must be zero1, zero2",
    "train.deepspeed=zero3 train.fsdp=true": "both split a model over devices",
    "train.deepspeed=zero2 model.vision.tune={top_layers: 2, unfreeze_every_steps: 5}": "open one after the other",
    "train.fsdp=true model.llm.quantization=nf4": "does not go with nf4 weights",
    "train.deepspeed=zero2 train.pure_bf16=true": "'train.pure_bf16' has no meaning with",
}


@pytest.mark.parametrize(("changes", "message"), CONFIGS.items())
def test_what_a_config_tells_is_refused_when_it_is_read(config_file, changes, message):
    keys = changes.replace(" train.", "\ntrain.").replace(" model.", "\nmodel.").split("\n")
    with pytest.raises(ConfigError, match=message) as error:
        load_config(config_file(*keys), [], "pretrain")
    assert "\n" not in str(error.value)


def test_adalora_is_refused(config_file):
    keys = ("train.deepspeed=zero2", "model.adapter={kind: adalora}", "model.llm.tune=adapter")
    with pytest.raises(ConfigError, match="does not go with adalora: AdaLoRA moves its ranks by whole gradients"):
        load_config(config_file(*keys), [], "sft")


def test_plain_python_is_told_of_the_launcher(data_file, record, config_file, capsys):
    data_file(record("<image>\nWhat?", "A cat.", image="1.png"))
    assert main(["pretrain", config_file("train.deepspeed=zero2")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "zero2 needs processes that a launcher has started" in message
    assert "torchrun --nproc_per_node 2 -m mmtune" in message


def test_without_the_package_its_extra_is_named(launched, config_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"needs deepspeed. Run: pip install 'mmtune\[deepspeed\]'"):
        settings_of(config_file, "train.deepspeed=zero2")


@pytest.mark.parametrize("optim", ["adafactor", "adamw_bnb_8bit", "galore_adamw"])
def test_an_optimizer_that_needs_whole_weights_is_refused(launched, config_file, optim):
    more = ["train.optim_target_modules=[q_proj]"] if optim.startswith("galore") else []
    config = load_config(config_file("train.deepspeed=zero1", f"train.optim={optim}", *more), [], "pretrain")
    with pytest.raises(ConfigError, match=f"'{optim}' does not go with train.deepspeed"):
        training_arguments(config.train, torch.device("cpu"), torch.float32)


def test_fsdp_needs_processes_and_another_dtype_than_float16(config_file, monkeypatch):
    train = load_config(config_file("train.fsdp=true"), [], "pretrain").train
    with pytest.raises(ConfigError, match="splits a model over processes, and this is one alone"):
        require_splittable(train, torch.float32)
    monkeypatch.setenv("WORLD_SIZE", "2")
    require_splittable(train, torch.bfloat16)
    with pytest.raises(ConfigError, match="does not go with float16"):
        require_splittable(train, torch.float16)


FILES = {
    "no file": (None, "no such file"),
    "broken": ("{", "cannot be read as JSON"),
    "no section": ({"bf16": {}}, "has no section 'zero_optimization'"),
    "an optimizer": ({"zero_optimization": {}, "optimizer": {"type": "Adam"}}, "'optimizer', which train.optim says"),
    "a schedule": ({"zero_optimization": {}, "scheduler": {}}, "'scheduler', which train.lr_scheduler_type says"),
    "another dtype": ({"zero_optimization": {}, "bf16": {"enabled": True}}, "this run computes in float32"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_wrong_file_is_refused(launched, desk, config_file, content, message):
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        Path("own.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        settings_of(config_file, "train.deepspeed=own.json")
    assert "\n" not in str(error.value)


def test_a_build_that_may_have_been_killed_is_said(launched, desk, config_file, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(desk / "built"))
    lock = desk / "built" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    settings_of(config_file, "train.deepspeed=zero2_offload")  # torch's Adam needs no build
    shipped = json.loads((shipped_folder() / "deepspeed" / "zero2_offload.json").read_text())
    Path("own.json").write_text(json.dumps(shipped | {"zero_force_ds_cpu_optimizer": True}))
    with pytest.raises(ConfigError, match="lock locks what DeepSpeed's optimizer for CPUs is built in"):
        settings_of(config_file, "train.deepspeed=own.json")
    lock.unlink()
    settings_of(config_file, "train.deepspeed=own.json")


def test_a_number_that_the_run_does_not_have_is_refused(config_file):
    settings = json.loads((shipped_folder() / "deepspeed" / "zero2.json").read_text())
    config = load_config(config_file(), [], "pretrain").train
    arguments = training_arguments(config, torch.device("cpu"), torch.float32)
    for changes, is_right in (({}, True), ({"gradient_accumulation_steps": 7}, False)):
        arguments.hf_deepspeed_config = HfTrainerDeepSpeedConfig(settings | changes)
        arguments.hf_deepspeed_config.trainer_config_process(arguments)
        said = "gradient_accumulation_steps is 7, but the run has gradient_accumulation_steps 1"
        with nullcontext() if is_right else pytest.raises(ConfigError, match=said):
            require_filled(config, arguments)
