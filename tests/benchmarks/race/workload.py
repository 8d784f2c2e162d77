"""Make the folder that all tools of the race read: images, records, models and the weights they start from.

    python tests/benchmarks/race/workload.py --folder runs/race/work

Runs in mmtune's environment. Written are

- `images/`, `pretrain.json`, `finetune.json`: what mmtune reads (LLaVA's format);
- `llm/`, `vision/`: the language model with its real weights, a CLIP tower of 224 pixels with random ones;
- `start_pretrain/`, `start_finetune/`: run folders with the new projector and LoRA, which mmtune starts from;
- `llava/`, `lora/`: the same weights as one LlavaForConditionalGeneration with its processor, and as a PEFT folder;
- `pretrain_ordered.json`, `finetune_ordered.json`: the records in the order in which mmtune trains them, for the peers;
- `pretrain_expected.npz`, `finetune_expected.npz`: ids and labels in that order and the pixels of the first batch,
  which every tool is held to;
- `mmtune_pretrain.yaml`, `mmtune_finetune.yaml`: the configs of mmtune's runs.
"""

import argparse
import json
import random
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch
from peer_model import IMAGE_TOKEN, write_llava, write_peer_lora
from settings import BATCH_SIZE, JOBS, LORA, SEED, TRAIN

import mmtune.torchvision_ops  # noqa: F401  (before transformers)
from mmtune.build import Parts, base_models, build_parts
from mmtune.build_data import build_dataset, build_reader
from mmtune.config import load_config
from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmtune.models.language import llm_folder, load_tokenizer
from mmtune.models.weights import save_weights
from mmtune.run_folder import write_json, write_manifest, write_settings
from mmtune.training.steps import batch_sampler

CLIP_L_224 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
CLIP_S_224 = CLIP_L_224 | {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
}
VISION = {"S": CLIP_S_224, "L": CLIP_L_224}
"""ViT-S/14 (21 M) stands to SmolLM2-135M as CLIP ViT-L/14 (304 M) to InternLM2-1.8B; with ViT-L/14 the encoder, which
all tools run alike, is most of the work."""
SMALL_VISION = CLIP_L_224 | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
SMALL_LLM = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
SMALL_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="what is written; deleted first where it exists")
    parser.add_argument("--samples", type=int, default=40, help="of each job, a multiple of the batch of 4 (40)")
    parser.add_argument("--smoke", action="store_true", help="models of width 32 and 8 samples: to try the path")
    parser.add_argument("--vision", choices=VISION, default="S", help="size of the vision encoder (S)")
    args = parser.parse_args()
    make(
        args.folder, 8 if args.smoke else args.samples, SMALL_VISION if args.smoke else VISION[args.vision], args.smoke
    )


def make(folder: Path, num_samples: int, vision: dict[str, int], smoke: bool) -> None:
    """Write all that the tools read; see the module."""
    if num_samples % BATCH_SIZE:
        raise SystemExit(f"--samples must be a multiple of {BATCH_SIZE} (got {num_samples}).")
    if folder.exists():
        if not (folder / "workload.json").is_file() and any(folder.iterdir()):
            raise SystemExit(f"{folder} holds other files. Name another folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(folder / "workload.json", {"num_samples": num_samples, "vision": vision, "smoke": smoke, "seed": SEED})
    folder = folder.resolve()
    _write_records(folder, num_samples)
    _write_models(folder, vision, smoke)
    for job in JOBS:
        write_json(folder / f"mmtune_{job}.yaml", _config_values(folder, job))  # JSON is YAML
    for job in JOBS:
        parts = _write_start(folder, job)
        if job == "finetune":
            write_llava(folder / "llava", parts, folder)
            write_peer_lora(folder / "start_finetune" / "adapter", folder / "lora", folder / "start_finetune")
        _write_expected(folder, job)


def _write_records(folder: Path, num_samples: int) -> None:
    """Write the images and, in LLaVA's format, a caption and a question about each."""
    rng = random.Random(SEED)
    (folder / "images").mkdir()
    records: dict[str, list] = {job: [] for job in JOBS}
    for number in range(num_samples):
        scene, name = scenes.make_scene(rng), f"images/{number:05}.jpg"
        scenes.draw(scene, rng.randrange(336, 641), folder / name, number)
        for job, (asked, answer) in (
            ("pretrain", scenes.caption(scene)),
            ("finetune", scenes.question(scene, rng)),
        ):
            turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answer}]
            records[job].append({"id": f"{number:05}", "image": name, "conversations": turns})
    for job, listed in records.items():
        write_json(folder / f"{job}.json", listed)


