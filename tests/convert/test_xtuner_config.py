"""Configs in XTuner's shape become configs of ours that load, with a note for each thing that is not carried over."""

from pathlib import Path

import pytest
import yaml
from xtuner_files import projector_shapes, random_like, write_pth

from mmtune.cli import main
from mmtune.config import load_config
from mmtune.convert.xtuner_config import convert_xtuner_config
from mmtune.convert.xtuner_parts import FORMATS as FORMAT_NAMES
from mmtune.convert.xtuner_parts import image_tokens
from mmtune.data.formats import FORMATS
from mmtune.data.template import TEMPLATES, XTUNER_NAMES
from mmtune.errors import ConfigError
from mmtune.models.projector import PROJECTORS
from mmtune.testing import write_internlm2

IMPORTS = """
import torch
from bitsandbytes.optim import PagedAdamW32bit
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import AmpOptimWrapper, CosineAnnealingLR, LinearLR
from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, CLIPVisionModel
from xtuner.dataset import ConcatDataset, LLaVADataset, process_hf_dataset
from xtuner.dataset.map_fns import llava_map_fn, openai_map_fn, template_map_fn_factory
from xtuner.dataset.samplers import LengthGroupedSampler
from xtuner.engine.hooks import DatasetInfoHook, EvaluateChatHook
from xtuner.engine.runner import TrainLoop
from xtuner.model import LLaVAModel, SupervisedFinetune
from xtuner.utils import PROMPT_TEMPLATE
"""
TRAINING = """
epochs = 2
optim_wrapper = dict(
    type=AmpOptimWrapper,
    optimizer=dict(type=AdamW, lr=3e-4, betas=(0.9, 0.95), weight_decay=0),
    clip_grad=dict(max_norm=1, error_if_nonfinite=False),
    accumulative_counts=4, loss_scale='dynamic', dtype='float16')
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=True, begin=0, end=0.05 * epochs, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, eta_min=0.0, by_epoch=True, begin=0.05 * epochs, end=epochs)]
train_cfg = dict(type=TrainLoop, max_epochs=epochs)
custom_hooks = [
    dict(type=DatasetInfoHook),
    dict(type=EvaluateChatHook, every_n_iters=250, evaluation_inputs=['What is this?'], system='')]
default_hooks = dict(
    logger=dict(type=LoggerHook, log_metric_by_epoch=False, interval=5),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=200, max_keep_ckpts=-1))
randomness = dict(seed=7, deterministic=False)
resume = False
load_from = None
"""
FINETUNE = (
    IMPORTS
    + """
llm_path = 'internlm/internlm2-chat-1_8b'
clip_path = 'openai/clip-vit-large-patch14-336'
root = './data/'
batch_size = 8
model = dict(
    type=LLaVAModel, freeze_llm=True, freeze_visual_encoder=True,
    pretrained_pth='work_dirs/pretrain/iter_2181.pth',
    llm=dict(
        type=AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path=llm_path, trust_remote_code=True,
        torch_dtype=torch.float16,
        quantization_config=dict(
            type=BitsAndBytesConfig, load_in_4bit=True, load_in_8bit=False, bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.float16)),
    llm_lora=dict(type=LoraConfig, r=512, lora_alpha=256, lora_dropout=0.05, bias='none', task_type='CAUSAL_LM'),
    visual_encoder=dict(type=CLIPVisionModel.from_pretrained, pretrained_model_name_or_path=clip_path),
    visual_encoder_lora=dict(type=LoraConfig, r=64, lora_alpha=16, bias='none'))
data = dict(
    type=LLaVADataset, data_path=root + 'mix.json', image_folder=root + 'images', dataset_map_fn=llava_map_fn,
    template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.internlm2_chat),
    max_length=int(2048 - (336 / 14)**2), pad_image_to_square=True)
train_dataloader = dict(
    batch_size=batch_size, num_workers=4, pin_memory=True, dataset=data,
    sampler=dict(type=LengthGroupedSampler, length_property='modality_length', per_device_batch_size=batch_size))
"""
    + TRAINING
)
SFT = (
    IMPORTS
    + """
name = 'internlm/internlm2-chat-1_8b'
def source(path):
    return dict(path=path)
one = dict(
    type=process_hf_dataset, dataset=dict(type='datasets.load_dataset', path='json', data_files=dict(train='a.jsonl')),
    dataset_map_fn=openai_map_fn,
    template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.qwen_chat),
    max_length=1024, pack_to_max_length=True, shuffle_before_pack=True, use_varlen_attn=False)
two = dict(
    type=process_hf_dataset, dataset=dict(type='datasets.load_dataset', path='owner/alpaca'),
    template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.qwen_chat),
    max_length=1024, pack_to_max_length=True, max_dataset_length=measure())
model = dict(
    type=SupervisedFinetune, use_varlen_attn=False,
    llm=dict(type=AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path=name, torch_dtype=torch.bfloat16),
    lora=dict(type=LoraConfig, r=64, lora_alpha=16, target_modules=['wqkv', 'wo']))
train_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(type=ConcatDataset, datasets=[one, two]))
strategy = dict(type='DeepSpeedStrategy')
"""
    + TRAINING.replace("type=AdamW,", "type=PagedAdamW32bit,")
)


