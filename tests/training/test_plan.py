"""What a plan counts are the bytes that the tensors of a run have, and the shipped recipes fit where they say."""

import json
from pathlib import Path

import pytest
import torch

from mmtune.build import build_parts
from mmtune.build_trained import build_outline
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.models.hub import cached_folder
from mmtune.models.outline import vision_shape
from mmtune.shipped import find_config
from mmtune.sizes import GIB
from mmtune.testing import write_internlm2
from mmtune.training.optimizer_bytes import optimizer_bytes
from mmtune.training.optimizers import make_optimizer, optimizer_name
from mmtune.training.plan import model_bytes
from mmtune.training.plan_model import as_trained, planned_model
from mmtune.training.planning import plan_run, report_lines

CPU = torch.device("cpu")
NF4 = "model.llm.quantization=nf4"
MODELS = {
    "lora": (),
    "nf4": (NF4,),
    "nf4 quantized once": (NF4, "model.llm.double_quantization=false"),
    "int8": ("model.llm.quantization=int8",),
    "full in bfloat16": ("model.llm.tune=full", "model.adapter=null", "model.llm.dtype=bfloat16"),
    "pure bfloat16": ("model.llm.dtype=bfloat16", "train.pure_bf16=true"),
    "top layers": ("model.llm.tune={top_layers: 1}", "model.adapter=null"),
    "adapter on vision": ("model.vision.tune=adapter", "model.vision.adapter={kind: lora, r: 4}"),
    "vera": ("model.adapter={kind: vera, r: 4}",),
    "houlsby": ("model.adapter={kind: houlsby}",),
    "p-tuning": ("model.adapter={kind: p_tuning, num_virtual_tokens: 4}",),
}


def config_of(*changes):
    return load_config("finetune.yaml", ["model.init_from=null", *changes], "sft")


def facts_of(model):
    """Name, shape, dtype and training of each parameter."""
    return {name: (value.shape, value.dtype, value.requires_grad) for name, value in model.named_parameters()}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_without_weights_has_the_tensors_and_bytes_of_the_real_one(workspace, case):
    config = config_of(*MODELS[case])
    real = as_trained(config, build_parts(config.model, CPU).model, ())
    planned = planned_model(config, "cpu")
    assert facts_of(planned.model) == facts_of(real.model)
    assert planned.is_joined == real.is_joined
    assert model_bytes(config, planned.model) == model_bytes(config, real.model)
    assert all(value.device.type == "meta" for value in planned.model.parameters())


@pytest.mark.parametrize("adapter", ["adalora", "ia3", "loha", "oft", "prompt_tuning", "prefix_tuning", "vera"])
def test_other_methods_are_followed_too(workspace, adapter):
    virtual = ", num_virtual_tokens: 3" if adapter.endswith("_tuning") else ""
    config = config_of(f"model.adapter={{kind: {adapter}{virtual}}}")
    plan = plan_run(config, gpu_memory=None, reads_data=False, probes=False).plan
    assert plan.step.gradients == sum(part.gradients for part in plan.parts) > 0


def test_a_method_that_reads_weights_is_said_not_to_be_planned(workspace, capsys):
    assert main(["plan", "finetune.yaml", "--no-data", "model.adapter={kind: boft}"]) == 2
    assert "model.adapter: this adapter reads weights when it is put on" in capsys.readouterr().err


