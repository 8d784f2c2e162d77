"""XTuner's weights become parts of a model of ours, exactly and by name, or a one-line error says what differs."""

import json
import os

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from xtuner_files import (
    llm_linears,
    llm_lora_shapes,
    lora_shapes,
    projector_shapes,
    random_like,
    vision_lora_shapes,
    write_pth,
)

from mmtune.errors import CheckpointError
from mmtune.models.adapters import attach_adapter
from mmtune.models.internlm2 import split_wqkv, to_internlm2
from mmtune.models.language import load_llm
from mmtune.models.projector import Projector
from mmtune.models.safe_pickle import read_pickle
from mmtune.models.vision import load_vision
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.xtuner import adapter_tensors, load_xtuner, vision_adapter_tensors
from mmtune.models.xtuner_files import is_xtuner, read_xtuner
from mmtune.testing import write_internlm2, write_tiny_clip

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
LORA = {"kind": "lora", "r": 4, "lora_alpha": 8, "target_modules": ALL}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return write_internlm2(folder / "llm"), write_tiny_clip(folder / "clip")


@pytest.fixture
def build(folders):
    """Return a factory of models: a tiny InternLM2, maybe with an adapter, a CLIP tower, a projector."""

    def make(adapter=None, vision_adapter=False, kind="mlp2x_gelu", standardize=False, seeing=True):
        llm = load_llm(str(folders[0]), dtype=torch.float32, device=torch.device("cpu"))
        llm = attach_adapter(llm, adapter) if adapter else llm
        if not seeing:
            return VisionLanguageModel(llm)
        vision = load_vision("transformers", str(folders[1]), torch.float32, {})
        if vision_adapter:
            vision.tower = get_peft_model(vision.tower, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"))
        return VisionLanguageModel(llm, vision, Projector(kind, 16, 64, standardize))

    return make


@pytest.fixture
def refused(tmp_path):
    """Return a function that loads weights into a model and returns the one line of the error."""

    def load(model, shapes_or_path, **options):
        path = shapes_or_path
        if isinstance(path, dict):
            path = write_pth(tmp_path / "iter_1.pth", random_like(path), **options)
        with pytest.raises(CheckpointError) as caught:
            load_xtuner(model, path)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{path}: ")

    return load


# ---------------------------------------------------------------- reading


def test_a_checkpoint_with_the_log_of_mmengine_is_read_without_mmengine(tmp_path):
    weights = random_like(projector_shapes())
    path = write_pth(tmp_path / "iter_2181.pth", weights)
    with pytest.raises(ModuleNotFoundError, match="mmengine"):
        torch.load(path, weights_only=False)
    read = read_pickle(path)
    assert all(torch.equal(read["state_dict"][name], value) for name, value in weights.items())
    assert read["meta"]["iter"] == 2181
    assert vars(read["message_hub"]["log_scalars"]["train/loss"]) == {}


class Shell:
    def __reduce__(self):
        return os.system, ("touch was-run",)


class Evaluates:
    def __reduce__(self):
        return eval, ("open('was-run', 'w')",)


@pytest.mark.parametrize(("attack", "name"), [(Shell(), "posix.system"), (Evaluates(), "eval")])
def test_a_file_that_pickles_anything_else_is_refused_and_named(desk, attack, name):
    torch.save({"state_dict": random_like(projector_shapes()), "message_hub": attack}, "iter_1.pth")
    with pytest.raises(CheckpointError, match=f"iter_1.pth: pickles {name}, which is neither a tensor nor a log"):
        read_xtuner(desk / "iter_1.pth")
    assert not (desk / "was-run").exists()


def test_getattr_of_a_pickle_reaches_nothing(desk):
    """The log names its methods through getattr, which is allowed as a name and must not work."""
    (desk / "iter_1.pth").write_bytes(
        b"\x80\x02c__builtin__\ngetattr\nc__builtin__\ngetattr\nX\x08\x00\x00\x00__self__\x86RX\x04\x00\x00\x00eval\x85R."
    )
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        read_pickle(desk / "iter_1.pth")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_broken_file(tmp_path, content):
    path = write_pth(tmp_path / "iter_1.pth", random_like(projector_shapes()))
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(CheckpointError, match="broken, cut off or no PyTorch file"):
        read_xtuner(path)


def test_what_is_no_checkpoint_of_xtuner(tmp_path):
    def error_of(path):
        with pytest.raises(CheckpointError) as caught:
            read_xtuner(path)
        return str(caught.value)

    torch.save({"state_dict": {"backbone.weight": torch.ones(1)}}, tmp_path / "other.pth")
    assert "1 weights belong to no part that XTuner trains (backbone.weight)." in error_of(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    assert "holds no state dict." in error_of(tmp_path / "list.pth")
    torch.save({"state_dict": {"projector.x": 1}}, tmp_path / "number.pth")
    assert "'projector.x' is no tensor." in error_of(tmp_path / "number.pth")
    assert f"no such file (resolved to {tmp_path / 'nope.pth'})" in error_of(tmp_path / "nope.pth")


def test_a_work_dir_is_answered_with_its_checkpoints(tmp_path):
    for number in (500, 1500, 1000):
        (tmp_path / f"iter_{number}.pth").touch()
    assert is_xtuner(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"is a work_dir of XTuner\. Name one of its checkpoints: .*iter_1500\.pth"
    ):
        read_xtuner(tmp_path)


# ---------------------------------------------------------------- mapping


def test_a_split_adapter_changes_the_weights_as_the_fused_one_does():
    weights = random_like(
        lora_shapes({"base_model.model.model.layers.0.attention.wqkv": llm_linears()["attention.wqkv"]})
    )
    first, second = weights.values()
    fused = second @ first
    split = adapter_tensors(weights, 4, 2)
    name = "base_model.model.model.layers.0.self_attn.{}_proj.lora_{}.weight"
    assert set(split) == {name.format(part, matrix) for part in "qkv" for matrix in "AB"}
    deltas = [split[name.format(part, "B")] @ split[name.format(part, "A")] for part in "qkv"]
    assert [tuple(delta.shape) for delta in deltas] == [(64, 64), (32, 64), (32, 64)]
    for delta, expected in zip(deltas, split_wqkv(fused, 4, 2), strict=True):
        assert torch.equal(delta, expected)


def test_a_loaded_adapter_merges_to_the_fused_weights(build, tmp_path):
    """What the Llama has after a merge is, in InternLM2's layout, its weight and alpha / r times B A of the file."""
    weights = random_like(llm_lora_shapes())
    model = build(LORA)
    before = dict(to_internlm2(build(seeing=False).llm.state_dict(), 4, 2))
    assert load_xtuner(model, write_pth(tmp_path / "iter_1.pth", weights)) == ["adapter"]
    after = dict(to_internlm2(model.llm.merge_and_unload().state_dict(), 4, 2))
    for name in (*[f"model.layers.{n}.{part}" for n in (0, 1) for part in llm_linears()], "output"):
        first, second = (weights[f"llm.base_model.model.{name}.lora_{side}.default.weight"] for side in "AB")
        expected = before[f"{name}.weight"] + 2.0 * second @ first
        torch.testing.assert_close(after[f"{name}.weight"], expected, rtol=0, atol=1e-6)
        assert not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])