def _write_models(folder: Path, vision: dict[str, int], smoke: bool) -> None:
    """Write the language model in fp32, and a CLIP tower with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(SEED)
    source = llm_folder("smollm2-135m-instruct")
    if smoke:
        config = AutoConfig.from_pretrained(source, **SMALL_LLM, **SMALL_HEADS)
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        llm = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    llm.save_pretrained(folder / "llm")
    load_tokenizer(str(source)).save_pretrained(folder / "llm")
    CLIPVisionModel(CLIPVisionConfig(**vision)).save_pretrained(folder / "vision")


def _config_values(folder: Path, job: str) -> dict[str, Any]:
    """Return the config of mmtune's run of a job."""
    model: dict[str, Any] = {
        "llm": {"name_or_path": str(folder / "llm"), "chat_template": "chatml", "dtype": "float32"},
        "vision": {"source": "transformers", "name": str(folder / "vision"), "feature_layer": -2},
        "projector": {"kind": "mlp2x_gelu"},
        "init_from": str(folder / f"start_{job}"),
    }
    if job == "finetune":
        model["adapter"] = {"kind": "lora", **LORA}
    train = TRAIN[job] | {"output_dir": str(folder / f"out_mmtune_{job}"), "save_steps": 0, "device": "cpu"}
    data = {"train": [{"path": str(folder / f"{job}.json")}], "max_length": 2048}
    return {"model": model, "data": data, "train": train}


def _write_start(folder: Path, job: str) -> Parts:
    """Write the run folder that mmtune starts a job from, with the weights that PyTorch and PEFT draw by the seed."""
    config = load_config(folder / f"mmtune_{job}.yaml", [], job)
    torch.manual_seed(SEED)
    parts = build_parts(config.model, torch.device("cpu"))
    if job == "finetune":  # both jobs start from one projector
        pretrain = load_config(folder / "mmtune_pretrain.yaml", [], "pretrain")
        torch.manual_seed(SEED)
        projector: Any = build_parts(pretrain.model, torch.device("cpu")).model.projector
        assert parts.model.projector is not None
        parts.model.projector.load_state_dict(projector.state_dict())
    start = folder / f"start_{job}"
    write_settings(start, config, job, base_models(config.model), {})
    save_weights(parts.model, start)
    write_manifest(start, steps=0)
    return parts


def _write_expected(folder: Path, job: str) -> None:
    """Write the records in mmtune's order, and what a tool must make of them."""
    config = load_config(folder / f"mmtune_{job}.yaml", [], job)
    dataset, report = build_dataset(config, build_reader(config.model))
    assert not report.problems, report.problems[0]
    order = list(chain.from_iterable(batch_sampler(config, dataset)))
    records = json.loads((folder / f"{job}.json").read_text(encoding="utf-8"))
    by_image = {record["image"]: record for record in records}
    samples = [dataset.sample(number) for number in order]
    write_json(folder / f"{job}_ordered.json", [by_image[sample.images[0]] for sample in samples])
    image_id = load_tokenizer(str(folder / "llm")).convert_tokens_to_ids(IMAGE_TOKEN)
    ids = np.concatenate([sample.input_ids for sample in samples])
    assert image_id not in ids, f"{IMAGE_TOKEN} occurs in the texts"
    ids[ids == IMAGE_TOKEN_ID] = image_id
    labels = np.concatenate([sample.labels for sample in samples])
    lengths = np.array([len(sample.input_ids) for sample in samples])
    pixels = np.concatenate([dataset.pixel_values(number).numpy() for number in order[:BATCH_SIZE]])
    np.savez(folder / f"{job}_expected.npz", ids=ids, labels=labels, lengths=lengths, pixels=pixels)
    texts, supervised = lengths - 256, int((labels != IGNORE_INDEX).sum())
    print(f"{job}: {len(lengths)} samples, {lengths.mean():.0f} tokens, {supervised / len(lengths):.0f} supervised;")
    print(f"  text tokens {texts.min()} to {texts.max()}, median {np.median(texts):.0f}; order {order[:8]} ...")


if __name__ == "__main__":
    main()
