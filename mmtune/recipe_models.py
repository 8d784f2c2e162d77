"""The steps of a recipe that make something of trained runs: `merge`, `eval` and `export`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from mmtune.run_folder import write_manifest


@dataclass
class MergeConfig:
    """What the `merge` step does; see `mmtune.merge.merge_runs`."""

    runs: list[str] = MISSING  # run folders on the same base models
    weights: list[float] | None = None  # one a run; None: all the same, in sum 1
    combination: str | None = None  # PEFT's combination_type; None: cat for LoRA, linear for IA3
    density: float | None = None  # share of the values kept, for ties, dare and magnitude_prune
    svd_rank: int | None = None  # rank of the result, for svd
    majority_sign_method: str | None = None  # how ties decides on signs: total or frequency


@dataclass
class EvalConfig:
    """What the `eval` step asks; see `mmtune.evaluate.benchmarks.run.Evaluation`."""

    run: str = MISSING  # a run folder or a checkpoint
    benchmark: str = MISSING  # a key of mmtune.evaluate.benchmarks.table.BENCHMARKS
    data: str = MISSING  # its files in the published layout
    image_folder: str | None = None  # None: the benchmark's own place
    limit: int | None = None  # so many questions drawn at random; None: all
    seed: int = 0
    instruction: str | None = None  # what stands behind each question; None: the benchmark's own
    max_new_tokens: int = 128
    batch_size: int = 32


@dataclass
class ExportConfig:
    """What the `export` step writes; see `mmtune.export.formats.export_run`."""

    run: str = MISSING  # a run folder or a checkpoint
    format: str = MISSING  # a key of mmtune.export.formats.FORMATS
    dtype: str | None = None  # of the weights; None: the run's
    base: str = "dequantized"  # of a quantized run, what its adapter is merged into: dequantized or original
    layout: str = "llama"  # llama or internlm2 names; for merged


def merge(folder: Path, config: MergeConfig) -> None:
    """Merge runs into a run folder."""
    from mmtune.merge import merge_runs
    from mmtune.models.combining import Combination

    shutil.rmtree(folder, ignore_errors=True)
    how = Combination(config.combination, config.density, config.svd_rank, config.majority_sign_method)
    print(merge_runs(config.runs, folder, config.weights, how))


def evaluate(folder: Path, config: EvalConfig) -> None:
    """Score a run on a benchmark; answers that are there are kept."""
    from rich.console import Console

    from mmtune.evaluate.benchmarks import run
    from mmtune.evaluate.benchmarks.report import print_report

    wanted = run.Evaluation(
        run=Path(config.run),
        name=config.benchmark,
        data=Path(config.data),
        output=folder,
        image_folder=None if config.image_folder is None else Path(config.image_folder),
        limit=config.limit,
        seed=config.seed,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        instruction=config.instruction,
    )
    report = run.evaluate(wanted)
    assert report is not None, "one process alone runs a recipe"
    write_manifest(folder)
    print_report(report, Console())


def export(folder: Path, config: ExportConfig) -> None:
    """Export a run, and compare the export with it."""
    from mmtune.export.formats import export_run

    shutil.rmtree(folder, ignore_errors=True)
    parity = export_run(
        Path(config.run), config.format, folder, dtype=config.dtype, base=config.base, layout=config.layout
    )
    write_manifest(folder)
    print(f"{folder}: {parity}")
