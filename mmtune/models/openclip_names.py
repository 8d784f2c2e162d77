"""Which names, tags and weights files of open_clip belong together. It loads no weights."""

from pathlib import Path
from typing import Any

from mmtune.errors import ModelError
from mmtune.lookup import nearest
from mmtune.models.json_files import read_json

PLACE = "model.vision.name"
PRETRAINED = "model.vision.pretrained"
QUICK_GELU = "-quickgelu"
CONFIG_FILE = "open_clip_config.json"


def checked_preprocessing(name: str, pretrained: str | None) -> dict[str, Any]:
    """Check that name and weights belong together; return the preprocessing that open_clip would not know.

    Args:
        name: of an architecture of open_clip.
        pretrained: a tag, or a weights file.

    Raises:
        ModelError: there is no such name or tag, or the weights were trained with another activation.
    """
    import open_clip as library

    config = library.get_model_config(name)
    if config is None:
        names = library.list_models()
        message = f"open_clip has no model '{name}'.{nearest(name, names)} `open_clip.list_models()` lists them."
        raise ModelError(PLACE, message)
    tags = library.list_pretrained_tags_by_model(name)
    if pretrained is None:
        known = f"its tags: {', '.join(tags)}" if tags else "it has no tags"
        raise ModelError(PRETRAINED, f"is not set. Name a weights file or a tag of {name} ({known}).")
    activation = bool(config.get("quick_gelu", False))
    if Path(pretrained).is_file():
        return _of_file(name, Path(pretrained), activation)
    tag = library.get_pretrained_cfg(name, pretrained)
    if not tag:
        other = _other_name(name)
        has_other = bool(library.get_pretrained_cfg(other, pretrained))
        mend = f"{other} has it." if has_other else f"Known: {', '.join(tags) or 'none; name a weights file'}."
        raise ModelError(PRETRAINED, f"'{pretrained}' is no file and no tag of {name}. {mend}")
    _require_same_activation(name, activation, {bool(tag.get("quick_gelu", False))}, f"'{pretrained}'")
    return {}


def _of_file(name: str, path: Path, activation: bool) -> dict[str, Any]:
    """What open_clip's own table, or a config beside a weights file, says of weights that open_clip cannot place."""
    import open_clip as library

    beside = path.parent / CONFIG_FILE
    if beside.is_file():
        stored = read_json(beside)
        trained_with = {bool(stored.get("model_cfg", {}).get("quick_gelu", False))}
        _require_same_activation(name, activation, trained_with, str(beside))
        return stored.get("preprocess_cfg", {})
    tags = [library.get_pretrained_cfg(name, tag) for tag in library.list_pretrained_tags_by_model(name)]
    if not tags:
        return {}
    _require_same_activation(name, activation, {bool(tag.get("quick_gelu", False)) for tag in tags}, "every known tag")
    kinds = [{key: tag[key] for key in ("mean", "std", "interpolation")} for tag in tags]
    return kinds[0] if all(kind == kinds[0] for kind in kinds) else {}


def _require_same_activation(name: str, has_quick_gelu: bool, trained_with: set[bool], weights: str) -> None:
    import open_clip as library

    other = _other_name(name)
    if has_quick_gelu not in trained_with and other in library.list_models():
        words = ("GELU", "QuickGELU")
        message = f"{name} has {words[has_quick_gelu]}, but {weights} was trained with {words[not has_quick_gelu]}."
        raise ModelError(PLACE, f"{message} Take {other}.")


def _other_name(name: str) -> str:
    return name.removesuffix(QUICK_GELU) if name.endswith(QUICK_GELU) else name + QUICK_GELU
