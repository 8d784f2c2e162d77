"""Every tuning method on a tiny model that sees: it learns, changes what it should, and comes back from its files.

Runs train on images and text in packs, where the method allows packs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from training_workspace import fit

from mmtune.build import build_parts, load_initial_weights, load_run
from mmtune.build_data import build_reader
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.models.adapter_start import start_from_weights, starts_from_weights
from mmtune.models.methods import METHODS
from mmtune.models.weights import load_weights, save_weights
from mmtune.training.callbacks import read_log
from mmtune.training.data import packed, prepare_data
from mmtune.training.rows import choose_collator

OWN_LR = "model.llm.learning_rate="
SETTINGS: dict[str, list[str]] = {
    "adalora": [
        *(f"model.adapter.{text}" for text in ("init_r=6", "target_r=2", "tinit=2", "tfinal=2", "deltaT=2")),
        OWN_LR + "2e-2",
    ],
    "bitfit": ["model.llm.name_or_path=biased_llm"],
    "boft": ["model.adapter.boft_block_size=8", OWN_LR + "2e-2"],
    "dora": ["model.adapter.r=4"],
    "houlsby": ["model.adapter.bottleneck_size=8"],
    "ia3": [OWN_LR + "5e-2"],
    "ln_tuning": [OWN_LR + "2e-2"],
    "loha": ["model.adapter.r=4", OWN_LR + "2e-2"],
    "lokr": ["model.adapter.r=4", OWN_LR + "2e-2"],
    "lora": ["model.adapter.r=4", "model.adapter.lora_dropout=0.1"],
    "loraplus": ["model.adapter.r=4"],
    "miss": ["model.adapter.r=4"],
    "oft": ["model.adapter.oft_block_size=8", OWN_LR + "2e-2"],
    "olora": ["model.adapter.r=4"],
    "pissa": ["model.adapter.r=4"],
    "p_tuning": ["model.adapter.num_virtual_tokens=5", "model.adapter.encoder_hidden_size=16", OWN_LR + "2e-2"],
    "p_tuning_v2": ["model.adapter.num_virtual_tokens=5", OWN_LR + "5e-2"],
    "prefix_tuning": [
        *(f"model.adapter.{text}" for text in ("num_virtual_tokens=5", "prefix_projection=true")),
        *("model.adapter.encoder_hidden_size=16", OWN_LR + "1e-2"),
    ],
    "prompt_tuning": ["model.adapter.num_virtual_tokens=5", OWN_LR + "5e-2"],
    "qlora": ["model.adapter.r=4", "model.llm.quantization=nf4"],
    "rslora": ["model.adapter.r=4"],
    "vera": ["model.adapter.r=16", OWN_LR + "5e-2"],
    "top_layers": ["model.llm.tune={top_layers: 1}"],
    "gradual": ["model.llm.tune={top_layers: 2, unfreeze_every_steps: 2}"],
    "full": ["model.llm.tune=full"],
    "patterns": ["model.llm.tune=['model.layers.*.mlp.*', '*norm*']"],
    "vision_top_layers": ["model.adapter={kind: lora, r: 4}", "model.vision.tune={top_layers: 1}"],
}
UNPACKED = ("prefix_tuning", "p_tuning_v2")
PROMPTS = ("prompt_tuning", "p_tuning", *UNPACKED)
NEW_WEIGHTS = {
    "bitfit": (".bias", "norm.weight", "layernorm.weight"),
    "full": ("llm.",),
    "gradual": ("llm.model.layers.",),
    "houlsby": (".down.", ".up."),
    "patterns": (".mlp.", "norm"),
    "top_layers": ("llm.model.layers.1.",),
    "vision_top_layers": ("lora_", "vision.tower."),
}
"""What the names of trained tensors hold, for methods whose tensors are not PEFT's own."""
PARTS = {
    "vision_full": ["model.llm.tune=frozen", "model.adapter=null", "model.vision.tune=full"],
    "vision_adapter": ["model.vision.tune=adapter", "model.vision.adapter={kind: lora, r: 2}"],
    "lora_and_head": ["model.adapter={kind: lora, r: 4, target_modules: [q_proj, lm_head]}"],
}
"""What else may train, each with its own way to a gradient."""


def test_every_method_of_the_table_is_tested():
    assert SETTINGS.keys() >= METHODS.keys()


def overrides(name, folder):
    changes = [f"train.output_dir={folder}", *SETTINGS[name]]
    if name in METHODS:
        changes = [f"model.adapter={{kind: {name}}}", *changes]
    elif not any("model.adapter=" in change for change in changes):
        changes.append("model.adapter=null")
    if "model.llm.name_or_path=biased_llm" in changes:
        changes.append("model.init_from=runs/biased_pretrain")
    if name not in UNPACKED:
        changes.append("data.pack_to_max_length=true")
    return [*changes, "train.per_device_train_batch_size=1", "train.num_train_epochs=3", "train.save_steps=4"]


@pytest.fixture
def desk_of_runs(workspace, shared_runs, monkeypatch):
    """A working directory with a pretrained projector; runs of all methods are kept for the last test."""
    monkeypatch.chdir(shared_runs)
    if not Path("runs/pretrain").is_dir():
        for path in workspace.iterdir():
            shutil.copytree(path, path.name) if path.is_dir() else shutil.copy(path, path.name)
        assert main(["pretrain", "pretrain.yaml"]) == 0
    return shared_runs


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("methods")


@pytest.fixture
def biased(desk_of_runs):
    """The tiny model with biases, and a projector pretrained for it."""
    if not Path("biased_llm").is_dir():
        from mmtune.testing import write_tiny_llm

        write_tiny_llm("biased_llm", attention_bias=True, mlp_bias=True)
        changes = ["model.llm.name_or_path=biased_llm", "train.output_dir=runs/biased_pretrain"]
        assert main(["pretrain", "pretrain.yaml", *changes]) == 0


