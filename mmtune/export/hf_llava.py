"""`hf-llava`: a folder that transformers' LlavaForConditionalGeneration and LlavaProcessor load."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedModel
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from mmtune.data.images import RESAMPLING, ImageTransform
from mmtune.export.chat_format import IMAGE_MARK, choose_image_id, generation_config, plain_tokenizer
from mmtune.export.parity import Parity, Probe, compare, require_same_ids
from mmtune.export.source import Source, merged_llm, plain_projector, plain_tower, require_vision


def check(source: Source) -> None:
    """Refuse what the format cannot hold: a run without a CLIP tower."""
    require_vision(source, "hf-llava")


@torch.no_grad()
def write(source: Source, folder: Path) -> None:
    """Write the whole model, the processor and the generation config."""
    parts = source.parts
    vision = require_vision(source, "hf-llava")
    llm = merged_llm(parts, source.dtype)
    image_id = choose_image_id(parts.tokenizer)
    _make_room(llm, image_id)
    layers = plain_projector(source)
    tower = plain_tower(vision, source.dtype)
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=llm.config,
        image_token_index=image_id,
        image_seq_length=vision.num_tokens,
        projector_hidden_act="gelu" if len(layers) == 2 else "linear",
        vision_feature_layer=-1,  # the tower ends with the selected block
        vision_feature_select_strategy="default",
        dtype=source.dtype,
    )
    model = _assemble(config, llm, tower, layers, source.dtype)
    model.generation_config = generation_config(parts)
    model.save_pretrained(folder)
    assert parts.transform is not None
    LlavaProcessor(
        image_processor=_image_processor(parts.transform),
        tokenizer=(tokenizer := plain_tokenizer(parts, image_id)),
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLS, which `default` then drops
        image_token=IMAGE_MARK,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)


def _assemble(
    config: LlavaConfig,
    llm: PreTrainedModel,
    tower: PreTrainedModel,
    layers: list[tuple[torch.Tensor, torch.Tensor]],
    dtype: torch.dtype,
) -> LlavaForConditionalGeneration:
    """Put the parts together without a copy of their weights."""
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(config)
    projector = model.model.multi_modal_projector
    if len(layers) == 1:  # a linear projector: the identity after it changes nothing
        width = layers[0][0].shape[0]
        layers = [*layers, (torch.eye(width), torch.zeros(width))]
    for linear, (weight, bias) in zip((projector.linear_1, projector.linear_2), layers, strict=True):
        linear.weight, linear.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))
    model.model.vision_tower = tower
    model.model.language_model = llm.get_decoder()
    model.lm_head = llm.get_output_embeddings()
    return model


def _make_room(llm: PreTrainedModel, image_id: int) -> None:
    """Give the image token rows in embedding and head where the tables end before it.

    The rows are the mean of all others: its logit is then the mean logit, and never the largest.
    """
    table: Any = llm.get_input_embeddings()
    if image_id < table.weight.shape[0]:
        return
    llm.resize_token_embeddings(image_id + 1, mean_resizing=False)
    for layer in (llm.get_input_embeddings(), llm.get_output_embeddings()):
        weight: Any = layer.weight
        weight[image_id] = weight[:image_id].float().mean(0).to(weight.dtype)


def _image_processor(transform: ImageTransform) -> LlavaImageProcessorPil:
    """Return LLaVA's own padding to a square with the mean colour, which its default leaves out."""
    side = transform.image_size
    return LlavaImageProcessorPil(
        do_pad=True,
        do_resize=True,
        size={"shortest_edge": side},
        resample=int(RESAMPLING[transform.resample]),
        do_center_crop=True,
        crop_size={"height": side, "width": side},
        image_mean=list(transform.mean),
        image_std=list(transform.std),
    )


def read_back(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    """Ask the export with transformers alone: its processor makes ids and pixels, its model the logits."""
    processor: Any = transformers.AutoProcessor.from_pretrained(folder, backend="pil")  # as the run resizes
    model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=source.dtype)
    reader = f"transformers {transformers.__version__}"

    @torch.inference_mode()
    def read(probe: Probe) -> torch.Tensor:
        content = [{"type": "image"}] * (probe.image is not None) + [{"type": "text", "text": probe.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, images=probe.image, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        require_same_ids(folder, probe, ids, model.config.image_token_index, reader)
        pixels = {"pixel_values": inputs["pixel_values"].to(model.dtype)} if probe.image is not None else {}
        ids = torch.tensor([ids + probe.answer_ids])
        kept = len(probe.answer_ids) + 1
        return model(input_ids=ids, logits_to_keep=kept, use_cache=False, **pixels).logits[0].float()

    return compare(probes, read, reader, source.dtype)
