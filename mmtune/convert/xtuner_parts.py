"""The sections of an XTuner config, each to its keys of ours. Words that differ are tables."""

import re
from dataclasses import dataclass
from typing import Any

from mmtune.convert.sections import Section, shown
from mmtune.data.template import OTHERWISE_IN_XTUNER, TEMPLATES, XTUNER_NAMES
from mmtune.errors import ConfigError

FORMATS = {
    "llava_map_fn": "llava",
    "openai_map_fn": "messages",
    "alpaca_map_fn": "alpaca",
    "alpaca_zh_map_fn": "alpaca",
    "pretrain_map_fn": "text",
}
"""XTuner's functions that read records -> our format."""

LINEARS = {
    "wqkv": ("q_proj", "k_proj", "v_proj"),
    "wo": ("o_proj",),
    "w1": ("gate_proj",),
    "w3": ("up_proj",),
    "w2": ("down_proj",),
    "output": ("lm_head",),
}
"""Linear layers of InternLM2 -> those of the Llama class."""

PROJECTORS = {1: "linear", 2: "mlp2x_gelu"}
DTYPES = {"bfloat16": "bfloat16", "float32": "float32", "auto": "auto"}


@dataclass
class ConvertedData:
    """What the data sections say: keys of `data` and of `train`, the chat template, XTuner's `max_length`."""

    values: dict[str, Any]
    train: dict[str, Any]
    chat_template: str
    max_length: int | None


# ---------------------------------------------------------------- model


def convert_model(model: Section, verb: str, chat_template: str) -> dict[str, Any]:
    """Return our `model` section.

    Raises:
        ConfigError: it names no language model.
    """
    llm = _llm(model.section("llm"), chat_template)
    lora = model.section("lora" if verb == "sft" else "llm_lora")
    is_frozen = model.take("freeze_llm", bool, False)
    llm["tune"] = "adapter" if lora.values else "frozen" if is_frozen else "full"
    if llm["tune"] == "full" and llm.pop("quantization", None):
        model.notes.append(
            "model.llm.quantization_config: quantized weights cannot be trained in full; they are not quantized"
        )
    values: dict[str, Any] = {"llm": llm}
    if lora.values:
        values["adapter"] = _adapter(lora, is_internlm2="internlm2" in llm["name_or_path"].lower())
    if verb != "sft":
        values |= _vision_and_projector(model)
        init_from = model.take("pretrained_pth", str)
        if verb == "finetune" and init_from is None:
            init_from = "runs/pretrain"
            model.notes.append("model.pretrained_pth: not set; model.init_from has to name the run of a pretrain")
        values |= {} if init_from is None else {"init_from": init_from}
    model.drop("use_varlen_attn")
    return values


def _llm(llm: Section, chat_template: str) -> dict[str, Any]:
    name = llm.take("pretrained_model_name_or_path", str)
    if name is None:
        place = llm.place("pretrained_model_name_or_path")
        raise ConfigError(place, "names no language model that can be read. Write its name there as a text.")
    values: dict[str, Any] = {"name_or_path": name, "chat_template": chat_template}
    dtype = llm.name("torch_dtype")
    if dtype in DTYPES:
        values["dtype"] = DTYPES[dtype]
    elif dtype:
        llm.notes.append(f"model.llm.torch_dtype: {dtype}; training is in bfloat16 where a GPU has it, else in float32")
    quantization = llm.section("quantization_config")
    if quantization.take("load_in_4bit", bool, False):
        kind = quantization.take("bnb_4bit_quant_type", str, "fp4")
        if kind != "nf4":
            llm.notes.append(f"model.llm.quantization_config.bnb_4bit_quant_type: {kind}; nf4 is used")
        values["quantization"] = "nf4"
        values["double_quantization"] = quantization.take("bnb_4bit_use_double_quant", bool, False)
    elif quantization.take("load_in_8bit", bool, False):
        values["quantization"] = "int8"
    quantization.drop("type", "llm_int8_threshold", "llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype")
    quantization.drop_if(load_in_8bit=False)
    quantization.report()
    llm.drop("type", "trust_remote_code", "attn_implementation", "low_cpu_mem_usage")
    llm.report()
    return values


def _adapter(lora: Section, is_internlm2: bool) -> dict[str, Any]:
    """Return our `model.adapter`: PEFT's words on both sides, and PEFT's defaults spelled out."""
    values: dict[str, Any] = {"kind": "lora"}
    values |= {"r": lora.take("r", int, 8), "lora_alpha": lora.take("lora_alpha", (int, float), 8)}
    values["lora_dropout"] = lora.take("lora_dropout", (int, float), 0.0)
    targets = lora.take("target_modules", (list, tuple), [])
    if not targets and is_internlm2:
        targets = list(LINEARS)
        lora.notes.append(
            "model.adapter.target_modules: XTuner also adapts InternLM2's head; without lm_head it is smaller"
        )
    if targets:
        values["target_modules"] = [ours for name in targets for ours in LINEARS.get(name, (name,))]
    lora.drop("type", "task_type")
    lora.drop_if(bias="none")
    lora.report()
    return values


