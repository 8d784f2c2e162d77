"""Vision encoders from open_clip, by name and pretrained weights. open_clip is imported when one is asked for.

A CLIP tower of standard blocks becomes a `ClipEncoder`; other ViTs run as they are, in `OpenClipEncoder`.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtune.errors import ModelError
from mmtune.lookup import nearest
from mmtune.models.hub import hub_folder, is_hub_name
from mmtune.models.openclip_names import PLACE, PRETRAINED, QUICK_GELU, checked_preprocessing
from mmtune.models.openclip_weights import ClipShape, clip_tower
from mmtune.models.vision_encoder import DEFAULT_FEATURE_LAYER, VisionEncoder, num_used_blocks
from mmtune.models.vit_encoders import ClipEncoder


class OpenClipEncoder(VisionEncoder):
    """A ViT of open_clip as it is: patch features of the selected block, no norm, no pooling.

    Args:
        visual: the image side of an open_clip model, or a tower of timm inside it; what comes after the selected
            block is removed from it.
        feature_layer: as an index of `hidden_states`; -2 is the output of the last block but one.
        preprocessing: see `VisionEncoder`.

    Raises:
        ModelError: it is no ViT.
    """

    def __init__(self, visual: nn.Module, feature_layer: int, preprocessing: dict[str, Any]):
        super().__init__()
        from open_clip.timm_model import TimmModel
        from open_clip.transformer import VisionTransformer

        self.tower = visual
        trunk: Any = visual.trunk if isinstance(visual, TimmModel) else visual
        if isinstance(visual, VisionTransformer):
            num_blocks = len(trunk.transformer.resblocks)
            self.num_tokens, self.hidden_size = trunk.grid_size[0] * trunk.grid_size[1], trunk.transformer.width
        elif isinstance(trunk, _timm_vits()):
            num_blocks = len(trunk.blocks)
            self.num_tokens, self.hidden_size = trunk.patch_embed.num_patches, trunk.embed_dim
        else:
            kind = type(trunk).__name__
            raise ModelError(PLACE, f"its image side is a {kind}. Take a ViT, such as ViT-L-14-336{QUICK_GELU}.")
        self.last_block = num_used_blocks(feature_layer, num_blocks) - 1
        trunk.prune_intermediate_layers([self.last_block], prune_norm=True, prune_head=True)
        if isinstance(visual, TimmModel):
            self.tower.head = nn.Identity()
        else:
            self.tower.attn_pool = None
        self.preprocessing = preprocessing

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch features of the selected block."""
        tower = self.base_tower
        found = tower.forward_intermediates(
            pixel_values.to(next(tower.parameters()).dtype),
            indices=[self.last_block],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        return found["image_intermediates"][0]


def _timm_vits() -> Any:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer, Eva


def open_clip_vit(
    name: str,
    *,
    pretrained: str | None = None,
    feature_layer: int = DEFAULT_FEATURE_LAYER,
    dtype: torch.dtype = torch.float32,
    hub: str = "huggingface",
) -> VisionEncoder:
    """Load the image side of an open_clip model.

    Args:
        name: of a model, such as `ViT-L-14-336-quickgelu`; or a folder or hub name with `open_clip_config.json`.
        pretrained: a tag such as `openai`, or a weights file; None for a folder, which holds its weights.
        feature_layer: see `OpenClipEncoder`.
        dtype: of the weights.
        hub: where a hub name is looked up.

    Raises:
        ModelError: open_clip is not installed, name and weights do not belong together, or cannot be had.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise ModelError("model.vision.source", "open_clip is not installed. Run: pip install 'mmtune[openclip]'")
    import open_clip as library

    folder = _model_folder(name, hub)
    if folder is not None:
        if pretrained is not None:
            raise ModelError(PRETRAINED, f"'{name}' holds its own weights. Set pretrained: null.")
        model_name, overrides = f"local-dir:{folder}", {}
    else:
        model_name = name.replace("/", "-")
        overrides = checked_preprocessing(model_name, pretrained)
    try:
        model = library.create_model(
            model_name, pretrained=pretrained, require_pretrained=True, force_preprocess_cfg=overrides
        )
    except Exception as error:  # open_clip raises anything from RuntimeError to FileNotFoundError here
        reason = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        raise ModelError(PLACE, f"open_clip cannot load '{name}' with '{pretrained}': {reason}.") from None
    visual = model.visual
    preprocessing = _preprocessing(visual.preprocess_cfg)
    shape = _clip_shape(visual)
    if shape is None:
        return OpenClipEncoder(visual.to(dtype).eval(), feature_layer, preprocessing)
    return ClipEncoder(clip_tower(visual.to(dtype).state_dict(), shape), feature_layer, preprocessing)


def open_clip_outline(name: str, feature_layer: int) -> VisionEncoder:
    """Return the encoder that `open_clip_vit` loads, on the meta device, without looking at its weights.

    Args:
        name: of an architecture, or a folder with `open_clip_config.json`.
        feature_layer: see `OpenClipEncoder`.

    Raises:
        ModelError: there is no such architecture, or its image side is no ViT.
    """
    import open_clip as library

    folder = Path(name).expanduser()
    model_name = f"local-dir:{folder}" if folder.is_dir() else name.replace("/", "-")
    if not folder.is_dir() and library.get_model_config(model_name) is None:
        raise ModelError(
            PLACE, f"open_clip has no model '{name}'.{nearest(name, library.list_models())} Mend the name."
        )
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it warns that weights are random
    try:
        visual = library.create_model(model_name, device="meta", load_weights=False).visual
    finally:
        logging.root.setLevel(level)
    preprocessing = _preprocessing(visual.preprocess_cfg)
    shape = _clip_shape(visual)
    if shape is None:
        return OpenClipEncoder(visual, feature_layer, preprocessing)
    with torch.device("meta"):
        return ClipEncoder(clip_tower(visual.state_dict(), shape), feature_layer, preprocessing)


def open_clip_path(name: str, pretrained: str | None, hub: str) -> Path | None:
    """Return the file or folder with the weights, None where open_clip keeps them in its cache."""
    if pretrained is not None and Path(pretrained).is_file():
        return Path(pretrained)
    return _model_folder(name, hub)


def _model_folder(name: str, hub: str) -> Path | None:
    """The folder of a model that is no name of open_clip's; `ViT-L/14` is one, not a hub name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_name(name) or name.startswith(("ViT-", "RN")):
        return None
    return hub_folder(name, hub, PLACE)


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    size = config["size"]
    sides = set(size) if isinstance(size, (list, tuple)) else {size}
    if len(sides) > 1:
        raise ModelError(PLACE, f"it takes images of {tuple(size)} pixels. Only square ones are read here.")
    if config["interpolation"] not in ("bicubic", "bilinear"):
        raise ModelError(PLACE, f"it resizes by '{config['interpolation']}'. Known: bicubic, bilinear.")
    return {
        "image_size": int(sides.pop()),
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "resample": config["interpolation"],
    }


def _clip_shape(visual: Any) -> ClipShape | None:
    """The shape of a tower that `CLIPVisionModel` computes too; None for any other."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock, Transformer, VisionTransformer

    if type(visual) is not VisionTransformer or type(visual.transformer) is not Transformer:
        return None
    blocks = visual.transformer.resblocks
    if any(type(block) is not ResidualAttentionBlock or not isinstance(block.ls_1, nn.Identity) for block in blocks):
        return None
    (height, width), (patch_height, patch_width) = visual.image_size, visual.patch_size
    activation = blocks[0].mlp.gelu
    if height != width or patch_height != patch_width or type(activation) not in (QuickGELU, nn.GELU):
        return None
    if isinstance(activation, QuickGELU):
        hidden_act = "quick_gelu"
    else:
        hidden_act = "gelu" if activation.approximate == "none" else "gelu_pytorch_tanh"
    return ClipShape(height, blocks[0].attn.num_heads, hidden_act, blocks[0].ln_1.eps)
