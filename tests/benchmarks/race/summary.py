"""Table and plots of a race's runs. Running them is `race.py`."""

from pathlib import Path
from statistics import mean, median
from typing import Any

Run = dict[str, Any]
NAMES = {"mmtune": "mmtune", "trl": "TRL", "llamafactory": "LLaMA-Factory", "swift": "ms-swift"}
COLOURS = {"mmtune": "#1f4e8c", "trl": "#d9822b", "llamafactory": "#3a8f5c", "swift": "#8a4fa3"}
PACKAGES = {"mmtune": "mmtune", "trl": "trl", "llamafactory": "llamafactory", "swift": "ms-swift"}
LIMIT_FIRST_STEP, LIMIT_MEAN = 1e-3, 1e-2


def table(runs: list[Run], tools: list[str]) -> str:
    """Return the Markdown of a race: a table a job, what was trained, versions and dates."""
    lines = []
    for job in sorted({run["job"] for run in runs}, reverse=True):
        lines += [f"**{job}**", "", *_header(), *[_row(runs, job, tool) for tool in tools if _of(runs, job, tool)], ""]
        (run, *_) = _of(runs, job, "mmtune") or [run for run in runs if run["job"] == job]
        steps, tokens = len(run["losses"]), run["tokens"] / len(run["losses"]) / 4
        lines += [
            f"{4 * steps} samples of {tokens:.0f} tokens on average in {steps} steps of 4, fp32, {_rates(runs, job)}.",
            "",
        ]
    for tool in tools:
        found = [run for run in runs if run["tool"] == tool]
        if found:
            versions = found[-1]["versions"]
            libraries = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft"))
            lines.append(f"- {NAMES[tool]} {versions[PACKAGES[tool]]} ({libraries}): {found[-1]['settings']}")
    first, last = min(run["started"] for run in runs), max(run["started"] for run in runs)
    return "\n".join([*lines, "", f"Run from {first} to {last}.", ""])


def _header() -> list[str]:
    columns = (
        "tool",
        "rounds",
        "samples/s",
        "mmtune is faster by",
        "processor s a sample",
        "memory growth, MB",
        "of mmtune's",
        "loss at step 1",
        "mean loss",
        "last loss",
        "mean difference",
    )
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def _row(runs: list[Run], job: str, tool: str) -> str:
    own = _of(runs, job, tool)
    losses, growth = own[-1]["losses"], median(run["growth_mb"] for run in own)
    processor = f"{median(run['cpu_seconds_per_sample'] for run in own):.2f}"
    cells = [NAMES[tool], str(len(own)), f"{median(run['samples_per_second'] for run in own):.3f}"]
    if tool == "mmtune" or not _of(runs, job, "mmtune"):
        cells += ["", processor, f"{growth:,.0f}", ""]
    else:
        speed, memory = _ratios(runs, job, tool, "samples_per_second"), _ratios(runs, job, tool, "growth_mb")
        spread = f" ({1 / max(speed):.2f} to {1 / min(speed):.2f})" if len(speed) > 1 else ""
        ratio = f"{median(1 / value for value in speed):.2f}x{spread}"
        cells += [ratio, processor, f"{growth:,.0f}", f"{median(memory):.2f}x"]
    cells += [f"{losses[0]:.4f}", f"{mean(losses):.4f}", f"{losses[-1]:.4f}", _loss_difference(runs, job, tool)]
    return "| " + " | ".join(cells) + " |"


def _ratios(runs: list[Run], job: str, tool: str, key: str) -> list[float]:
    """Return the tool's figure over mmtune's, round by round."""
    base = {run["round"]: run[key] for run in _of(runs, job, "mmtune")}
    return [run[key] / base[run["round"]] for run in _of(runs, job, tool) if run["round"] in base]


def loss_differences(runs: list[Run], job: str, tool: str) -> tuple[float, float, float] | None:
    """Return how far a tool's losses are from mmtune's: of step 1, of the mean, on average; None without mmtune."""
    base, own = _of(runs, job, "mmtune"), _of(runs, job, tool)
    if tool == "mmtune" or not base or not own:
        return None
    ours, theirs = base[-1]["losses"], own[-1]["losses"]
    by_step = [abs(a - b) / b for a, b in zip(theirs, ours, strict=True)]
    return by_step[0], abs(mean(theirs) - mean(ours)) / mean(ours), mean(by_step)


def _loss_difference(runs: list[Run], job: str, tool: str) -> str:
    differences = loss_differences(runs, job, tool)
    return "" if differences is None else f"{100 * differences[2]:.3f} %"


def other_trainings(runs: list[Run], jobs: list[str], tools: list[str]) -> list[str]:
    """Say which tools did not train what mmtune trained: the loss of step 1 or the mean loss differs too much."""
    found = []
    for job in jobs:
        for tool in tools:
            first, mean_difference, _ = loss_differences(runs, job, tool) or (0.0, 0.0, 0.0)
            if first > LIMIT_FIRST_STEP or mean_difference > LIMIT_MEAN:
                found.append(f"{NAMES[tool]} {job}: off by {first:.2%} at step 1, {mean_difference:.2%} in the mean")
    return found


def _rates(runs: list[Run], job: str) -> str:
    rates = [run[key] for run in runs if run["job"] == job for key in ("gflops_before", "gflops_after")]
    return f"{runs[-1]['threads']} threads, matrix products at {min(rates):.0f} to {max(rates):.0f} GFLOP/s"


def _of(runs: list[Run], job: str, tool: str) -> list[Run]:
    return [run for run in runs if run["job"] == job and run["tool"] == tool]


def plot_losses(runs: list[Run], job: str, tools: list[str], path: Path) -> None:
    """Lay the losses of all tools over each other, step by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for number, tool in enumerate(tools):
        for run in _of(runs, job, tool)[-1:]:
            losses, width = run["losses"], 1.5 + 3.5 * (len(tools) - 1 - number) / max(1, len(tools) - 1)
            axes.plot(range(1, len(losses) + 1), losses, color=COLOURS[tool], linewidth=width, label=NAMES[tool])
    axes.set(xlabel="optimizer step", ylabel="loss per supervised token", title=job)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
