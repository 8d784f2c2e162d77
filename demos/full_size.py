#!/usr/bin/env python3
"""Runs the real commands at the real size on random weights, and prints time and peak memory of each.

    python demos/full_size.py                 # InternLM2-chat-1.8B and CLIP ViT-L/14-336 in shape
    python demos/full_size.py --size tiny     # the same path in a minute

At full size: 9 GB of files, less than 20 GB of memory. Makes both models in their hubs' layouts, then: pretrain one
step, finetune one step (NF4, LoRA), resume it for a second step, answer a question about an image, export. Weights
are random, so answers mean nothing: what is proved is that the commands fit, run and agree at this size.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def make_models(folder: Path, size: str) -> tuple[Path, Path]:
    """Writes a random InternLM2 and a random CLIP tower; returns their folders."""
    import torch

    from mmtune.testing import INTERNLM2_SHAPE, write_internlm2, write_tiny_clip
    from mmtune.testing_vision import CLIP_L_336_SHAPE

    is_full = size == "full"
    llm, clip = folder / "internlm2-random", folder / "clip-random"
    if not llm.exists():
        write_internlm2(llm, num_shards=4, dtype=torch.bfloat16, **(INTERNLM2_SHAPE if is_full else {}))
    if not clip.exists():
        write_tiny_clip(clip, **(CLIP_L_336_SHAPE if is_full else {}))
    return llm, clip


def make_data(folder: Path) -> Path:
    """Writes two images and three records about them."""
    from PIL import Image

    Image.effect_mandelbrot((400, 300), (-2, -1.2, 1, 1.2), 60).convert("RGB").save(folder / "one.png")
    Image.new("RGB", (200, 320), (200, 60, 40)).save(folder / "two.png")
    records = [
        {"id": name, "image": f"{name}.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": f"A picture, number {name}."}
        ]}
        for name in ("one", "two")
    ]  # fmt: skip
    path = folder / "data.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def make_config(folder: Path, llm: Path, clip: Path, data: Path, *, stage: str) -> Path:
    """Writes the config of a stage: the shipped presets' settings, on the random models."""
    model = {
        "llm": {"name_or_path": str(llm), "chat_template": "internlm2_chat", "quantization": "nf4"},
        "vision": {"source": "transformers", "name": str(clip), "feature_layer": -2},
        "projector": {"kind": "mlp2x_gelu"},
    }
    if stage == "finetune":
        model |= {"adapter": {"kind": "lora", "r": 64, "lora_alpha": 128}, "init_from": str(folder / "pretrain")}
    train = {
        "output_dir": str(folder / stage),
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": True,
        "max_steps": 1 if stage == "pretrain" else 2,
        "save_steps": 1,
    }
    path = folder / f"{stage}.yaml"
    values = {"model": model, "data": {"train": [{"path": str(data)}], "max_length": 2048}, "train": train}
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


def measured(name: str, command: list[str]) -> None:
    """Runs a command and prints its time and peak memory; ends everything where it fails."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB elsewhere
    gib = usage.ru_maxrss * scale / 2**30
    print(f"{name:24} {time.monotonic() - started:7.1f} s {gib:7.2f} GiB   {lines[-1] if lines else ''}", flush=True)
    if process.returncode:
        sys.exit("\n".join(["", f"{' '.join(command)} failed:", *lines[-20:]]))


def main() -> int:
    """Makes the models and runs each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/full_size"), help="where to write (runs/full_size)")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="of the random models (full)")
    parser.add_argument("--formats", nargs="*", default=["adapter", "merged", "hf-llava"], help="what to export")
    parser.add_argument("--keep", action="store_true", help="keep the exports; else each is deleted when measured")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    llm, clip = make_models(folder, args.size)
    print(f"{'random models':24} {time.monotonic() - started:7.1f} s", flush=True)
    data = make_data(folder)
    verb = [sys.executable, "-m", "mmtune"]
    pretrain = make_config(folder, llm, clip, data, stage="pretrain")
    finetune = make_config(folder, llm, clip, data, stage="finetune")
    measured("pretrain, 1 step", [*verb, "pretrain", str(pretrain), "--overwrite"])
    measured("finetune, 2 steps", [*verb, "finetune", str(finetune), "--overwrite"])
    run = folder / "finetune"
    after_two = (run / "projector.safetensors").read_bytes()
    (run / "manifest.json").unlink()
    measured("resumed after step 1", [*verb, "finetune", str(finetune), "--resume", str(run / "checkpoint-1")])
    print(f"{'resumed == straight':24} {(run / 'projector.safetensors').read_bytes() == after_two}")
    question = ["--image", str(folder / "one.png"), "--prompt", "What is this?", "--max-new-tokens", "8"]
    measured("chat, 8 tokens", [*verb, "chat", str(run), *question])
    for name in args.formats:
        target = folder / f"export-{name}"
        shutil.rmtree(target, ignore_errors=True)
        measured(f"export {name}", [*verb, "export", str(run), "--format", name, "--output", str(target)])
        if not args.keep:
            shutil.rmtree(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
