"""The JSON files of a model folder, with errors that name them."""

import json
from pathlib import Path
from typing import Any

from mmtune.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file is missing, broken or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            str(path), f"no such file (resolved to {path.resolve()}). Name a whole model folder."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(str(path), f"cannot be read as JSON: {error}. Download this file again.") from None
    if not isinstance(values, dict):
        raise ModelError(str(path), "is no JSON object. Download this file again.")
    return values
