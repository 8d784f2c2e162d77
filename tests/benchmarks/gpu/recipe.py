"""The whole recipe on one GPU, at full size on random weights: rates, memory, scaling with the batch, hours, a profile.

    python tests/benchmarks/gpu/recipe.py --output runs/gpu            # one GPU, about half an hour
    python tests/benchmarks/gpu/recipe.py --smoke --output runs/smoke  # tiny models on the CPU, to try the script

Each case is a process of its own that runs `mmtune bench`. Writes `cases.json` and `table.md`, and `profile.txt` of one
case. Hours are those of LLaVA-1.5's 558,128 captions and 665,298 dialogues at the measured samples a second.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RECORDS = {"pretrain": 558_128, "finetune": 665_298}
PRETRAIN, FINETUNE = "pretrain/llava_internlm2_1_8b_558k", "finetune/llava_internlm2_1_8b_665k_24gb"
SMALL = "finetune/llava_internlm2_1_8b_665k_8gb"
BF16 = ("model.llm.quantization=null",)
PLAIN = ("train.gradient_accumulation_steps=1", "train.gradient_checkpointing=false", "data.group_by_length=false")

CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "pretrain, bf16": ("pretrain", PRETRAIN, (*BF16, *PLAIN)),
    "pretrain, NF4": ("pretrain", PRETRAIN, PLAIN),
    "finetune, bf16 LoRA": ("finetune", FINETUNE, (*BF16, *PLAIN, "train.per_device_train_batch_size=8")),
    "finetune, NF4 LoRA": ("finetune", FINETUNE, (*PLAIN, "train.per_device_train_batch_size=8")),
    "finetune, 8 GB preset, 2,048 tokens": (
        "finetune", SMALL, ("train.gradient_accumulation_steps=2", "data.group_by_length=false",
        "data.pack_to_max_length=true"),
    ),
    **{
        f"finetune, bf16 LoRA, batch {size}": (
            "finetune", FINETUNE, (*BF16, *PLAIN, f"train.per_device_train_batch_size={size}"),
        )
        for size in (1, 2, 4, 16)
    },
}  # fmt: skip
"""What is measured: name -> verb, preset, overrides."""

PROFILE = """
import sys
from torch.profiler import ProfilerActivity, profile
from mmtune.cli import main
with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
    main(sys.argv[2:])
order = "self_cuda_time_total" if "--cuda" == sys.argv[1] else "self_cpu_time_total"
print(prof.key_averages().table(sort_by=order, row_limit=30))
"""


def main() -> int:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="where results go (runs/gpu)")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps that count (8)")
    parser.add_argument("--smoke", action="store_true", help="tiny models on the CPU, one step")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    changes, steps = (tiny_models(args.output), 1) if args.smoke else ((), args.steps)
    results = {}
    for name, (verb, preset, overrides) in CASES.items():
        target = args.output / "case.json"
        command = [
            "bench",
            preset,
            *overrides,
            *changes,
            "--steps",
            str(steps),
            "--random-weights",
            "--json",
            str(target),
        ]
        done = subprocess.run([sys.executable, "-m", "mmtune", *command], capture_output=True, text=True)
        if done.returncode:
            results[name] = {"verb": verb, "error": done.stderr.splitlines()[-1]}
            print(f"{name}: {results[name]['error']}", flush=True)
            continue
        results[name] = {"verb": verb, **json.loads(target.read_text(encoding="utf-8"))}
        print(f"{name}: {results[name]['figures']['samples_per_second']:.2f} samples/s", flush=True)
    (args.output / "cases.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (args.output / "table.md").write_text(table(results), encoding="utf-8")
    print(table(results))
    write_profile(args.output, changes, "--cpu" if args.smoke else "--cuda")
    return 0


def tiny_models(folder: Path) -> tuple[str, ...]:
    """Write tiny models; return the overrides that name them."""
    from mmtune.testing import write_tiny_clip, write_tiny_llm

    llm = write_tiny_llm(folder / "llm", hidden_size=64, intermediate_size=128, num_key_value_heads=4)
    clip = write_tiny_clip(folder / "clip")
    names = (f"model.llm.name_or_path={llm}", f"model.vision.name={clip}", "model.llm.chat_template=chatml")
    return (*names, "model.llm.quantization=null", "train.optim=adamw_torch", "train.device=cpu", "data.max_length=512")


def table(results: dict[str, dict]) -> str:
    """Return the results as a Markdown table, hours of the whole recipe included."""
    lines = [
        "| case | samples/s | tokens/s | of the matmul rate | peak memory, GiB | hours for the set |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        if "error" in result:
            lines.append(f"| {name} | {result['error']} | | | | |")
            continue
        figures = result["figures"]
        hours = RECORDS[result["verb"]] / figures["samples_per_second"] / 3600
        lines.append(
            f"| {name} | {figures['samples_per_second']:.2f} | {figures['tokens_per_second']:.0f} "
            f"| {figures['matmul_share']:.0%} | {figures['peak_memory_bytes'] / 2**30:.2f} | {hours:.1f} |"
        )
    measured = next((result for result in results.values() if "error" not in result), None)
    if measured is not None:
        versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        lines += ["", f"{measured['device']}; {versions}."]
    return "\n".join(lines) + "\n"


def write_profile(folder: Path, changes: tuple[str, ...], order: str) -> None:
    """Profile one case; `bench` in the profiler's process."""
    _, preset, overrides = CASES["finetune, bf16 LoRA"]
    command = ["bench", preset, *overrides, *changes, "--steps", "1", "--warmup", "1", "--random-weights"]
    done = subprocess.run([sys.executable, "-c", PROFILE, order, *command], capture_output=True, text=True)
    (folder / "profile.txt").write_text(done.stdout + done.stderr, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