@pytest.fixture
def convert(desk):
    """Return a function from the text of an XTuner config to (verb, config of ours, notes)."""

    def run(text, name="old.py"):
        Path(name).write_text(text, encoding="utf-8")
        converted = convert_xtuner_config(Path(name))
        Path("new.yaml").write_text(yaml.safe_dump(converted.values))
        return converted.verb, load_config("new.yaml", [], converted.verb), converted.notes

    return run


def test_a_finetune_of_llava(convert):
    verb, config, notes = convert(FINETUNE)
    model, data, train = config.model, config.data, config.train
    assert verb == "finetune"
    assert (model.llm.name_or_path, model.llm.chat_template) == ("internlm/internlm2-chat-1_8b", "internlm2_chat")
    assert (model.llm.quantization, model.llm.double_quantization, model.llm.tune) == ("nf4", True, "adapter")
    assert {key: model.adapter[key] for key in ("r", "lora_alpha", "lora_dropout")} == {
        "r": 512,
        "lora_alpha": 256,
        "lora_dropout": 0.05,
    }
    assert set(model.adapter["target_modules"]) >= {"q_proj", "gate_proj", "lm_head"}
    assert (model.vision.name, model.vision.tune) == ("openai/clip-vit-large-patch14-336", "adapter")
    assert (model.vision.adapter["r"], model.vision.adapter["lora_alpha"]) == (64, 16)
    assert (model.projector.kind, model.projector.tune) == ("mlp2x_gelu", "full")
    assert model.init_from == "work_dirs/pretrain/iter_2181.pth"
    source = data.train[0]
    assert (source.path, source.image_folder, source.format) == ("./data/mix.json", "./data/images", "llava")
    assert (data.max_length, data.group_by_length) == (1472 + 576 - 1, True)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps, train.dataloader_num_workers) == (
        8,
        4,
        4,
    )
    assert (train.optim, train.learning_rate, train.weight_decay, train.max_grad_norm) == (
        "adamw_torch",
        3e-4,
        0.0,
        1.0,
    )
    assert (train.adam_beta1, train.adam_beta2, train.seed) == (0.9, 0.95, 7)
    assert (train.num_train_epochs, train.lr_scheduler_type, train.warmup_ratio) == (2.0, "cosine", 0.05)
    assert (train.save_steps, train.save_total_limit, train.logging_steps) == (200, None, 5)
    assert (train.gradient_checkpointing, train.output_dir) == (True, "runs/old")
    assert [note.split(":")[0] for note in notes] == ["model.llm.torch_dtype", "model.adapter.target_modules"]
    assert (config.sample.every_steps, config.sample.questions) == (250, ["What is this?"])


@pytest.mark.parametrize("images", ["['data/a.jpg', 'data/b.jpg']", "'data/a.jpg'"])
def test_questions_about_images_are_asked_while_training(convert, images):
    text = FINETUNE.replace("system=''", f"system='Be kind.', evaluation_images={images}")
    _, config, notes = convert(text)
    assert config.sample.images == (["data/a.jpg", "data/b.jpg"] if "[" in images else ["data/a.jpg"])
    assert config.sample.system == "Be kind."
    assert not [note for note in notes if "EvaluateChatHook" in note]


