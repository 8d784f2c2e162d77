"""A plan as text of at most 80 columns, as a few lines for a run, and as plain values."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table

from mmtune.schema import Config
from mmtune.schema_train import batch_size_of
from mmtune.sizes import gib, in_gib
from mmtune.training.plan import PartBytes, Plan
from mmtune.training.start_table import WIDTH, short_number

LABELS = {
    "buckets": {"cuda": "buckets, gathered weights", "cpu": "buckets, gathered weights"},
    "overhead": {"cuda": "CUDA context, workspace, fragments", "cpu": "Python and its libraries"},
    "vision": {"cuda": "images and the vision encoder", "cpu": "images and the vision encoder"},
}


def plan_table(plan: Plan) -> str:
    """Return both tables: what each part keeps all the time, and what is there at the peak of a step."""
    return f"{_parts_table(plan.parts)}\n\n{_peak_table(plan)}"


def _parts_table(parts: tuple[PartBytes, ...]) -> str:
    rows = [
        (
            part.name,
            short_number(part.size.num_weights),
            short_number(part.size.num_trained) if part.size.num_trained else "",
            part.size.dtypes,
            *(
                in_gib(value) if value else ""
                for value in (part.weights, part.constants, part.gradients, part.optimizer)
            ),
        )
        for part in parts
    ]
    titles = ("part", "parameters", "trained", "dtype", "weights", "constants", "gradients", "optimizer")
    return _table(titles, rows, left=(0, 3))


def _peak_table(plan: Plan) -> str:
    rows = []
    for name, size in plan.components.items():
        label = LABELS[name][plan.target.kind] if name in LABELS else name
        if size:
            rows.append((label, in_gib(size)))
    rows.append(("all", in_gib(plan.total)))
    where = " on each device" if plan.target.spread.num_devices > 1 else ""
    if plan.held.main_memory:
        rows.append(("beside it, in the machine's memory", in_gib(plan.held.main_memory)))
    return _table((f"at the peak of a step{where}", "GiB"), rows, left=(0,))


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: tuple[int, ...]) -> str:
    """A table of plain letters: lines that are drawn are two columns wide in some terminals of East Asia."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, title in enumerate(titles):
        side: JustifyMethod = "left" if number in left else "right"
        table.add_column(title, justify=side)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def batch_line(plan: Plan, is_measured: bool) -> str:
    """Say what the longest batch is, and whether the data has it or it is assumed."""
    lengths, images = plan.batch.lengths, plan.batch.num_images
    shape = f"{len(lengths)} x {lengths[0]}" if len(set(lengths)) == 1 else f"{len(lengths)} rows, {sum(lengths)}"
    seen = f", {images} image{'s' * (images != 1)}" if images else ""
    where = "as the data has it" if is_measured else "assumed: full rows of data.max_length"
    return f"longest batch: {shape} tokens{seen} ({where})"


def checkpointing_line(plan: Plan) -> str:
    """Say how many blocks are computed again."""
    number = plan.num_checkpointed
    return f"gradient checkpointing: {number} of {plan.num_blocks} blocks" if number else "gradient checkpointing: off"


def verdict(plan: Plan) -> str:
    """Say whether it fits, and by how much."""
    need, memory = gib(plan.total), plan.target.memory
    if memory is None:
        return f"needs {need} on {plan.target.name}; none is here, so --gpu-memory says whether it fits"
    if plan.fits:
        return f"fits on {plan.target.name}: needs {need}, {gib(memory - plan.total)} are left"
    return f"does not fit on {plan.target.name}: needs {need}, {gib(plan.total - memory)} too much"


def run_lines(plan: Plan, free: int, loaded: int) -> list[str]:
    """Return what a run says of its memory before its first step.

    Args:
        plan: of the run.
        free: bytes that it may still take.
        loaded: bytes of it that are there already.
    """
    parts = [f"{name} {in_gib(size)}" for name, size in plan.components.items() if size and name != "overhead"]
    more = max(plan.allocated - loaded, 0)
    tokens, images = plan.batch.num_tokens, plan.batch.num_images
    return [
        f"memory at the longest batch, {tokens} tokens and {images} images (estimated): {in_gib(plan.allocated)} GiB",
        f"  {', '.join(parts)}",
        f"  {in_gib(more)} GiB more than now; {in_gib(free)} GiB are free",
    ]


def plan_values(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values for JSON, sizes in bytes."""
    return {
        "target": {
            "kind": plan.target.kind,
            "name": plan.target.name,
            "memory_bytes": plan.target.memory,
            "devices": plan.target.spread.num_devices,
            "spread": plan.target.spread.name,
        },
        "parts": {
            part.name: {
                "parameters": part.size.num_weights,
                "trained": part.size.num_trained,
                "weights_bytes": part.weights,
                "constants_bytes": part.constants,
                "gradients_bytes": part.gradients,
                "optimizer_bytes": part.optimizer,
            }
            for part in plan.parts
        },
        "longest_batch": {"lengths": list(plan.batch.lengths), "images": plan.batch.num_images},
        "checkpointed_blocks": plan.num_checkpointed,
        "blocks": plan.num_blocks,
        "peak_bytes": dict(plan.components),
        "total_bytes": plan.total,
        "main_memory_bytes": plan.held.main_memory,
        "fits": plan.fits,
        "estimated": True,
    }


def split_values(config: Config) -> dict[str, int]:
    """Return how an optimizer step is split into batches."""
    return {
        "per_device_train_batch_size": batch_size_of(config),
        "gradient_accumulation_steps": config.train.gradient_accumulation_steps,
    }
