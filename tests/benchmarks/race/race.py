"""Race mmtune against other tools on this machine: the same images, text, weights, LoRA, batches and epochs, in fp32.

    python tests/benchmarks/race/install_peers.py --peers trl
    python tests/benchmarks/race/race.py --folder runs/race --tools mmtune trl --rounds 3

Runs in mmtune's environment. The tools run in turns, each run a process of its own, and the matrix products of the
machine are timed around each: machines swing by several times within minutes, so ratios are those of neighbours. Rounds
that are in `results.json` already are kept; `--fresh` drops them. Written to `FOLDER/results` are `results.json`,
`table.md` and one `losses_JOB.png` a job.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from settings import JOBS
from summary import other_trainings, plot_losses, table

HERE = Path(__file__).parent
TOOLS = ("mmtune", "trl", "llamafactory", "swift")
SHAPES = ((1304, 576, 1536), (1028, 1024, 4096))
"""Rows, inner and columns: a block of the language model over 4 samples, and one of the vision tower."""


def main() -> None:
    """Run the rounds that are missing, then write tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/race"), help="of all that is written (runs/race)")
    parser.add_argument("--environments", type=Path, help="made by install_peers.py (FOLDER/env)")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=["mmtune", "trl"], help="mmtune and the peers")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="(both)")
    parser.add_argument("--rounds", type=int, default=3, help="of all tools in turn (3)")
    parser.add_argument("--samples", type=int, default=40, help="of an epoch, a multiple of 4 (40)")
    parser.add_argument("--vision", choices=("S", "L"), default="S", help="size of the vision encoder (S)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every tool (one a processor)")
    parser.add_argument("--fresh", action="store_true", help="make the workload anew and drop earlier rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny models, 8 samples, 1 round, in FOLDER/smoke")
    args = parser.parse_args()
    args.environments = (args.environments or args.folder / "env").resolve()
    if args.smoke:
        args.folder, args.rounds, args.samples = args.folder / "smoke", 1, 8
    results = race(args)
    folder = args.folder / "results"
    text = table(results, args.tools)
    (folder / "table.md").write_text(text, encoding="utf-8")
    for job in args.jobs:
        plot_losses(results, job, args.tools, folder / f"losses_{job}.png")
    print(text)
    if wrong := other_trainings(results, args.jobs, args.tools):
        raise SystemExit("not the same training as mmtune's: " + "; ".join(wrong))


def race(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of all runs, running those that are missing."""
    work, path = args.folder / "work", args.folder / "results" / "results.json"
    if args.fresh or args.smoke:
        shutil.rmtree(path.parent, ignore_errors=True)
    if args.fresh or args.smoke or not (work / "workload.json").is_file():
        size = ["--smoke"] if args.smoke else ["--samples", str(args.samples), "--vision", args.vision]
        _call([sys.executable, str(HERE / "workload.py"), "--folder", str(work), *size], args.threads)
    made = json.loads((work / "workload.json").read_text(encoding="utf-8"))
    if made["num_samples"] != args.samples:
        raise SystemExit(f"{work} holds {made['num_samples']} samples, not {args.samples}: add --fresh, or --samples.")
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(args.rounds):
        for job in args.jobs:
            for tool in args.tools if number % 2 == 0 else reversed(args.tools):
                if not any((run["round"], run["job"], run["tool"]) == (number, job, tool) for run in results):
                    results.append(_run(tool, job, work, args) | {"round": number})
                    _require_same_training(results[-1], results)
                    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def _run(tool: str, job: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    python = sys.executable if tool == "mmtune" else str(args.environments / tool / "bin" / "python")
    output = (work / f"figures_{tool}_{job}.json").resolve()
    output.unlink(missing_ok=True)
    before, started = matmul_rate(args.threads), time.strftime("%Y-%m-%d %H:%M:%S")
    command = [python, str(HERE / f"run_{tool}.py"), job, "--folder", str(work), "--output", str(output)]
    print(f"{started}  {tool} {job}: {before:.0f} GFLOP/s before", flush=True)
    _call(command, args.threads)
    result = json.loads(output.read_text(encoding="utf-8"))
    rates = {"gflops_before": before, "gflops_after": matmul_rate(args.threads)}
    print(f"  {result['samples_per_second']:.3f} samples/s, {rates['gflops_after']:.0f} GFLOP/s after", flush=True)
    return result | rates | {"started": started, "load": os.getloadavg()[0]}


def _require_same_training(run: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Stop where a tool trains other weights or other tokens than the first one did."""
    first = next(other for other in results if other["job"] == run["job"])
    for key in ("trained_parameters", "supervised_tokens", "threads"):
        if run[key] != first[key]:
            names = f"{run['tool']} has {key} {run[key]}, {first['tool']} has {first[key]}"
            raise SystemExit(f"{run['job']}: {names}. This is no race.")


def _call(command: list[str], threads: int) -> None:
    """Run a program; show what it printed only where it fails."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nfailed with {done.returncode}: {' '.join(command)}")


def matmul_rate(threads: int, seconds: float = 2.0) -> float:
    """Return GFLOP/s of fp32 matrix products of the race's shapes: what the machine gives at this moment."""
    torch.set_num_threads(threads)
    pairs = [(torch.randn(rows, inner), torch.randn(inner, columns)) for rows, inner, columns in SHAPES]
    work = sum(2 * rows * inner * columns for rows, inner, columns in SHAPES)
    for left, right in pairs:
        left @ right
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for left, right in pairs:
            left @ right
        count += 1
    return round(count * work / (time.perf_counter() - started) / 1e9, 1)


if __name__ == "__main__":
    main()
