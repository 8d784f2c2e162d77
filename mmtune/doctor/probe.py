"""What runs in a process of its own: libraries are imported and devices tried, a line of JSON for each step.

    python -P -m mmtune.doctor.probe torch training module:gradio

A library that breaks ends a step with its error, or this process; who started it, `probing.py`, sees which. Only
`probing.py` runs this file.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def main(steps: Sequence[str]) -> None:
    """Take the steps in their order and write what each gives to standard output, where nothing else gets."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print are heard elsewhere
    for step in steps:
        kind, _, name = step.partition(":")
        try:
            result: dict[str, Any] = {"step": step, "values": _import(name) if kind == "module" else STEPS[kind]()}
        except BaseException as error:  # also SystemExit: some libraries leave when they miss something
            result = {"step": step, "error": _one_line(error), "module": _raised_in(error)}
        print(json.dumps(result), file=output, flush=True)


def _one_line(error: BaseException) -> str:
    """Return the kind of an error and the last cause that it names, as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _raised_in(error: BaseException) -> str | None:
    """Return the package outside of mmtune and of Python in which an error arose."""
    found, frames = None, error.__traceback__
    while frames is not None:
        package = str(frames.tb_frame.f_globals["__name__"]).partition(".")[0]
        if package not in ("mmtune", "__main__") and package not in sys.stdlib_module_names:
            found = package
        frames = frames.tb_next
    return found


def _import(name: str) -> dict[str, Any]:
    import mmtune.torchvision_ops  # noqa: F401  (as every module does that needs transformers)

    module = importlib.import_module(name)
    return {"file": module.__file__}


def look_at_torch() -> dict[str, Any]:
    """Import torch and ask it for its build and its devices."""
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    has_gpus = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "num_threads": torch.get_num_threads(),
        "extensions_folder": os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root(),
        "gpu_error": None if has_gpus or torch.version.cuda is None else _why_no_gpu(),
        "gpus": [_try_gpu(number) for number in range(torch.cuda.device_count())] if has_gpus else [],
        "mps": torch.backends.mps.is_available(),
        "torchvision": _torchvision(),
    }


def _why_no_gpu() -> str:
    import torch

    try:
        torch.cuda.init()
    except Exception as error:
        return _one_line(error)
    return "torch gives no reason"


def _try_gpu(number: int) -> dict[str, Any]:
    """Return what a GPU is, and what it says to a product of two small matrices."""
    import torch

    properties = torch.cuda.get_device_properties(number)
    found: dict[str, Any] = {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}
    try:
        device = torch.device("cuda", number)
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found["dtype"] = "bfloat16" if has_bfloat16 else "float16"
        ones = torch.ones(8, 8, device=device, dtype=torch.bfloat16 if has_bfloat16 else torch.float16)
        assert (ones @ ones).sum().item() == 512
        found["free"], found["total"] = torch.cuda.mem_get_info(device)
    except Exception as error:
        found["error"] = _one_line(error)
    return found


def _torchvision() -> str | None:
    """Whether torchvision is `declared` by mmtune beside a torch that it was not built for, or `fits`; None without."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return None
    from mmtune.torchvision_ops import WERE_MISSING

    return "declared" if WERE_MISSING else "fits"


def train_a_step() -> dict[str, Any]:
    """Import what training and chat import, and let a language model of two layers learn once where runs would."""
    for module in ("mmtune.training.run", "mmtune.chat.session"):
        importlib.import_module(module)
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mmtune.models.device import choose_device
    from mmtune.models.precision import choose_dtype, computing_in

    device = choose_device()
    dtype = choose_dtype("auto", device)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model: Any = LlamaForCausalLM(config)
    model.to(device)
    ids = torch.arange(16, device=device)[None]
    with computing_in(dtype, device):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return {"device": device.type, "dtype": str(dtype).removeprefix("torch."), "loss": loss.item()}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {"torch": look_at_torch, "training": train_a_step}

if __name__ == "__main__":
    main(sys.argv[1:])
