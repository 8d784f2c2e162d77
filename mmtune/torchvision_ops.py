"""Lets torchvision be imported beside a torch without CUDA. Nothing else lives here.

The wheel of the Python package index is built for CUDA: its operators cannot be loaded beside a CPU torch, and then
`import torchvision` fails, and with it all models of transformers, which imports torchvision wherever it is installed.
Naming the two operators that torchvision registers gradients for is enough; nobody here calls them. Importing this
module does it, so it is imported before transformers.
"""

import importlib.util
from pathlib import Path

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")
_declared: list = []  # a torch.library.Library takes its operators back when it is collected


def declare_missing_operators() -> bool:
    """Name torchvision's operators where torchvision is installed but cannot load them; say whether that was so."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _declared:
        return False
    import torch

    if torch.version.cuda is not None or _loads(Path(spec.origin).parent):
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}{SCHEMA}")
    _declared.append(library)
    return True


def _loads(folder: Path) -> bool:
    import torch

    for path in sorted([*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]):
        try:
            torch.ops.load_library(str(path))
        except OSError:
            continue
        return True
    return False


WERE_MISSING = declare_missing_operators()
"""Whether torchvision is here and built for another torch."""
