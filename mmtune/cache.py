"""Where things are kept that are made once and used again: converted models, prepared data, features."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of all that is cached: `MMTUNE_CACHE`, else `mmtune` in the user's cache folder."""
    if "MMTUNE_CACHE" in os.environ:
        return Path(os.environ["MMTUNE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmtune"
