"""Run one job of the race in ms-swift, through `sft_main` as its command does. Runs in its own environment.

    runs/race/env/swift/bin/python tests/benchmarks/race/run_swift.py finetune --folder runs/race/work \\
        --output swift.json

Settings: fp32, no gradient checkpointing (its default would recompute), fused AdamW, logits from the first supervised
position on (`use_logits_to_keep`), no evaluation, no shuffling. It refuses packing and padding-free batches for this
model, and has no setting that leaves out its token accuracy. Its templates supervise all that closes an answer, so the
line end behind `<|im_end|>` is left out: a token less a sample than mmtune and TRL have.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from measure import compare_batches, install_clock, run_arguments, write_result
from peer_model import IMAGE_TOKEN
from settings import LORA, TRAIN, WARMUP
from swift.arguments import SftArguments
from swift.pipelines import sft_main
from swift.template import TemplateMeta, register_template
from swift.template.templates.llava import LlavaHfTemplate


class RaceTemplate(LlavaHfTemplate):
    """Puts the token that stands for images in this vocabulary, and no line end behind it."""

    placeholder_tokens = [IMAGE_TOKEN]  # noqa: RUF012  (ms-swift appends to it)

    def replace_tag(self, media_type: str, index: int, inputs: Any) -> list[str]:
        """Return what stands for an image."""
        return [IMAGE_TOKEN]


def main() -> None:
    """Train, then compare the batches with mmtune's."""
    args = run_arguments(__doc__)
    clock = install_clock(args)
    prompt = "<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n"
    register_template(
        TemplateMeta("race", [], [prompt], ["<|im_end|>\n"], suffix=["<|im_end|>"], template_cls=RaceTemplate)
    )
    with tempfile.TemporaryDirectory() as output:
        sft_main(_settings(args.folder, args.job, Path(output)))
        facts = compare_batches(clock.batches, args.folder, args.job, has_separator=False)
    settings = "fp32, no gradient checkpointing, fused AdamW, use_logits_to_keep, no shuffling; a token less a sample"
    write_result(args.output, "swift", args.job, clock, settings=settings, **facts)


def _settings(folder: Path, job: str, output: Path) -> SftArguments:
    method: dict[str, Any] = {"tuner_type": "full", "freeze_llm": True, "freeze_vit": True, "freeze_aligner": False}
    if job == "finetune":
        method = {
            "tuner_type": "lora",
            "adapters": [str(folder / "lora")],
            "lora_rank": LORA["r"],
            "lora_alpha": LORA["lora_alpha"],
            "lora_dropout": LORA["lora_dropout"],
        }
    return SftArguments(
        model=str(folder / "llava"),
        model_type="llava1_5_hf",
        template="race",
        dataset=[str(_write_data(folder, job, output))],
        output_dir=str(output / "run"),
        add_version=False,
        torch_dtype="float32",
        attn_impl="sdpa",
        max_length=2048,
        split_dataset_ratio=0,
        dataset_shuffle=False,
        train_dataloader_shuffle=False,
        load_from_cache_file=False,
        gradient_checkpointing=False,
        vit_gradient_checkpointing=False,
        use_logits_to_keep=True,
        save_strategy="no",
        eval_strategy="no",
        report_to=["none"],
        dataloader_pin_memory=False,
        warmup_steps=WARMUP,
        **TRAIN[job],
        **method,
    )


def _write_data(folder: Path, job: str, output: Path) -> Path:
    """Write the records as messages, in mmtune's order."""
    path, roles = output / "race.jsonl", {"human": "user", "gpt": "assistant"}
    with path.open("w", encoding="utf-8") as file:
        for record in json.loads((folder / f"{job}_ordered.json").read_text(encoding="utf-8")):
            turns = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in record["conversations"]]
            file.write(json.dumps({"messages": turns, "images": [str(folder / record["image"])]}) + "\n")
    return path


if __name__ == "__main__":
    main()
