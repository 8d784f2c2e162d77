"""The figures of a benchmark as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from mmtune.sizes import gib

BAR_WIDTH = 30


def print_figures(result: dict[str, Any], console: Console) -> None:
    """Print what was measured: the rates, then where the time of a step goes."""
    figures = result["figures"]
    console.print(f"{result['device']}, torch {result['versions']['torch']}", highlight=False)
    if result["random_weights"]:
        console.print(
            f"random weights in place of {', '.join(result['random_weights'])}", highlight=False, soft_wrap=True
        )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for label, value in figure_rows(figures):
        table.add_row(label, value)
    console.print(table)
    console.print()
    parts = Table(box=None, pad_edge=False)
    for label in ("part of a step", "seconds", "share"):
        parts.add_column(label, justify="left" if label.startswith("part") else "right")
    parts.add_column()
    for part, seconds in figures["seconds"].items():
        share = seconds / figures["seconds_per_step"]
        parts.add_row(part.replace("_", " "), f"{seconds:.3f}", f"{share:.0%}", "█" * round(share * BAR_WIDTH))
    console.print(parts)


def figure_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return label and value of each rate."""
    share = figures["matmul_share"]
    return [
        ("samples/s", f"{figures['samples_per_second']:.3g}"),
        ("tokens/s, images included", f"{figures['tokens_per_second']:.4g}"),
        ("supervised tokens/s", f"{figures['supervised_tokens_per_second']:.4g}"),
        ("model GFLOP/s", f"{figures['flops_per_second'] / 1e9:.4g}"),
        ("of the matmul rate", f"{share:.0%} of {figures['matmul_flops_per_second'] / 1e9:.4g}"),
        ("padding", f"{figures['padding_share']:.1%}"),
        ("waiting for data", f"{figures['data_wait_share']:.1%}"),
        ("peak memory", gib(figures["peak_memory_bytes"])),
        ("seconds a step", f"{figures['seconds_per_step']:.3g}"),
    ]
