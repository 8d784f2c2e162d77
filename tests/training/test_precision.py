"""What trains is kept in float32 and computes in bfloat16; a run goes on from its checkpoint bit for bit."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtune.build import load_run
from mmtune.cli import main
from mmtune.models import precision
from mmtune.models.precision import choose_dtype
from mmtune.training.state import load_scaler, save_scaler
from mmtune.training.trainer import RunTrainer

FULL = ("model.llm.dtype=bfloat16", "model.llm.tune=full", "model.vision.tune=full", "model.adapter=null")
SMALL_RATE = ("train.learning_rate=1e-5", "train.warmup_ratio=0", "train.lr_scheduler_type=constant")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def train(name, *changes):
    assert main(["finetune", "finetune.yaml", *FULL, f"train.output_dir=runs/{name}", *changes]) == 0
    return tuned(f"runs/{name}")


def tuned(folder):
    parts = ("llm", "vision", "projector")
    return {f"{part}.{key}": v for part in parts for key, v in load_file(Path(folder, f"{part}.safetensors")).items()}


@pytest.fixture
def pretrained(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0


def test_full_tuning_changes_float32_weights_by_less_than_bfloat16_can_say(pretrained, models):
    steps = ("train.max_steps=2", "train.save_steps=0", *SMALL_RATE)
    masters, rounded = train("masters", *steps), train("rounded", *steps, "train.pure_bf16=true")
    before = load_file(models / "llm" / "model.safetensors")
    names = [f"llm.{name}" for name in before if "proj" in name]
    assert len(names) == 14
    for name in names:
        start = before[name.removeprefix("llm.")].bfloat16()
        moved = (masters[name] - start.float()).abs()
        assert masters[name].dtype == torch.float32
        assert (moved > 0).float().mean() > 0.9
        assert moved.max() < 1e-4
        assert (masters[name].bfloat16() != start).float().mean() < 0.5  # most updates are lost in bfloat16
        assert rounded[name].dtype == torch.bfloat16
        assert (rounded[name] != start).float().mean() < 0.5
    assert all(value.dtype == torch.float32 for name, value in masters.items() if name.startswith("vision."))


@pytest.mark.parametrize("pure", [False, True])
def test_a_bfloat16_run_that_tunes_in_full_resumes_bit_for_bit(pretrained, pure):
    changes = (f"train.pure_bf16={str(pure).lower()}", "train.learning_rate=1e-3")
    straight = train("straight", *changes)
    shutil.copytree("runs/straight/checkpoint-3", "runs/again/checkpoint-3")
    again = train("again", *changes, "--resume")
    assert again.keys() == straight.keys()
    assert all(torch.equal(again[name], value) for name, value in straight.items())


def test_master_weights_compute_in_bfloat16_and_answer_in_it(pretrained, monkeypatch):
    seen, step = {}, RunTrainer.training_step

    def watched(self, *given, **named):
        for name, module in self.vlm.named_modules():
            if isinstance(module, torch.nn.Linear) and name not in seen:
                seen[name] = module.weight.dtype, None
                module.register_forward_hook(
                    lambda module, _, out, name=name: seen.update({name: (module.weight.dtype, out.dtype)})
                )
        body = self.vlm.base_llm.get_decoder()
        body.layers[1].register_forward_pre_hook(lambda _, given: seen.update({"stream": (None, given[0].dtype)}))
        return step(self, *given, **named)

    monkeypatch.setattr(RunTrainer, "training_step", watched)
    train("full", "train.max_steps=1", "train.save_steps=0")
    assert seen.pop("stream")[1] == torch.bfloat16
    assert set(seen.values()) == {(torch.float32, torch.bfloat16)}
    model = load_run("runs/full", device=CPU).model
    assert {value.dtype for value in model.llm.parameters()} == {torch.bfloat16}


def test_a_vision_encoder_that_trains_is_calibrated_on(pretrained):
    """The statistics of a new projector come from an encoder of which a part is float32 already."""
    changes = ("model.init_from=null", "model.projector.warm_start_epochs=1", "train.max_steps=1", "train.save_steps=0")
    pretrain = ("model.llm.dtype=bfloat16", "model.vision.tune=full", "train.output_dir=runs/calibrated")
    for pure in ("false", "true"):
        options = (*pretrain, *changes, f"train.pure_bf16={pure}")
        assert main(["pretrain", "pretrain.yaml", *options, "--overwrite"]) == 0


def test_float16_on_a_cpu_and_pure_bf16_elsewhere_are_one_line(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml", "model.llm.dtype=float16"]) == 2
    assert capsys.readouterr().err == (
        "mmtune: model.llm.dtype: float16 trains on CUDA alone: its loss scaling needs a GPU of NVIDIA (this run is on "
        "the CPU). Take float32, or bfloat16.\n"
    )
    assert main(["pretrain", "pretrain.yaml", "train.pure_bf16=true"]) == 2
    assert capsys.readouterr().err == (
        "mmtune: train.pure_bf16: keeps weights in bfloat16 (model.llm.dtype is float32 here). Set it to false, or"
        " dtype: bfloat16.\n"
    )


@pytest.mark.parametrize(("has_units", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_follows_the_hardware(monkeypatch, has_units, expected):
    monkeypatch.setattr(precision.torch.cuda, "is_bf16_supported", lambda including_emulation: has_units)
    assert choose_dtype("auto", CUDA) == expected
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("float16", CUDA) == torch.float16


def test_the_state_of_a_loss_scaler_comes_back(tmp_path):
    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**10)

    first = scaler()
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    first.scale((weight * float("inf")).sum()).backward()
    first.step(optimizer)  # skipped: the gradient is not finite
    first.update()
    save_scaler(tmp_path, first)
    second = scaler()
    load_scaler(tmp_path, second)
    assert second.state_dict() == first.state_dict()
    assert second.state_dict()["scale"] == 2.0**9
    assert torch.equal(weight, torch.ones(2))
