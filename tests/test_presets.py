"""The shipped recipes for InternLM2-1.8B and CLIP ViT-L/14-336, built at full size without a byte of weights."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM

from mmtune.cli import main
from mmtune.config import load_config, read_yaml
from mmtune.models.adapters import attach_adapter, attach_vision_adapter
from mmtune.models.internlm2 import llama_config
from mmtune.models.projector import Projector
from mmtune.models.vit_encoders import ClipEncoder
from mmtune.models.vlm import VisionLanguageModel
from mmtune.shipped import shipped_configs
from mmtune.testing import INTERNLM2_SHAPE, write_internlm2
from mmtune.testing_vision import CLIP_L_336_SHAPE

PROJECTOR = 6_295_552
VISION_R64 = 27_131_904
LLM_R64 = 69_206_016
LLM_R512_WITH_HEAD = 602_079_232
WHOLE_LLM = 1_889_110_016

TRAINED = {
    "pretrain/llava_internlm2_1_8b_558k": {"projector": PROJECTOR},
    "finetune/llava_internlm2_1_8b_665k_8gb": {"projector": PROJECTOR, "llm": LLM_R64},
    "finetune/llava_internlm2_1_8b_665k_24gb": {"projector": PROJECTOR, "llm": LLM_R64},
    "finetune/llava_internlm2_1_8b_665k_xtuner_r512": {
        "projector": PROJECTOR,
        "llm": LLM_R512_WITH_HEAD,
        "vision": VISION_R64,
    },
    "finetune/llava_internlm2_1_8b_course": {"projector": PROJECTOR, "llm": LLM_R64},
    "sft/internlm2_1_8b_qlora": {"llm": LLM_R64},
    "sft/internlm2_1_8b_domain": {"llm": LLM_R64},
    "sft/internlm2_1_8b_full": {"llm": WHOLE_LLM},
    "sft/identity_internlm2_1_8b": {"llm": LLM_R64 // 4},
    "sft/alpaca": {"llm": LLM_R64},
    "sft/medqa": {"llm": LLM_R64},
    "sft/messages": {"llm": LLM_R64},
    "sft/mix": {"llm": LLM_R64},
    "sft/pretrain_text": {"llm": LLM_R64},
}
SHIPPED = shipped_configs()


def test_every_preset_of_the_model_is_counted():
    texts = {name: path.read_text(encoding="utf-8") for name, path in SHIPPED.items()}
    presets = {name for name, text in texts.items() if "internlm2" in text and "\nsteps:" not in text}
    assert presets == TRAINED.keys()


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_preset_trains_as_many_parameters_as_its_recipe(name):
    with torch.device("meta"):
        model = build(load_config(SHIPPED[name], [], name.split("/")[0]).model)
    trained = {
        part: sum(value.numel() for value in getattr(model, part).parameters() if value.requires_grad)
        for part in ("vision", "projector", "llm")
        if getattr(model, part) is not None
    }
    assert {part: count for part, count in trained.items() if count} == TRAINED[name]


def build(config):
    """What `build_parts` builds, of the real shapes."""
    llm = LlamaForCausalLM(llama_config(INTERNLM2_SHAPE)).requires_grad_(config.llm.tune == "full")
    llm = llm if config.adapter is None else attach_adapter(llm, config.adapter)
    if config.vision is None:
        return VisionLanguageModel(llm)
    tower = CLIPVisionModel(CLIPVisionConfig(**CLIP_L_336_SHAPE))
    vision = ClipEncoder(tower, config.vision.feature_layer, {}).requires_grad_(config.vision.tune == "full")
    if config.vision.adapter is not None:
        attach_vision_adapter(vision, config.vision.adapter)
    return VisionLanguageModel(llm, vision, Projector(config.projector.kind, vision.hidden_size, 2048))


def test_steps_are_those_of_the_published_recipe():
    pretrain = read_yaml(SHIPPED["pretrain/llava_internlm2_1_8b_558k"])["train"]
    assert samples_per_step(pretrain) == 256
    assert -(-558_128 // samples_per_step(pretrain)) == 2181
    for size in ("8gb", "24gb", "xtuner_r512"):
        finetune = read_yaml(SHIPPED[f"finetune/llava_internlm2_1_8b_665k_{size}"])["train"]
        assert -(-665_298 // samples_per_step(finetune)) == 5198
    course = read_yaml(SHIPPED["finetune/llava_internlm2_1_8b_course"])["train"]
    assert 6 * course["num_train_epochs"] / samples_per_step({"gradient_accumulation_steps": 1} | course) == 1200


def samples_per_step(train):
    return train["per_device_train_batch_size"] * train["gradient_accumulation_steps"]


# ---------------------------------------------------------------- on tiny models of the same layouts


@pytest.fixture(scope="module")
def internlm2(tmp_path_factory):
    return write_internlm2(tmp_path_factory.mktemp("internlm2"))


@pytest.fixture
def ready(desk, data_file, record, internlm2, tiny):
    """Return the overrides that put tiny models and data in a preset's place; `runs/pretrain` is there."""
    data_file(record("<image>\nWhat?", "A cat.", image="1.png"), record("Who?", "A model."))
    data_file(record("Who?", "A model."), record("Why?", "To see."), name="text.json")
    data_file({"text": "A book of one line."}, name="book.jsonl")
    common = [f"model.llm.name_or_path={internlm2}", "train.device=cpu"]
    images = [f"model.vision.name={tiny.clip}", "data.train.0.path=data.json", "data.train.0.image_folder=null"]
    small = ["train.max_steps=1", "train.per_device_train_batch_size=1", "train.dataloader_num_workers=0"]
    few = ["train.gradient_accumulation_steps=2", "train.num_train_epochs=1"]

    def overrides(name, *more):
        model = read_yaml(SHIPPED[name])["model"]
        has_adapter = not name.startswith("pretrain") and model["llm"].get("tune", "adapter") == "adapter"
        ranks = ["model.adapter.r=8"] if has_adapter else []  # of matrices that are 16 and 32 wide
        ranks += ["model.vision.adapter.r=8"] if (model.get("vision") or {}).get("adapter") else []
        source = ["data.train=[{path: text.json}]"] if name.startswith("sft") else images
        if "validation" in read_yaml(SHIPPED[name])["data"]:
            source = ["data.train.0.path=book.jsonl", "data.validation=[{path: book.jsonl}]"]
        return [*common, *source, *small, *few, *ranks, *more]

    return overrides


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_preset_trains_a_step_and_its_run_answers(name, ready, capsys):
    verb = name.split("/")[0]
    start = []
    if verb == "finetune":
        first = "pretrain/llava_internlm2_1_8b_558k"
        assert main(["pretrain", first, *ready(first)]) == 0
        start = ["model.init_from=runs/pretrain"]
    assert main([verb, name, *ready(name, *start, "train.output_dir=run")]) == 0
    image = [] if verb == "sft" else ["--image", "1.png"]
    capsys.readouterr()
    assert main(["chat", "run", *image, "--prompt", "What?", "--max-new-tokens", "2"]) == 0
    assert "<|im_end|>" not in capsys.readouterr().out