def test_an_image_on_the_web_is_not_fetched(convert):
    _, config, notes = convert(FINETUNE.replace("system=''", "evaluation_images='https://example.org/view.jpg'"))
    assert config.sample is None
    assert "EvaluateChatHook: image https://example.org/view.jpg is not fetched; save it" in notes[-1]


def test_a_pretrain_of_llava(convert):
    start = (
        FINETUNE.index("    pretrained_pth="),
        FINETUNE.index("    llm_lora="),
        FINETUNE.index("    visual_encoder=dict"),
    )
    end = FINETUNE.index("    llm=dict("), FINETUNE.index("    visual_encoder_lora="), FINETUNE.index("data = dict(")
    text = FINETUNE[: start[0]] + FINETUNE[end[0] : start[1]] + FINETUNE[start[2] : end[1]] + ")\n" + FINETUNE[end[2] :]
    verb, config, notes = convert(text.replace("pad_image_to_square=True", "pad_image_to_square=False"))
    assert (verb, config.model.llm.tune, config.model.adapter, config.model.init_from) == (
        "pretrain",
        "frozen",
        None,
        None,
    )
    assert "train_dataloader.dataset.pad_image_to_square: False; images are always padded to squares" in notes


def test_a_text_sft(convert):
    verb, config, notes = convert(SFT)
    assert (verb, config.model.vision, config.model.llm.dtype) == ("sft", None, "bfloat16")
    assert config.model.adapter["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert config.model.llm.chat_template == "qwen_chat"
    assert [(source.path, source.format) for source in config.data.train] == [
        ("a.jsonl", "messages"),
        ("hub:owner/alpaca", None),
    ]
    assert config.data.pack_to_max_length
    assert (config.data.max_length, config.train.optim) == (1024, "paged_adamw_32bit")
    text = "\n".join(notes)
    for words in (
        ": def source(path): return dict(path=path) (not read)",
        "data: records in XTuner's own form; write them as",
        "train_dataloader.dataset.datasets[1].max_dataset_length: measure() (line",
        "strategy: {type: DeepSpeedStrategy}; train.deepspeed splits a model over several devices",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ("betas=(0.9, 0.95), ", "betas=(0.9, 0.95), eps=1e-6, ", "optim_wrapper.optimizer.eps: 1e-06"),
        ("eta_min=0.0", "eta_min=1e-6", "param_scheduler[1].eta_min: 1e-06"),
        ("type=CosineAnnealingLR", "type='PolyLR'", "param_scheduler[1]: PolyLR; the rate stays constant"),
        ("type=AdamW,", "type=Lion,", "optimizer: not to be found; adamw_torch is taken"),
        ("by_epoch=False, interval=200", "by_epoch=True, interval=1", "checkpoints are counted in steps"),
        (
            "template=PROMPT_TEMPLATE.internlm2_chat",
            "template=PROMPT_TEMPLATE.moss_sft",
            "no template is called moss_sft here; model.llm.chat_template is one of tokenizer, internlm2_chat,",
        ),
        (
            "template=PROMPT_TEMPLATE.internlm2_chat",
            "template=PROMPT_TEMPLATE.mixtral",
            "prompt_template: mixtral; mistral is written as its model's makers do, XTuner's in other spaces or ends",
        ),
        ("max_length=int(2048 - (336 / 14)**2)", "max_length=count()", "max_length: count() (line"),
        (
            "freeze_llm=True, ",
            "freeze_llm=True, projector_depth=3, ",
            "model.projector_depth: 3; projectors have 1 or 2",
        ),
        ("freeze_llm=True, ", "freeze_llm=True, secret=3, ", "model.secret: 3"),
        ("bnb_4bit_quant_type='nf4'", "bnb_4bit_quant_type='fp4'", "bnb_4bit_quant_type: fp4; nf4 is used"),
        ("load_from = None", "load_from = 'x.pth'", "load_from: x.pth; set model.init_from to start from weights"),
        ("seed=7", "seed=draw()", "randomness.seed: draw() (line"),
        ("'openai/clip-vit-large-patch14-336'", "'clip'", "max_length: 1472 plus the tokens of an image"),
        (
            "    pretrained_pth='work_dirs/pretrain/iter_2181.pth',\n",
            "",
            "model.pretrained_pth: not set; model.init_from",
        ),
    ],
)
def test_what_is_not_carried_over_is_noted(convert, old, new, note):
    assert old in FINETUNE
    _, _, before = convert(FINETUNE)
    _, _, notes = convert(FINETUNE.replace(old, new))
    assert not any(note in line for line in before)
    assert any(note in line for line in notes), notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "old.py: its model is not to be found. Those that can be converted: LLaVAModel, SupervisedFinetune."),
        (FINETUNE.replace("type=LLaVAModel", "type='xtuner.model.DPO'"), "old.py: its model is DPO."),
        (FINETUNE.replace("=llm_path", "=find()"), "model.llm.pretrained_model_name_or_path: names no language model"),
    ],
)
def test_a_config_that_cannot_be_converted(convert, text, words):
    with pytest.raises(ConfigError) as caught:
        convert(text)
    assert words in str(caught.value)


