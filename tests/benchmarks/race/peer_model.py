"""The model of the race as the peers load it: LlavaForConditionalGeneration with its processor, LoRA as PEFT has it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from settings import LORA, LORA_LAYERS

IMAGE_TOKEN = "<empty_output>"
"""Of SmolLM2's vocabulary, and in no text of the race, so that no embedding is added."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
    "{%- else -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{- '" + IMAGE_TOKEN + "' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""mmtune's `chatml`: no BOS, no system message, exactly an answer and its `<|im_end|>` supervised."""


def write_llava(folder: Path, parts: Any, source: Path) -> None:
    """Write the combined model and its processor.

    Args:
        folder: what is written.
        parts: mmtune's model with the projector.
        source: the folder with `llm` and `vision`.
    """
    from transformers import AutoConfig, CLIPVisionModel, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=AutoConfig.from_pretrained(source / "vision"),
        text_config=AutoConfig.from_pretrained(source / "llm"),
        image_token_index=parts.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=256,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    llm = LlamaForCausalLM.from_pretrained(source / "llm", dtype=torch.float32)
    vision = CLIPVisionModel.from_pretrained(source / "vision", dtype=torch.float32)
    model.model.language_model.load_state_dict(llm.model.state_dict(), assign=True)
    model.model.vision_tower.load_state_dict(vision.state_dict(), assign=True)
    layers = parts.model.projector.layers
    projector = {"linear_1": layers[0], "linear_2": layers[2]}
    state = {f"{name}.{key}": value for name, layer in projector.items() for key, value in layer.state_dict().items()}
    model.model.multi_modal_projector.load_state_dict(state, assign=True)
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    model.generation_config = llm.generation_config
    model.save_pretrained(folder)
    _write_processor(folder, parts.tokenizer)
    _keep_fp32(folder / "config.json")


def _write_processor(folder: Path, tokenizer: Any) -> None:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    tokenizer.padding_side = "right"
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)


def _keep_fp32(path: Path) -> None:
    """Name fp32 in every section of a config, also in words of older versions, so that no tool takes bf16."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for section in (config, config["text_config"], config["vision_config"]):
        section["dtype"] = section["torch_dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def write_peer_lora(adapter: Path, folder: Path, start: Path) -> None:
    """Write mmtune's new LoRA as a PEFT folder of the combined model, with the projector as a module that is saved.

    Args:
        adapter: of mmtune's language model.
        folder: what is written.
        start: the run folder with the projector.
    """
    folder.mkdir()
    weights = load_file(adapter / "adapter_model.safetensors")
    old, new = "base_model.model.model.layers.", "base_model.model.model.language_model.layers."
    assert all(name.startswith(old) for name in weights), next(iter(weights))
    weights = {new + name.removeprefix(old): value for name, value in weights.items()}
    for name, value in load_file(start / "projector.safetensors").items():
        number, kind = name.split(".")[1:]
        layer = {"0": "linear_1", "2": "linear_2"}[number]
        weights[f"base_model.model.model.multi_modal_projector.{layer}.{kind}"] = value
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(folder.parent / "llava"),
        "target_modules": lora_targets(),
        "modules_to_save": ["multi_modal_projector"],
        "bias": "none",
        **LORA,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def lora_targets() -> str:
    """Return the pattern of the language model's linear layers, and of none in the vision tower."""
    return rf".*language_model\.layers\.\d+\.\w+\.({'|'.join(LORA_LAYERS)})"
