"""torch and the devices that it sees, and whether a model can learn on them: from what `probe.py` found."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtune.doctor.causes import explained, torchvision_mend
from mmtune.doctor.findings import Finding
from mmtune.doctor.probing import Probe
from mmtune.sizes import GIB

CPU_FLAGS = Path("/proc/cpuinfo")


def about_torch(probe: Probe) -> Iterator[Finding]:
    """Yield torch, the GPUs, and torchvision beside it."""
    if probe.values is None:
        text, mend = explained(str(probe.error), "torch", None)
        yield Finding("torch", "torch", "broken", f"cannot be imported: {text}", mend)
        return
    values = probe.values
    build = f"CUDA {values['cuda']}" if values["cuda"] else f"ROCm {values['hip']}" if values["hip"] else "CPU"
    yield Finding("torch", "torch", "ok", f"{values['version']}, a build for {build}")
    for number, gpu in enumerate(values["gpus"]):
        yield _about_gpu(number, gpu, values["version"])
    if not values["gpus"]:
        yield _about_no_gpu(values)
    yield _about_cpu(values)
    if values["torchvision"] == "declared":
        text = "torchvision is a build for CUDA beside a torch for CPUs. mmtune copes with it, other programs may not"
        yield Finding("torch", "torchvision", "note", text, torchvision_mend(values["version"]))


def _about_gpu(number: int, gpu: dict[str, Any], torch_version: str) -> Finding:
    name = f"GPU {number}"
    head = f"{gpu['name']}, compute capability {gpu['capability']}"
    if "error" in gpu:
        text, mend = explained(gpu["error"], "torch", torch_version)
        return Finding("torch", name, "broken", f"{head}: {text}", mend)
    free, total = gpu["free"] / GIB, gpu["total"] / GIB
    text = f"{head}, {free:.1f} of {total:.1f} GiB free, runs compute in {gpu['dtype']}"
    if free < total / 2:
        return Finding("torch", name, "note", f"{text}; another program holds the rest", "nvidia-smi lists programs.")
    return Finding("torch", name, "ok", text)


def _about_no_gpu(values: dict[str, Any]) -> Finding:
    if values["mps"]:
        return Finding("torch", "GPU", "note", "the GPU of this Mac is used where it is asked for", "train.device=mps")
    if values["cuda"] is not None:
        text, mend = explained(values["gpu_error"], "torch", values["version"])
        text = f"none that torch can use: {text}. Runs take the CPU"
        return Finding(
            "torch", "GPU", "note", text, mend if "(" in text else "nvidia-smi says whether the driver works."
        )
    if shutil.which("nvidia-smi") is not None:
        text = "there is a driver of NVIDIA here, but this build of torch is for CPUs. Runs take the CPU"
        return Finding("torch", "GPU", "note", text, "Install a CUDA build of torch in the same version.")
    return Finding("torch", "GPU", "ok", "none: runs take the CPU, in float32")


def _about_cpu(values: dict[str, Any]) -> Finding:
    text = f"{values['num_threads']} thread{'s' * (values['num_threads'] > 1)}"
    flags = CPU_FLAGS.read_text(encoding="utf-8", errors="replace") if CPU_FLAGS.is_file() else ""
    if not values["gpus"] and ("avx512_bf16" in flags or "amx_bf16" in flags):
        return Finding("torch", "CPU", "ok", f"{text}; it has bfloat16 units: model.llm.dtype=bfloat16 is faster here")
    return Finding("torch", "CPU", "ok", text)


def about_training(probe: Probe, torch_version: str | None) -> Finding:
    """Return whether what training and chat import can be imported, and a model of two layers learns.

    Args:
        probe: of the step `training`.
        torch_version: where torch can be imported; without it the step fails for that reason alone.
    """
    if probe.values is not None:
        where = {"cpu": "the CPU", "cuda": "the GPU"}.get(probe.values["device"], probe.values["device"])
        text = f"a tiny model learned a step on {where} in {probe.values['dtype']}"
        return Finding("torch", "training", "ok", text)
    if torch_version is None:
        return Finding("torch", "training", "broken", "needs torch, see above")
    text, mend = explained(str(probe.error), probe.module or "transformers", torch_version)
    return Finding("torch", "training", "broken", f"a tiny model cannot learn: {text}", mend)