def test_the_names_that_conversion_gives_exist():
    assert set(FORMAT_NAMES.values()) <= set(FORMATS)
    assert set(XTUNER_NAMES.values()) <= set(TEMPLATES)
    assert {"linear", "mlp2x_gelu"} <= set(PROJECTORS)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("openai/clip-vit-large-patch14-336", 576),
        ("clip-vit-large-patch14", 256),
        ("models/vit_p14_336", 576),
        ("x", None),
    ],
)
def test_tokens_of_an_image_by_the_name_of_the_tower(name, tokens):
    assert image_tokens(name) == tokens


# ---------------------------------------------------------------- through the command line


def test_a_converted_config_trains_from_a_pth(desk, tiny, data_file, record, capsys):
    llm = write_internlm2(desk / "internlm2")
    data_file(record("<image>\nWhat is this?", "The cat.", image="1.png"))
    write_pth(desk / "iter_2181.pth", random_like(projector_shapes()))
    text = FINETUNE.replace("internlm/internlm2-chat-1_8b", str(llm)).replace("'./data/'", "''").replace("mix", "data")
    text = text.replace("openai/clip-vit-large-patch14-336", str(tiny.clip))
    text = (
        text.replace("r=512", "r=2")
        .replace("r=64", "r=2")
        .replace("work_dirs/pretrain/", "")
        .replace("'images'", "'.'")
    )
    Path("old.py").write_text(text.replace("load_in_4bit=True", "load_in_4bit=False"))
    assert main(["convert", "xtuner-config", "old.py", "-o", "new.yaml"]) == 0
    report = capsys.readouterr().out.splitlines()
    assert report[-1] == "wrote new.yaml; run it with: mmtune finetune new.yaml"
    assert all(line.startswith("not carried over: ") for line in report[:-1])
    assert len(report) > 3
    written = Path("new.yaml").read_text()
    assert written.startswith("# mmtune finetune new.yaml\n# Converted from old.py, a config of XTuner.\n")
    assert all(f"# - {line.removeprefix('not carried over: ')}" in written for line in report[:-1])
    assert (
        main(["finetune", "new.yaml", "train.max_steps=2", "train.dataloader_num_workers=0", "train.device=cpu"]) == 0
    )
    assert (desk / "runs/old/manifest.json").is_file()


def test_without_a_file_to_write_the_yaml_is_printed(desk, capsys):
    Path("old.py").write_text(SFT)
    assert main(["convert", "xtuner-config", "old.py"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# mmtune sft old.yaml\n")
    assert yaml.safe_load(printed)["train"]["optim"] == "paged_adamw_32bit"


def test_a_file_is_not_overwritten(desk, capsys):
    Path("old.py").write_text(SFT)
    Path("new.yaml").write_text("mine")
    assert main(["convert", "xtuner-config", "old.py", "-o", "new.yaml"]) == 2
    assert "new.yaml: exists already. Name a new file" in capsys.readouterr().err
    assert Path("new.yaml").read_text() == "mine"
    assert main(["convert", "xtuner-config", "old.py", "-o", "no/new.yaml"]) == 2
    assert "no/new.yaml: cannot be written" in capsys.readouterr().err
    assert main(["convert", "xtuner-config", "nope.py"]) == 2
    assert "nope.py: cannot be read" in capsys.readouterr().err
