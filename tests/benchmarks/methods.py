"""Every tuning method on the models of the quick demo: what it costs and what it brings.

    python tests/benchmarks/methods.py --demo runs/demo --output runs/methods   # after `make demo`; about an hour
    python tests/benchmarks/methods.py --demo runs/demo --output runs/methods --steps 2 --questions 8   # to try it

Stage 2 of the demo from the same pretrained projector, once a method, each a process of its own; then held-out
questions with the right image and with a swapped one, and text questions that the base model answers right. Writes
`methods.json` and `table.md`; methods that are in `methods.json` already are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RATE = "model.llm.learning_rate="


def adapter(text: str, rate: str) -> tuple[str, ...]:
    """Return the overrides of an adapter and the learning rate of the language model."""
    return f"model.adapter={{{text}}}", RATE + rate


def tune(text: str, rate: str) -> tuple[str, ...]:
    """Return the overrides of a value of `model.llm.tune` without an adapter."""
    return "model.adapter=null", f"model.llm.tune={text}", RATE + rate


METHODS: dict[str, tuple[str, ...]] = {
    "lora": adapter("kind: lora, r: 8, lora_alpha: 16", "6e-4"),
    "qlora (nf4)": (*adapter("kind: qlora, r: 8, lora_alpha: 16", "6e-4"), "model.llm.quantization=nf4"),
    "qlora (int8)": (*adapter("kind: qlora, r: 8, lora_alpha: 16", "6e-4"), "model.llm.quantization=int8"),
    "dora": adapter("kind: dora, r: 8, lora_alpha: 16", "6e-4"),
    "rslora": adapter("kind: rslora, r: 8, lora_alpha: 16", "3e-4"),
    "pissa": adapter("kind: pissa, r: 8, lora_alpha: 8", "3e-4"),
    "olora": adapter("kind: olora, r: 8, lora_alpha: 8", "1e-4"),
    "loraplus": adapter("kind: loraplus, r: 8, lora_alpha: 16", "2e-4"),
    "adalora": adapter("kind: adalora, init_r: 12, target_r: 8, deltaT: 2, lora_alpha: 32", "2e-3"),
    "ia3": adapter("kind: ia3", "1e-2"),
    "vera": adapter("kind: vera, r: 256", "1e-2"),
    "oft": adapter("kind: oft, oft_block_size: 32", "6e-4"),
    "boft": adapter("kind: boft, boft_block_size: 8, boft_n_butterfly_factor: 1", "6e-4"),
    "loha": adapter("kind: loha, r: 8, alpha: 16", "1e-3"),
    "lokr": adapter("kind: lokr, r: 8, alpha: 16", "1e-3"),
    "miss": adapter("kind: miss, r: 16", "3e-4"),
    "ln_tuning": adapter("kind: ln_tuning", "3e-3"),
    "houlsby": adapter("kind: houlsby, bottleneck_size: 32", "1e-3"),
    "prompt_tuning": adapter("kind: prompt_tuning, num_virtual_tokens: 20", "1e-2"),
    "p_tuning": adapter("kind: p_tuning, num_virtual_tokens: 20, encoder_hidden_size: 128", "1e-3"),
    "prefix_tuning": adapter(
        "kind: prefix_tuning, num_virtual_tokens: 20, prefix_projection: true, encoder_hidden_size: 128", "1e-3"
    ),
    "p_tuning_v2": adapter("kind: p_tuning_v2, num_virtual_tokens: 20", "5e-3"),
    "full": tune("full", "5e-5"),
    "top 10 layers": tune("{top_layers: 10}", "1e-4"),
    "bottom 20 frozen, gradual": tune("{top_layers: 10, unfreeze_every_steps: 4}", "1e-4"),
    "norms by name": tune("['*norm*']", "3e-3"),
    "projector alone": tune("frozen", "6e-4"),
}
"""What is measured: name -> overrides. Rates are those usual for a method, not searched for."""

COLUMNS = ("method", "trained in the LLM", "weights on disk", "s per step", "peak GiB", "image", "swapped", "text kept")


def main() -> int:
    """Measure every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="a finished quick demo (runs/demo)")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"), help="where results go (runs/methods)")
    parser.add_argument("--steps", type=int, default=48, help="optimizer steps of each run (48)")
    parser.add_argument("--questions", type=int, default=120, help="held-out questions with an image (120)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), help="these methods alone")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "methods.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.only:
        if name not in results:
            print(f"--- {name}", flush=True)
            results[name] = measure(name, args)
            path.write_text(json.dumps(results, indent=2))
    (args.output / "table.md").write_text(table(results))
    print(table(results))
    return 0


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one method and ask its run."""
    folder = args.output / "".join(letter if letter.isalnum() else "_" for letter in name)
    data = [f"model.init_from={args.demo}/pretrain", f"data.train.0.path={args.demo}/data/dialogues.json"]
    run = [f"train.output_dir={folder}", f"train.max_steps={args.steps}", "train.save_steps=0"]
    command = [sys.executable, "-m", "mmtune", "finetune", "demo/finetune", *data, *run, *METHODS[name], "--overwrite"]
    subprocess.run(command, check=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    speeds = [line["speed"] for line in lines[1:] or lines]
    return {
        "trained": count_trained(folder),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        "seconds_per_step": statistics.median(speed["seconds_per_step"] for speed in speeds),
        "peak_memory_bytes": max(speed["peak_memory_bytes"] for speed in speeds),
        "loss": statistics.mean(line["loss"] for line in lines[-8:]),
    } | ask(folder, args)


def count_trained(folder: Path) -> int:
    """Count the trained numbers of the language model by building the run as training did."""
    import torch

    from mmtune.build import build_parts
    from mmtune.run_folder import read_config

    model = build_parts(read_config(folder).model, torch.device("cpu")).model
    return sum(value.numel() for value in model.llm.parameters() if value.requires_grad)


def ask(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the shares of right answers with the image and with a swapped one, and of text answers kept."""
    from mmtune.chat.generate import Decoding
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.questions import read_questions, spread
    from mmtune.evaluate.scores import ALL_GROUPS, retention, score

    seen = read_questions(str(args.demo / "data" / "heldout_questions.json"), None)
    chosen = [seen[number] for number in spread(range(len(seen)), args.questions)]
    decoding, found = Decoding(max_new_tokens=20), {}
    seeing = compare_models([str(folder)], chosen, controls=("shuffled",), decoding=decoding, batch_size=64)
    for row in score(seeing):
        if row["group"] == ALL_GROUPS:
            found[row["condition"]] = row["rate"]
    text = read_questions(str(args.demo / "data" / "text_questions.json"), None)[: args.questions]
    kept = retention(compare_models(["base", str(folder)], text, decoding=decoding, batch_size=64))
    assert kept is not None
    return {"image": found["image"], "shuffled": found["shuffled"], "kept": kept["kept"], "of": kept["of"]}


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name, row in results.items():
        cells = (
            name, f"{row['trained']:,}", f"{row['bytes'] / 1e6:.1f} MB", f"{row['seconds_per_step']:.2f}",
            f"{row['peak_memory_bytes'] / 2**30:.2f}", f"{row['image']:.0%}", f"{row['shuffled']:.0%}",
            f"{row['kept']} of {row['of']}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
