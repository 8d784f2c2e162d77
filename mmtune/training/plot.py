"""The picture of a run's loss, drawn from the lines of its log, and which of many points are shown."""

from pathlib import Path
from typing import Any

from mmtune.durable import written_beside

PLOT_FILE = "loss.png"
MOST_POINTS = 2000
FEW_POINTS = 20
SHARE_SMOOTHED = 0.02
"""Of all points, those that the running mean spans; at least `LEAST_SMOOTHED`."""
LEAST_SMOOTHED = 10
PALE, STRONG, HELD_OUT = "#9db8d9", "#1f4e8c", "#c4552d"


def plot_loss(entries: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draw the loss over the steps: each step pale, a running mean strong, held-out losses as points.

    Nothing is drawn where there is no loss. The file is written beside and then renamed.

    Args:
        entries: lines of the log; those without `loss` or `eval_loss` do not count.
        path: a PNG file.
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    trained, held_out = points(entries, "loss"), points(entries, "eval_loss")
    if not trained:
        return
    means = running_mean([loss for _, loss in trained])
    kept = drawn_places(len(trained), MOST_POINTS)
    steps = [trained[number][0] for number in kept]
    figure = Figure(figsize=(7.2, 4.0), dpi=130, layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(kept) < FEW_POINTS else None  # one point alone makes no line
    losses = [trained[number][1] for number in kept]
    axes.plot(steps, losses, color=PALE, linewidth=0.8, marker=marker, markersize=3, label="each step")
    axes.plot(steps, [means[number] for number in kept], color=STRONG, linewidth=1.8, label="running mean")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=HELD_OUT, marker="o", markersize=4, linewidth=1, label="held out")
    axes.set(xlabel="optimizer step", ylabel="loss per supervised token", title=title)
    axes.set_ylim(0, 1.05 * max(loss for _, loss in (*trained, *held_out)) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with written_beside(path) as beside:
        figure.savefig(beside, format="png")


def drawn_places(number: int, most: int) -> list[int]:
    """Return which of a number of points a line is drawn through, about `most`: every so many, and the last."""
    return sorted({*range(0, number, -(-number // most)), number - 1})


def points(entries: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Return step and value of each line that has a value; a loss that was not finite is null there."""
    return [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]


def running_mean(values: list[float]) -> list[float]:
    """Return the exponential mean up to each value; as many as `SHARE_SMOOTHED` of all weigh in."""
    weight = 2 / (max(LEAST_SMOOTHED, SHARE_SMOOTHED * len(values)) + 1)
    means, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = mean + weight * (value - mean), total + weight * (1 - total)
        means.append(mean / total)  # as if what lies before the first value had no weight
    return means
