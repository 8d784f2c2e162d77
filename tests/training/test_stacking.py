"""An adapter stacked on a trained one: it starts where that one ended, trains alone, needs no other folder."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import models, run_answers, workspace

from mmtune.build import build_parts, load_run
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.models.fused_lora import fuse_lora

__all__ = ["models", "workspace"]

LOWER, UPPER = "runs/finetune", "runs/stacked"
STACK = ("model.stack_on=[runs/finetune]", "model.init_from=runs/finetune", "model.adapter.r=2")
STILL = ("train.learning_rate=1e-30", "train.max_steps=2")
OWN, BELOW = "adapter/adapter_model.safetensors", "stacked/0/adapter_model.safetensors"


@pytest.fixture
def lower(workspace):
    """A finetuned run to stack on."""
    assert main(["pretrain", "pretrain.yaml"]) == 0
    assert main(["finetune", "finetune.yaml"]) == 0
    return Path(LOWER)


def stack(*overrides, verb="finetune"):
    assert main([verb, "finetune.yaml", f"train.output_dir={UPPER}", *STACK, *overrides]) == 0
    return Path(UPPER)


def refused(capsys, *argv):
    capsys.readouterr()
    assert main(list(argv)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
    return line.removeprefix("mmtune: ")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_new_adapter_starts_where_the_trained_one_ended(lower):
    upper = stack(*STILL)
    assert run_answers(upper) == run_answers(lower)
    assert run_answers(lower) != run_answers("runs/pretrain")  # the trained adapter says something of its own


def test_the_new_one_trains_alone_and_the_folder_is_complete_in_itself(lower):
    upper = stack()
    assert_equal(load_file(upper / BELOW), load_file(lower / OWN))
    assert_equal(load_file(upper / "checkpoint-3" / BELOW), load_file(lower / OWN))
    lora_b = {name: value for name, value in load_file(upper / OWN).items() if "lora_B" in name}
    assert all(value.any() for value in lora_b.values())
    told = run_answers(upper)
    assert told != run_answers(lower)
    shutil.rmtree("runs/finetune")
    shutil.rmtree("runs/pretrain")
    assert run_answers(upper) == told
    run_answers(upper / "checkpoint-3")


@pytest.mark.parametrize("step", [3, 6])
def test_resume_equals_straight_bit_for_bit(lower, step):
    straight = stack()
    shutil.copytree(straight / f"checkpoint-{step}", f"runs/again/checkpoint-{step}")
    shutil.copy(straight / "log.jsonl", "runs/again/log.jsonl")
    stack("train.output_dir=runs/again", "--resume")
    for file in (OWN, BELOW, "projector.safetensors"):
        assert_equal(load_file(Path("runs/again") / file), load_file(straight / file))


def test_the_resolved_config_reproduces_the_run(lower):
    upper = stack()
    assert main(["finetune", f"{upper}/config.yaml", "train.output_dir=runs/again"]) == 0
    assert_equal(load_file(Path("runs/again") / OWN), load_file(upper / OWN))


def test_stacks_grow_and_training_goes_on(lower):
    upper = stack()
    grown = ["train.output_dir=runs/grown", f"model.stack_on=[{upper}]", f"model.init_from={upper}"]
    stack(*grown, *STILL)
    assert_equal(load_file("runs/grown/stacked/1/adapter_model.safetensors"), load_file(upper / OWN))
    assert run_answers("runs/grown") == run_answers(upper)
    stack("train.output_dir=runs/on", f"model.init_from={upper}", *STILL)  # the same stack: its own adapter goes on
    assert_equal(load_file(f"runs/on/{OWN}"), load_file(upper / OWN))
    assert run_answers("runs/on") == run_answers(upper)


def test_adapter_folders_stack_too(lower):
    stack(f"model.stack_on=[{lower}/adapter]", "model.init_from=runs/pretrain")
    assert_equal(load_file(f"{UPPER}/{BELOW}"), load_file(lower / OWN))


def test_layers_with_two_adapters_are_not_fused(lower):
    config = load_config("finetune.yaml", list(STACK), "finetune")
    parts = build_parts(config.model, torch.device("cpu"))
    assert fuse_lora(parts.model) == 0
    config.model.adapter["target_modules"] = ["q_proj"]
    assert fuse_lora(build_parts(config.model, torch.device("cpu")).model) == 0
    config.model.stack_on = []
    assert fuse_lora(build_parts(config.model, torch.device("cpu")).model) == 2


def test_dropout_of_the_frozen_one_is_off(lower):
    config = load_config("finetune.yaml", [*STACK, "model.adapter.lora_dropout=0.0"], "finetune")
    model = build_parts(config.model, torch.device("cpu")).model.train()
    ids = torch.tensor([[1, 2, 3, 4]])
    first, second = (model.hidden_states(model.embed(ids)) for _ in range(2))
    assert torch.equal(first, second)


def test_without_the_run_it_is_stacked_on(lower, capsys):
    message = refused(capsys, "finetune", "finetune.yaml", *STACK, "model.stack_on=[runs/none]", "train.output_dir=x")
    assert message.startswith("runs/none: no such folder")
    message = refused(
        capsys, "finetune", "finetune.yaml", *STACK, "model.stack_on=[runs/pretrain]", "train.output_dir=x"
    )
    assert message == "runs/pretrain: holds no adapter to stack on. Name a run with model.llm.tune: adapter."
    twice = "model.stack_on=[runs/finetune, runs/../runs/finetune]"
    message = refused(capsys, "finetune", "finetune.yaml", *STACK, twice, "train.output_dir=x")
    assert message.startswith("model.stack_on: runs/../runs/finetune/adapter would be added twice.")


def test_an_adapter_of_another_base_model_is_refused(lower, capsys, tmp_path):
    from mmtune.testing import write_tiny_llm

    other = write_tiny_llm(tmp_path / "other", intermediate_size=96)
    message = refused(
        capsys, "finetune", "finetune.yaml", *STACK, f"model.llm.name_or_path={other}", "train.output_dir=x"
    )
    assert message.startswith("runs/finetune: its adapter was trained on another language model than ")


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("{kind: ia3}", "its adapter is lora, the model has ia3: PEFT holds one kind on a model."),
        ("{kind: dora, r: 2}", "DoRA rescales whole weights, which does not add up with another adapter."),
    ],
)
def test_kinds_that_cannot_act_together_are_refused(lower, capsys, adapter, words):
    argv = ["finetune", "finetune.yaml", *STACK[:2], f"model.adapter={adapter}", "train.output_dir=x"]
    assert words in refused(capsys, *argv)


def test_a_pissa_adapter_is_no_ground_to_stack_on(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml"]) == 0
    assert main(["finetune", "finetune.yaml", "model.adapter={kind: pissa, r: 2}"]) == 0
    message = refused(capsys, "finetune", "finetune.yaml", *STACK, "train.output_dir=x")
    assert "its adapter started as pissa, which changes the base model's weights" in message


def test_starting_from_a_stacked_run_without_its_stack_is_refused(lower, capsys):
    upper = stack(*STILL)
    argv = ["finetune", "finetune.yaml", f"model.init_from={upper}", "model.adapter.r=2", "train.output_dir=x"]
    message = refused(capsys, *argv)
    assert message.startswith(f"{upper}: its adapter was trained on top of others (1), which this config lacks.")


def test_a_stack_needs_a_new_adapter(lower, capsys):
    argv = ["pretrain", "pretrain.yaml", "model.stack_on=[runs/finetune]", "train.output_dir=x"]
    assert "'model.stack_on' needs a new 'model.adapter' to stack." in refused(capsys, *argv)


def test_text_alone_stacks_too(lower, capsys):
    text = ["model.vision=null", "model.projector=null", "train.output_dir=runs/text", "model.init_from=null"]
    Path("text.json").write_text(
        '[{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}]'
    )
    text += ["data.train=[{path: text.json}]", "model.stack_on=[runs/finetune]", *STILL]
    assert main(["sft", "finetune.yaml", *text]) == 0
    parts = load_run("runs/text")
    assert list(parts.model.llm.peft_config) == ["default", "stacked_0"]
