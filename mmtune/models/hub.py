"""Model folders by hub name: huggingface_hub, or ModelScope's client where it is installed. Both keep a cache."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from mmtune.errors import ModelError

UNWANTED_FILES = ["*.msgpack", "*.h5", "*.onnx", "*.gguf", "*.ot"]
FILE_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json")
HUBS = ("huggingface", "modelscope")


def is_hub_name(name: str) -> bool:
    """Whether a name has the form `owner/model` and not that of a path.

    >>> is_hub_name("Qwen/Qwen2.5-1.5B-Instruct"), is_hub_name("models/llm.gguf"), is_hub_name("./models/llm")
    (True, False, False)
    """
    return name.count("/") == 1 and not name.startswith((".", "~", "/")) and not name.endswith(FILE_ENDINGS)


def hub_folder(name: str, hub: str, place: str) -> Path:
    """Return the local folder of a hub model, downloaded unless it is in the client's cache.

    `HF_HUB_OFFLINE=1` forbids the download.

    Args:
        name: `owner/model`.
        hub: one of `HUBS`.
        place: the config key that named it.

    Raises:
        ModelError: it is neither here nor to be had; the message says where it was looked for.
    """
    assert hub in HUBS, hub
    fetch = _from_modelscope if hub == "modelscope" else _from_huggingface
    try:
        return Path(fetch(name))
    except ModelError:
        raise
    except Exception as error:  # the clients have no common base class: any failure means "not to be had"
        reason = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        message = (
            f"'{name}' is no folder here (resolved to {Path(name).resolve()}), not in {_cache_of(hub)}, and {hub} did"
            f" not give it: {reason}. Download it and give its folder."
        )
        raise ModelError(place, message) from None


def cached_folder(name: str, hub: str) -> Path | None:
    """Return the folder of a hub model in the client's cache, or None; nothing is downloaded.

    Args:
        name: `owner/model`.
        hub: one of `HUBS`.
    """
    if hub == "modelscope":
        folder = Path(_cache_of(hub))
        places = (folder / "models" / name, folder / "hub" / "models" / name, folder / name)
        return next((place for place in places if (place / "config.json").is_file()), None)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _from_huggingface(name: str) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(name, ignore_patterns=UNWANTED_FILES)


def _from_modelscope(name: str) -> str:
    if importlib.util.find_spec("modelscope") is None:
        raise ModelError("model.hub", "modelscope needs its client. Run: pip install modelscope")
    client: Any = importlib.import_module("modelscope")
    return client.snapshot_download(name, ignore_patterns=UNWANTED_FILES)


def _cache_of(hub: str) -> str:
    if hub == "modelscope":
        return os.environ.get("MODELSCOPE_CACHE", str(Path.home() / ".cache" / "modelscope"))
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)