def test_a_step_that_cannot_be_followed_is_said_and_the_run_goes_on(workspace, capsys, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward

    def chooses_by_value(mlp, x):
        return plain(mlp, x) if float(x.sum()) > -1e30 else x

    monkeypatch.setattr(LlamaMLP, "forward", chooses_by_value)
    options = ("train.recompute_activations=false", "train.max_steps=1")
    assert main(["plan", "finetune.yaml", "--no-data", *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a step of this LlamaForCausalLM cannot be followed without computing it" in line
    assert main(["sft", "finetune.yaml", "model.init_from=null", "train.output_dir=run", *options]) == 0
    assert "the memory of this run is not known before it starts" in capsys.readouterr().err
    assert json.loads(Path("run/plan.json").read_text()).keys() == {"split"}


def test_an_internlm2_folder_is_read_as_the_llama_it_is(workspace, tmp_path):
    name = f"model.llm.name_or_path={write_internlm2(tmp_path / 'llm')}"
    config = config_of(name, "model.llm.chat_template=internlm2_chat", NF4)
    outline = build_outline(config.model, torch.float32)
    assert facts_of(outline.model) == facts_of(build_parts(config.model, CPU).model)
    assert outline.sources[0] == f"llm: {tmp_path / 'llm' / 'config.json'}"


OPTIMIZERS = ("adamw", "adamw_torch", "adafactor", "adamw_8bit", "paged_adamw_8bit", "paged_adamw", "lion_8bit", "lion")
OPTIMIZERS += ("sgd", "adagrad", "rmsprop", "rmsprop_bnb_8bit", "ademamix", "ademamix_8bit")


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("word", OPTIMIZERS)
def test_the_states_of_an_optimizer_are_the_bytes_that_it_holds(word, tmp_path):
    from transformers import TrainingArguments

    name = optimizer_name(word)
    layers = torch.nn.ModuleList([torch.nn.Linear(100, 70), torch.nn.Linear(33, 200, bias=False)])
    args = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True, report_to="none")
    optimizer = make_optimizer(args, layers, [{"params": list(layers.parameters()), "lr": 1e-3, "weight_decay": 0.0}])
    for value in layers.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    assert optimizer_bytes(name, layers.parameters()) == sum(storages(list(optimizer.state.values())).values())


def storages(value):
    """The storages in nested values, each once."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {key: size for item in inner for key, size in storages(item).items()}


def test_gradients_are_the_bytes_of_a_step(workspace):
    config = config_of()
    planned = planned_model(config, "cpu")
    report = plan_run(config, gpu_memory=None, reads_data=True, probes=False)
    trained = sum(value.nbytes for value in planned.model.parameters() if value.requires_grad)
    assert report.plan.step.gradients == trained == sum(part.gradients for part in report.plan.parts)


def test_a_checkpoint_takes_the_bytes_that_are_planned(workspace):
    changes = ["model.init_from=null", "train.max_steps=1", "train.save_steps=1", "train.output_dir=run"]
    assert main(["sft", "finetune.yaml", *changes]) == 0
    files = [path for path in Path("run/checkpoint-1").rglob("*.safetensors") if path.name != "random.safetensors"]
    report = plan_run(config_of(*changes[1:]), gpu_memory=None, reads_data=True, probes=False)
    headers = 8192 * len(files)
    size = sum(path.stat().st_size for path in files)
    assert report.checkpoint_bytes <= size <= report.checkpoint_bytes + headers


# ---------------------------------------------------------------- the shipped recipes at full size


def shipped(name, *changes):
    config = load_config(find_config(name), list(changes), name.split("/")[0])
    return plan_run(config, gpu_memory=8, reads_data=False, probes=False)


def test_the_recipe_for_8_gb_needs_at_most_7_5_gib():
    report = shipped("finetune/llava_internlm2_1_8b_665k_8gb")
    assert report.plan.fits
    assert report.plan.total <= 7.5 * GIB
    sizes = {part.name: part.size.num_trained for part in report.plan.parts}
    assert sizes == {"vision": 0, "projector": 6_295_552, "llm": 69_206_016}
    assert report.sources == ("llm: a shape known to mmtune", "vision: a shape known to mmtune")


@pytest.mark.slow
def test_rank_512_does_not_fit_8_gb_and_the_plan_says_why():
    report = shipped("finetune/llava_internlm2_1_8b_665k_xtuner_r512")
    assert report.plan.fits is False
    text = "\n".join(report_lines(report))
    assert "does not fit on a card of 8 GiB" in text
    text = " ".join(text.split())
    assert "because weights, gradients, optimizer states and CUDA alone take 12.01 GiB with 636 M trained" in text
    assert "no batch size" in text
    assert [step.change.words for step in report.advice][-1] == "model.adapter.r=64"
    assert report.advice[-1].total <= 8 * GIB
    assert report.plan.total - sum(step.saved for step in report.advice) == report.advice[-1].total


# ---------------------------------------------------------------- the command


def planned_text(capsys, *argv):
    assert main(["plan", "finetune.yaml", "train.device=auto", *argv]) == 0
    return capsys.readouterr().out


def test_the_text_has_80_columns_and_says_steps_disk_and_batch(workspace, capsys):
    text = planned_text(capsys, "--gpu-memory", "8", "train.num_train_epochs=40")
    assert max(map(len, text.splitlines())) <= 80
    assert "as the data has it" in text
    assert "optimizer steps: 200" in text
    assert "few steps" not in text
    assert "fits on a card of 8 GiB" in text
    assert "estimated" in text
    assert "every one is kept" in text
    few = planned_text(capsys, "train.num_train_epochs=1")
    assert "optimizer steps: 5\nfew steps teach little" in few
    assert "needs" in few
    assert "none is here, so --gpu-memory" in " ".join(few.split()) or torch.cuda.is_available()


def test_without_data_full_rows_are_assumed(workspace, capsys):
    text = planned_text(capsys, "data.train.0.path=nowhere.json")
    assert "longest batch: 2 x 256 tokens, 2 images (assumed: full rows of data.max_length)" in text
    assert "optimizer steps: not known without the data" in text
    assert text == planned_text(capsys, "--no-data", "data.train.0.path=dialogues.json")


def test_what_does_not_fit_is_told_what_to_change_and_what_that_saves(workspace, capsys):
    changes = ("train.per_device_train_batch_size=8", "--no-data", "--json", "--gpu-memory")
    whole = json.loads(planned_text(capsys, *changes, "8"))
    assert whole["fits"]
    assert whole["changes"] == []
    tight = whole["total_bytes"] / GIB - 0.001
    found = json.loads(planned_text(capsys, *changes, str(tight)))
    assert found["fits"] is False
    assert found["changes"][0]["set"] == "train.gradient_checkpointing=true"
    assert whole["total_bytes"] - found["changes"][0]["saved_bytes"] == found["changes"][0]["total_bytes"]
    once = json.loads(planned_text(capsys, *changes, "8", "train.gradient_checkpointing=true"))
    assert once["total_bytes"] == found["changes"][0]["total_bytes"]
    assert found["peak_bytes"].keys() >= {"weights", "gradients", "optimizer", "activations", "logits", "overhead"}
    assert sum(found["peak_bytes"].values()) == found["total_bytes"]


def test_auto_takes_as_few_blocks_as_needed(workspace, capsys):
    changes = ("--no-data", "--json", "train.gradient_checkpointing=auto", "--gpu-memory")
    ample = json.loads(planned_text(capsys, *changes, "8"))
    assert ample["checkpointed_blocks"] == 0
    found = json.loads(planned_text(capsys, *changes, str(ample["total_bytes"] / GIB - 1e-5)))
    assert found["checkpointed_blocks"] in (1, 2)


def test_a_probe_runs_the_longest_batch_and_says_the_time(workspace, capsys):
    text = planned_text(capsys, "--probe", "train.device=cpu")
    assert "s for the longest batch on cpu, about" in text
    found = json.loads(planned_text(capsys, "--probe", "--json", "train.device=cpu"))
    assert found["probe"]["seconds"] > 0
    assert found["probe"]["run_seconds"] > found["probe"]["seconds"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("model.llm.name_or_path=owner/model",),
            "model.llm.name_or_path: 'owner/model' is not on this machine, and planning downloads nothing. Name a ",
        ),
        (("model.vision.name=owner/tower",), "model.vision.name: 'owner/tower' is not on this machine"),
        (("--gpu-memory", "8", "train.device=cpu"), "--gpu-memory: train.device is cpu. Leave one of the two out."),
        (("model.llm.name_or_path=runs",), "has no config.json, so its shape is not known. Name a model folder."),
    ],
)
def test_what_cannot_be_planned_is_one_line(workspace, capsys, argv, message):
    Path("runs").mkdir()
    assert main(["plan", "finetune.yaml", "--no-data", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_hub_clients_cache_is_looked_at(monkeypatch, tmp_path):
    assert cached_folder("owner/model", "huggingface") is None
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    assert cached_folder("owner/model", "modelscope") is None
    folder = tmp_path / "models" / "owner" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert cached_folder("owner/model", "modelscope") == folder


def test_the_package_s_encoder_is_shaped_without_its_weights():
    encoder, source = vision_shape("efficientnet", "efficientnet_lite0", torch.float32, {"grid": 3})
    assert (encoder.num_tokens, source) == (9, "mmtune's own code")
    assert all(value.device.type == "meta" for value in encoder.parameters())


def test_a_run_says_its_plan_and_warns_where_memory_is_short(workspace, capsys, monkeypatch):
    assert main(["sft", "finetune.yaml", "model.init_from=null", "train.max_steps=1", "train.output_dir=run"]) == 0
    shown = capsys.readouterr().err
    assert "memory at the longest batch, " in shown
    assert "that may not fit" not in shown
    recorded = json.loads(Path("run/plan.json").read_text())
    assert recorded["split"] == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 16}
    assert recorded["total_bytes"] > 0
    monkeypatch.setattr("mmtune.training.checkpointing.free_memory", lambda device: 1000)
    assert main(["sft", "finetune.yaml", "model.init_from=null", "train.max_steps=1", "train.output_dir=run2"]) == 0
    assert "that may not fit. `mmtune plan` with this config says what to change" in capsys.readouterr().err