def answers(parts):
    session = ChatSession(parts)
    texts = [session.ask("What colour?", ("0.png",))]
    session.reset()
    return [*texts, session.ask("Hi")]


def tensors(folder):
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in Path(folder).rglob("*.safetensors")
        if "checkpoint" not in path.as_posix()
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("name", [name for name in (*SETTINGS, *PARTS) if name != "gradual"])
def test_each_weight_that_trains_has_a_gradient_from_any_batch(desk_of_runs, biased, name):
    """Processes wait for each other's gradients: all must have the same ones. Layers that wait are looked for."""
    changes = [*PARTS[name], "train.output_dir=run"] if name in PARTS else overrides(name, "run")
    config = load_config("finetune.yaml", changes, "finetune")
    reader = build_reader(config.model)
    parts, samples = build_parts(config.model, torch.device("cpu"), reader), prepare_data(config, reader, Path())[0]
    collator, model = choose_collator(config, parts.model), parts.model.train()
    with_image, text = int(samples.num_images.argmax()), int(samples.num_images.argmin())
    for rows in ([with_image], [text], []):
        model.zero_grad(set_to_none=True)
        loss = model(**collator([samples[row] for row in rows]), num_items_in_batch=torch.tensor(7))["loss"]
        loss.backward()
        trained = {key: value.grad for key, value in model.named_parameters() if value.requires_grad}
        assert not [key for key, gradient in trained.items() if gradient is None]
    assert loss == 0
    assert not any(gradient.any() for gradient in trained.values())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "boft" else name for name in SETTINGS]
)
def test_a_method_learns_is_asked_and_resumes_bit_for_bit(desk_of_runs, biased, name, capsys):
    straight, again = Path("runs", name), Path("runs", f"{name}_again")
    assert main(["finetune", "finetune.yaml", *overrides(name, straight)]) == 0
    losses = [entry["loss"] for entry in read_log(straight / "log.jsonl") if "loss" in entry]
    assert sum(losses[-4:]) < sum(losses[:4])
    capsys.readouterr()
    assert main(["chat", str(straight), "--image", "0.png", "--prompt", "What colour?"]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == answers(load_run(straight))[0]
    shutil.copytree(straight / "checkpoint-4", again / "checkpoint-4")
    assert main(["finetune", "finetune.yaml", *overrides(name, again), "--resume"]) == 0
    found, expected = tensors(again), tensors(straight)
    assert found.keys() == expected.keys()
    assert not [key for key, value in expected.items() if not torch.equal(found[key], value)]


@pytest.mark.parametrize("name", SETTINGS)
def test_only_what_is_meant_to_train_changes_and_comes_back_from_files(desk_of_runs, biased, name, tmp_path):
    config = load_config("finetune.yaml", [*overrides(name, tmp_path / "fit"), "train.save_steps=0"], "finetune")
    torch.manual_seed(0)
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = prepare_data(config, build_reader(config.model), tmp_path)
    load_initial_weights(config.model, parts)
    if starts_from_weights(parts.model.llm):
        parts.model.adapter_start = start_from_weights(parts.model.llm)
    before = {key: value.clone() for key, value in parts.model.state_dict().items()}
    fit(parts, config, packed(config, dataset))
    changed = {key for key, value in parts.model.state_dict().items() if not torch.equal(value, before[key])}
    trained = {key for key, value in parts.model.named_parameters(remove_duplicate=False) if value.requires_grad}
    # A matrix whose ranks were all taken away is as it was: zero, or not reached by a gradient.
    assert changed <= trained
    assert len(changed) >= 0.8 * len(trained)
    adapter_names = ("lora_", "ia3", "vera_", "oft_", "boft_", "hada_", "lokr_", "miss_", "ln_tuning", "prompt_encoder")
    marks = ("projector.", *NEW_WEIGHTS.get(name, adapter_names))
    assert not [key for key in trained if not any(mark in key for mark in marks)]
    assert any(not key.startswith("projector.") for key in changed)

    parts.model.eval()
    expected = answers(parts)
    save_weights(parts.model, tmp_path / "saved")
    torch.manual_seed(1)
    loaded = build_parts(config.model, torch.device("cpu"))
    load_weights(loaded.model, tmp_path / "saved")
    loaded.model.eval()
    assert answers(loaded) == expected
    assert_same_logits(loaded.model, parts.model, 1e-5)
    if isinstance(loaded.model.llm, PeftModel) and name not in (*PROMPTS, "qlora"):  # 4-bit weights would be rounded
        loaded.model.llm = loaded.model.llm.merge_and_unload()
        assert_same_logits(loaded.model, parts.model, 1e-4)


@torch.no_grad()
def assert_same_logits(model, expected, tolerance):
    ids = torch.arange(5, 25)[None]
    found, wanted = (part.hidden_states(part.embed(ids)) for part in (model, expected))
    assert (found - wanted).norm() / wanted.norm() < tolerance


def test_a_fresh_process_answers_as_runs_of_each_file_layout_do(desk_of_runs):
    layouts = ("lora", "pissa", "adalora", "prompt_tuning", "houlsby")  # what differs in the files that are read
    runs = [name for name in layouts if Path("runs", name, "manifest.json").is_file()]
    assert runs
    code = """
import json, sys
from mmtune.build import load_run
from test_methods import answers
print(json.dumps({name: answers(load_run(f"runs/{name}")) for name in sys.argv[1:]}))
"""
    paths = ":".join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, *runs], capture_output=True, text=True, env={"PYTHONPATH": paths}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {name: answers(load_run(f"runs/{name}")) for name in runs}