def test_names_of_other_models_stay():
    weights = random_like(lora_shapes({"base_model.model.model.layers.0.self_attn.q_proj": (8, 8)}))
    assert [name.replace(".default", "") for name in weights] == list(adapter_tensors(weights, 4, 2))


def test_blocks_after_the_selected_layer_are_left_out():
    weights = random_like(vision_lora_shapes(num_blocks=24, prefix=""))
    kept, left_out = vision_adapter_tensors(weights, 23)
    assert left_out == [23]
    assert len(kept) == 23 * 12
    assert "base_model.model.encoder.layers.22.self_attn.q_proj.lora_A.weight" in kept


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_parts_of_a_checkpoint_are_loaded_and_reported(build, tmp_path, caplog, dtype):
    caplog.set_level("INFO", "mmtune")
    weights = random_like(projector_shapes() | llm_lora_shapes() | vision_lora_shapes(), dtype=dtype)
    model = build(LORA, vision_adapter=True)
    path = write_pth(tmp_path / "iter_1.pth", weights)
    assert load_xtuner(model, path) == ["projector", "adapter", "vision_adapter"]
    state = model.state_dict()
    pairs = {
        "projector.layers.0.weight": "projector.model.0.weight",
        "projector.layers.2.bias": "projector.model.2.bias",
        "llm.base_model.model.model.layers.1.mlp.down_proj.lora_B.default.weight": (
            "llm.base_model.model.model.layers.1.feed_forward.w2.lora_B.default.weight"
        ),
        "llm.base_model.model.lm_head.lora_A.default.weight": "llm.base_model.model.output.lora_A.default.weight",
        "vision.tower.base_model.model.encoder.layers.1.mlp.fc1.lora_B.default.weight": (
            "visual_encoder.base_model.model.vision_model.encoder.layers.1.mlp.fc1.lora_B.default.weight"
        ),
    }
    assert all(torch.equal(state[ours], weights[theirs].float()) for ours, theirs in pairs.items())
    assert f"{path}: adapter of XTuner, 22 tensors, " in caplog.text
    assert (
        "not loaded: the LoRA on block 3 of the CLIP tower (after the selected layer, so it is never run)"
        in caplog.text
    )