def _vision_and_projector(model: Section) -> dict[str, Any]:
    encoder = model.section("visual_encoder")
    kind = encoder.name()
    if kind != "CLIPVisionModel":
        encoder.notes.append(f"model.visual_encoder.type: {kind or 'not set'}; a CLIP tower is assumed")
    vision: dict[str, Any] = {"source": "transformers"}
    vision["name"] = encoder.take("pretrained_model_name_or_path", str, "openai/clip-vit-large-patch14-336")
    layer = model.take("visual_select_layer", int, -2)
    vision |= {} if layer == -2 else {"feature_layer": layer}
    lora = model.section("visual_encoder_lora")
    is_frozen = model.take("freeze_visual_encoder", bool, False)
    if lora.values:
        vision |= {"tune": "adapter", "adapter": _adapter(lora, is_internlm2=False)}
    elif not is_frozen:
        vision["tune"] = "full"
    depth = model.take("projector_depth", int, 2)
    if depth not in PROJECTORS:
        model.notes.append(f"model.projector_depth: {depth}; projectors have 1 or 2 layers, 2 are taken")
    encoder.report()
    return {"vision": vision, "projector": {"kind": PROJECTORS.get(depth, "mlp2x_gelu")}}


# ---------------------------------------------------------------- data


def convert_data(top: Section, has_images: bool) -> ConvertedData:
    """Return what `train_dataloader` says."""
    loader = top.section("train_dataloader")
    train = {
        "per_device_train_batch_size": loader.take("batch_size", int, 1),
        "dataloader_num_workers": loader.take("num_workers", int, 0),
    }
    dataset = loader.section("dataset")
    whole = dataset.sections("datasets") or [dataset]  # a ConcatDataset, or one dataset
    sources = [source for part in whole for source in _sources(part, has_images)]
    values: dict[str, Any] = {"train": sources}
    sampler = loader.section("sampler")
    is_packed = [part.take("pack_to_max_length", bool, False) for part in whole]
    if any(is_packed):
        values["pack_to_max_length"] = True
        if not all(is_packed):
            loader.notes.append("pack_to_max_length differs between datasets; all are packed")
    elif sampler.name() == "LengthGroupedSampler":
        values["group_by_length"] = True
    lengths = {length for part in whole if (length := part.take("max_length", int)) is not None}
    if len(lengths) > 1:
        loader.notes.append(f"max_length differs between datasets ({shown(sorted(lengths))}); the largest is taken")
    templates = dict.fromkeys(part.section("template_map_fn").name("template") or "" for part in whole)
    chat_template = _chat_template([name for name in templates if name], loader)
    for part in whole:
        part.drop("type", "tokenizer", "image_processor", "remove_unused_columns", "shuffle_before_pack")
        part.drop("use_varlen_attn")  # packed samples never see each other here
        part.drop_if(pad_image_to_square=True)
        part.report()
    loader.drop("pin_memory", "collate_fn", "persistent_workers")
    loader.report()
    return ConvertedData(values, train, chat_template, max(lengths, default=None))


def _chat_template(names: list[str], loader: Section) -> str:
    if len(names) != 1:
        loader.notes.append(f"prompt_template: {shown(names) if names else 'not to be found'}; internlm2_chat is taken")
        return "internlm2_chat"
    name = XTUNER_NAMES.get(names[0], names[0])
    if name not in TEMPLATES:
        known = ", ".join(("tokenizer", *TEMPLATES))
        loader.notes.append(
            f"prompt_template: no template is called {name} here; model.llm.chat_template is one of {known}"
        )
    elif name in OTHERWISE_IN_XTUNER:
        loader.notes.append(
            f"prompt_template: {names[0]}; {name} is written as its model's makers do, XTuner's in other spaces or ends"
        )
    return name


def _sources(dataset: Section, has_images: bool) -> list[dict[str, Any]]:
    """Return our entries of `data.train` for one dataset of XTuner."""
    inner = dataset.section("dataset")  # of process_hf_dataset: how it loads
    paths = dataset.take("data_path", str)
    files = _files(inner.values.pop("data_files", None)) if paths is None else [paths]
    hub_name = inner.take("path", str)
    if not files and hub_name is not None:
        files = [f"hub:{hub_name}"]
    if not files:
        files = ["data/train.json"]
        place = dataset.place("data_path")
        dataset.notes.append(f"data: {place} is no file; data.train[0].path has to name one, JSON or JSON lines")
    function = dataset.name("dataset_map_fn")
    if function not in FORMATS:
        what = f"{function} reads records of another form" if function else "records in XTuner's own form"
        dataset.notes.append(f"data: {what}; write them as LLaVA's conversations or as messages")
    extra: dict[str, Any] = {"format": FORMATS[function]} if function in FORMATS else {}
    folder = dataset.take("image_folder", str)
    if folder is not None and has_images:
        extra["image_folder"] = folder
    if (limit := dataset.take("max_dataset_length", int)) is not None:
        extra["limit"] = limit
    inner.drop("type")
    inner.drop_if(split="train")
    inner.report()
    return [{"path": path, **extra} for path in files]


def _files(value: Any) -> list[str]:
    """Return the files of `data_files`: a text, a list of texts, or either of them by split."""
    if isinstance(value, dict):
        return [path for files in value.values() for path in _files(files)]
    if isinstance(value, list | tuple):
        return [path for files in value for path in _files(files)]
    return [value] if isinstance(value, str) else []


def image_tokens(vision_name: str) -> int | None:
    """Return the tokens of an image by the name of a CLIP tower: 576 for `clip-vit-large-patch14-336`."""
    named = re.search(r"patch(\d+)(?:-(\d+))?", vision_name) or re.search(r"p(\d+)[_-](\d+)", vision_name)
    return (int(named[2] or 224) // int(named[1])) ** 2 if named else None
