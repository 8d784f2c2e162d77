"""What happens around the steps of methods that need more than gradients: rates, ranks, layers that open."""

import pytest
import torch
from training_workspace import trainer_of
from transformers import TrainerCallback

from mmtune.build import build_parts
from mmtune.build_data import build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.training.data import prepare_data


@pytest.fixture
def trainer(workspace, tmp_path):
    """Return a factory of trainers of a finetune that was told other keys."""
    assert main(["pretrain", "pretrain.yaml"]) == 0

    def make(*overrides):
        changes = [f"train.output_dir={tmp_path / 'fit'}", "train.save_steps=0", *overrides]
        config = load_config("finetune.yaml", changes, "finetune")
        parts = build_parts(config.model, torch.device("cpu"))
        return trainer_of(parts, config, prepare_data(config, build_reader(config.model), tmp_path)[0])

    return make


def test_matrices_b_of_loraplus_learn_faster(trainer):
    made = trainer("model.adapter={kind: loraplus, r: 4}", "model.llm.learning_rate=1e-4")
    optimizer = made.create_optimizer()
    names = {id(value): name for name, value in made.vlm.named_parameters()}
    rates = {names[id(value)]: group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {1e-4}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {16 * 1e-4}
    assert {rate for name, rate in rates.items() if "projector" in name} == {5e-3}


def test_adalora_ends_with_the_ranks_it_was_given(trainer):
    keys = "kind: adalora, init_r: 6, target_r: 2, tinit: 1, tfinal: 1, deltaT: 1"
    made = trainer(f"model.adapter={{{keys}}}")
    made.train()
    kept = {name: int((value != 0).sum()) for name, value in made.vlm.llm.named_parameters() if "lora_E" in name}
    assert len(kept) == 14
    assert sum(kept.values()) <= 2 * 14
    assert len(set(kept.values())) > 1  # by importance, not as many for each matrix
    assert made.vlm.llm.active_peft_config.total_step == made.state.max_steps


@pytest.mark.parametrize("unit", ["unfreeze_every_steps: 3", "unfreeze_every_epochs: 1"])
def test_layers_open_from_the_last_one_down(trainer, unit):
    made = trainer("model.adapter=null", f"model.llm.tune={{top_layers: 2, {unit}}}", "train.max_steps=7")
    open_at = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            layers = made.vlm.llm.model.layers
            gradients = [number for number, layer in enumerate(layers) if next(layer.parameters()).requires_grad]
            open_at[state.global_step] = gradients

    made.add_callback(Watch())
    made.train()
    first = 3 if "steps" in unit else 5
    assert all(layers == [1] for step, layers in open_at.items() if step <= first)
    assert all(layers == [0, 1] for step, layers in open_at.items() if step > first)
    assert len(open_at) == 7
    assert all(value.requires_grad for value in made.vlm.llm.model.layers.parameters())