def test_a_folder_of_deepspeed(build, tmp_path, caplog):
    folder = tmp_path / "iter_2181.pth"
    folder.mkdir()
    weights = random_like(projector_shapes(), dtype=torch.float16)
    torch.save({"module": weights, "ds_version": "0.14.0", "param_shapes": [{"a": torch.Size([2])}]},
               folder / "mp_rank_00_model_states.pt")  # fmt: skip
    model = build()
    assert load_xtuner(model, folder) == ["projector"]
    assert torch.equal(model.projector.layers[2].weight, weights["projector.model.2.weight"].float())
    assert "not loaded: the 32-bit copies of DeepSpeed's optimizer" in caplog.text
    (folder / "mp_rank_00_model_states.pt").rename(folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match="was written by ZeRO-3, which spreads each weight"):
        load_xtuner(model, folder)


def write_adapter(folder, weights, pickled):
    folder.mkdir(parents=True, exist_ok=True)
    rank = next(value.shape[0] for name, value in weights.items() if "lora_A" in name)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
    if pickled:
        torch.save(weights, folder / "adapter_model.bin")
    else:
        save_file(weights, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("pickled", [True, False])
def test_a_converted_folder(build, tmp_path, pickled, caplog):
    names = {"default": "", "prefix": ""}
    write_adapter(tmp_path / "llm_adapter", random_like(llm_lora_shapes(**names)), pickled)
    write_adapter(tmp_path / "visual_encoder_adapter", random_like(vision_lora_shapes(**names)), pickled)
    projector = random_like(projector_shapes(prefix=""))
    (tmp_path / "projector").mkdir()
    (tmp_path / "projector/config.json").write_text('{"depth": 2}')
    if pickled:
        torch.save(projector, tmp_path / "projector/pytorch_model.bin")
    else:
        save_file(projector, tmp_path / "projector/model.safetensors")
    assert is_xtuner(tmp_path)
    model = build(LORA, vision_adapter=True)
    assert load_xtuner(model, tmp_path) == ["projector", "adapter", "vision_adapter"]
    assert torch.equal(model.projector.layers[0].weight, projector["model.0.weight"])
    assert not caplog.text.count("whole model")


def test_a_converted_adapter_alone(build, tmp_path):
    write_adapter(tmp_path, random_like(llm_lora_shapes(default="", prefix="")), False)
    assert load_xtuner(build(LORA, seeing=False), tmp_path) == ["adapter"]


def test_models_that_were_trained_whole(build, folders, tmp_path):
    source = build()
    llm = {f"llm.{name}": value + 1 for name, value in to_internlm2(source.llm.state_dict(), 4, 2)}
    full = load_vision("transformers", str(folders[1]), torch.float32, {"feature_layer": 3})
    tower = {
        f"visual_encoder.vision_model.{name.removeprefix('tower.')}": value + 1
        for name, value in full.state_dict().items()
    }
    path = write_pth(tmp_path / "iter_1.pth", llm | tower)
    model = build().requires_grad_(True)
    assert load_xtuner(model, path) == ["llm", "vision"]
    for part, name in (("llm", "model.layers.1.self_attn.k_proj.weight"), ("llm", "lm_head.weight")):
        after, before = (getattr(one, part).state_dict()[name] for one in (model, source))
        torch.testing.assert_close(after, before + 1)
    name = "tower.encoder.layers.1.mlp.fc1.weight"
    torch.testing.assert_close(model.vision.state_dict()[name], source.vision.state_dict()[name] + 1)


# ---------------------------------------------------------------- what does not fit


def test_a_projector_that_does_not_fit(build, refused):
    assert refused(build(), projector_shapes(width_out=128)) == (
        "its projector maps 16 -> 128, this model needs 16 -> 64. It was trained for another vision encoder or LLM."
    )
    assert "holds a projector, but this model has no vision encoder." in refused(
        build(seeing=False), projector_shapes()
    )
    assert "its projector has 2 layers. Set model.projector.kind: mlp2x_gelu." in refused(
        build(kind="linear"), projector_shapes()
    )
    one = {name: size for name, size in projector_shapes().items() if ".0." in name}
    assert "its projector has 1 layers. Set model.projector.kind: linear." in refused(build(), one)
    assert "Set model.projector.standardize: false." in refused(build(standardize=True), projector_shapes())
    lacking = {name: size for name, size in projector_shapes().items() if name != "projector.model.2.bias"}
    assert "its weights are not this model's: 1 missing (layers.2.bias)." in refused(build(), lacking)
    more = projector_shapes() | {"projector.model.2.scale": (64,)}
    assert "1 left over (layers.2.scale)" in refused(build(), more)


def test_a_projector_of_one_layer(build, tmp_path):
    one = {name: size for name, size in projector_shapes().items() if ".0." in name}
    weights = random_like(one)
    model = build(kind="linear")
    load_xtuner(model, write_pth(tmp_path / "iter_1.pth", weights))
    assert torch.equal(model.projector.layers.weight, weights["projector.model.0.weight"])


MEND = "Set model.adapter: {kind: lora, r: 4, lora_alpha: 8, target_modules: [down_proj, gate_proj, k_proj, lm_head,"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 8}, "its LoRA has rank 4, this config r: 8. " + MEND),
        ({"lora_alpha": 16}, "was trained with lora_alpha 8, this config has 16: another strength. " + MEND),
        ({"target_modules": ALL[:-1]}, "that of this config on down_proj, gate_proj, k_proj, o_proj,"),
        ({"use_dora": True}, "it holds a plain LoRA, this config has a variant of it. " + MEND),
        ({"kind": "pissa"}, "it holds a plain LoRA, this config has a variant of it. " + MEND),
    ],
)
def test_an_adapter_that_does_not_fit(build, refused, changes, words):
    assert words in refused(build(LORA | changes), llm_lora_shapes())


