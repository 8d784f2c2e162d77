"""Run one job of the race in LLaMA-Factory, through `run_exp` as its command does. Runs in its own environment.

    runs/race/env/llamafactory/bin/python tests/benchmarks/race/run_llamafactory.py finetune --folder runs/race/work \\
        --output llamafactory.json

Settings: fp32, no gradient checkpointing (its default would recompute), fused AdamW, no evaluation, no accuracy, no
shuffling. Its packing is left off: packs are other batches than those of the race. Its templates supervise all that
stands in an answer, so the line end behind `<|im_end|>` is left out: a token less a sample than the other tools have.
"""

import importlib.machinery
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

if importlib.util.find_spec("torchaudio") is None:
    # LLaMA-Factory imports it for audio, and its wheel loads beside CUDA alone. No record here has audio.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

# isort: split
from llamafactory.data.formatter import StringFormatter
from llamafactory.data.mm_plugin import get_mm_plugin
from llamafactory.data.template import register_template
from llamafactory.train.tuner import run_exp
from measure import compare_batches, install_clock, run_arguments, write_result
from peer_model import IMAGE_TOKEN
from settings import LORA, TRAIN, WARMUP


def main() -> None:
    """Train, then compare the batches with mmtune's."""
    args = run_arguments(__doc__)
    clock = install_clock(args)
    register_template(
        name="race",
        format_user=StringFormatter(slots=["<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"]),
        format_assistant=StringFormatter(slots=["{{content}}<|im_end|>"]),
        mm_plugin=get_mm_plugin(name="llava", image_token=IMAGE_TOKEN),
    )
    with tempfile.TemporaryDirectory() as output:
        _write_data(args.folder, args.job, Path(output))
        run_exp(_settings(args.folder, args.job, output))
        facts = compare_batches(clock.batches, args.folder, args.job, has_separator=False)
    settings = "fp32, no gradient checkpointing, fused AdamW, no packing, no shuffling; a token less a sample"
    write_result(args.output, "llamafactory", args.job, clock, settings=settings, **facts)


def _write_data(folder: Path, job: str, output: Path) -> None:
    """Write the records in ShareGPT's form, in mmtune's order, and the file that describes them."""
    records = json.loads((folder / f"{job}_ordered.json").read_text(encoding="utf-8"))
    rows = [{**record, "images": [str(folder / record["image"])]} for record in records]
    (output / "race.json").write_text(json.dumps(rows), encoding="utf-8")
    columns = {"messages": "conversations", "images": "images"}
    facts = {"race": {"file_name": "race.json", "formatting": "sharegpt", "columns": columns}}
    (output / "dataset_info.json").write_text(json.dumps(facts), encoding="utf-8")


def _settings(folder: Path, job: str, output: str) -> dict[str, Any]:
    method: dict[str, Any] = {
        "finetuning_type": "full",
        "freeze_vision_tower": True,
        "freeze_language_model": True,
        "freeze_multi_modal_projector": False,
    }
    if job == "finetune":
        method = {
            "finetuning_type": "lora",
            "adapter_name_or_path": str(folder / "lora"),
            "lora_rank": LORA["r"],
            "lora_alpha": LORA["lora_alpha"],
            "lora_dropout": LORA["lora_dropout"],
        }
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "llava"),
        "template": "race",
        "dataset": "race",
        "dataset_dir": output,
        "output_dir": str(Path(output) / "run"),
        "cutoff_len": 2048,
        "disable_shuffling": True,
        "disable_gradient_checkpointing": True,
        "flash_attn": "sdpa",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "warmup_steps": WARMUP,
        **TRAIN[job],
        **method,
    }


if __name__ == "__main__":
    main()
