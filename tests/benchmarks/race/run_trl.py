"""Run one job of the race in TRL's SFTTrainer. Runs in TRL's environment; imports nothing of mmtune.

    runs/race/env/trl/bin/python tests/benchmarks/race/run_trl.py finetune --folder runs/race/work --output trl.json

Settings: fp32, no gradient checkpointing (TRL's default would recompute), fused AdamW, no padding to a multiple, no
evaluation, no saving, a tokenizer that masks by `{% generation %}`. TRL refuses packing and padding-free batches for
vision data, and has no setting that leaves out its metrics (entropy, token accuracy). Without Triton, TRL projects
every position through the head, in tiles; on a GPU the supervised ones alone.
"""

import json
import tempfile

import datasets
import torch
from measure import compare_batches, install_clock, run_arguments, write_result
from peft import PeftModel
from settings import TRAIN, WARMUP
from transformers import AutoProcessor, LlavaForConditionalGeneration
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """Train, then compare the batches with mmtune's."""
    args = run_arguments(__doc__)
    clock = install_clock(args)
    processor = AutoProcessor.from_pretrained(args.folder / "llava")
    with tempfile.TemporaryDirectory() as output:
        trainer = SFTTrainer(
            model=_model(args.folder, args.job),
            args=_settings(args.job, output),
            train_dataset=_dataset(args.folder, args.job),
            processing_class=processor,
        )
        trainer.train()
        facts = compare_batches(clock.batches, args.folder, args.job)
    settings = "fp32, no gradient checkpointing, fused AdamW, assistant_only_loss, sequential order"
    write_result(args.output, "trl", args.job, clock, settings=settings, **facts)


def _model(folder, job):
    model = LlavaForConditionalGeneration.from_pretrained(folder / "llava", dtype=torch.float32)
    if job == "finetune":
        return PeftModel.from_pretrained(model, folder / "lora", is_trainable=True)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    return model


def _settings(job: str, output: str) -> SFTConfig:
    return SFTConfig(
        output_dir=output,
        **TRAIN[job],
        warmup_steps=WARMUP,
        max_length=2048,
        assistant_only_loss=True,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _dataset(folder, job) -> datasets.Dataset:
    """Return messages and images, which are opened as batches need them."""
    rows = []
    for record in json.loads((folder / f"{job}_ordered.json").read_text(encoding="utf-8")):
        asked, answer = (turn["value"] for turn in record["conversations"])
        messages = [
            {"role": "user", "content": asked.removeprefix("<image>")},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages, "images": [str(folder / record["image"])]})
    return datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))


if __name__ == "__main__":
    main()