def test_an_adapter_of_another_method(build, refused):
    assert "it holds a LoRA, this config has ia3." in refused(build({"kind": "ia3"}), llm_lora_shapes())


def test_the_mend_of_the_message_is_right(build, refused, tmp_path):
    import yaml

    message = refused(build(), llm_lora_shapes(has_head=False))
    assert message.startswith("holds a LoRA of rank 4, for which this config has no place. Set model.llm.tune: adapter")
    adapter = yaml.safe_load(message.split("model.adapter: ")[1].removesuffix("."))
    assert load_xtuner(build(adapter), tmp_path / "iter_1.pth") == ["adapter"]


def test_weights_that_are_missing_or_left_over_are_named(build, refused):
    lacking = {name: size for name, size in llm_lora_shapes().items() if "layers.1.feed_forward.w2.lora_B" not in name}
    assert "1 missing (base_model.model.model.layers.1.mlp.down_proj.lora_B.weight)" in refused(build(LORA), lacking)
    message = refused(build(LORA), llm_lora_shapes(num_layers=3))
    assert "14 left over (base_model.model.model.layers.2." in message


def test_an_adapter_of_another_llm(build, refused):
    other = lora_shapes({"llm.base_model.model.model.layers.0.attention.wqkv": (256, 128)})
    assert "has 256 rows, this LLM needs 128. It was trained for another LLM." in refused(build(LORA), other)


def test_a_vision_adapter_without_a_place(build, refused):
    message = refused(build(), vision_lora_shapes())
    assert message.startswith(
        "holds a LoRA of rank 2, for which this config has no place. Set model.vision.tune: adapter"
    )
    assert "model.vision.adapter: {kind: lora, r: 2, lora_alpha: 4, target_modules: [fc1, fc2," in message
    assert "holds a LoRA on a CLIP tower" in refused(build(seeing=False), vision_lora_shapes())


def test_whole_models_without_a_place(build, refused):
    assert "holds a whole language model. Set model.llm.tune: full" in refused(build(), {"llm.output.weight": (8, 8)})
    shapes = {"visual_encoder.vision_model.pre_layrnorm.weight": (16,)}
    assert "holds a whole CLIP tower. Set model.vision.tune: full" in refused(build(), shapes)


def test_a_training_that_diverged(build, tmp_path):
    weights = random_like(projector_shapes())
    weights["projector.model.0.weight"][3, 3] = float("nan")
    with pytest.raises(CheckpointError, match=r"'model.0.weight' holds NaN or infinity: that training diverged."):
        load_xtuner(build(), write_pth(tmp_path / "iter_1.pth", weights))
