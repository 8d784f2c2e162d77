"""`mmtune export`: load a run, ask it, write it in a format, read that back and compare."""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmtune.build import Parts
from mmtune.errors import CheckpointError, ConfigError
from mmtune.export import adapter, gguf, hf_llava, merged, xtuner
from mmtune.export.output import add_facts, folder_size, prepare_output, use_default_modes
from mmtune.export.parity import Parity, Probe, logits_of_parts, make_probes
from mmtune.export.source import BASES, Source, open_run, require_mergeable, unquantized_parts
from mmtune.lookup import lookup
from mmtune.models.device import exact_convolutions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """What a format does.

    Attributes:
        check: refuses a run that the format cannot hold, before anything is written.
        write: writes the export. It may change the source's parts.
        read_back: asks the export by another library.
        keeps_quantization: the adapter stays apart, so that a quantized run needs no 16-bit base.
    """

    check: Callable[[Source], None]
    write: Callable[[Source, Path], None]
    read_back: Callable[[Source, Path, list[Probe]], Parity]
    keeps_quantization: bool = False


FORMATS: dict[str, Format] = {
    "hf-llava": Format(hf_llava.check, hf_llava.write, hf_llava.read_back),
    "merged": Format(merged.check, merged.write, merged.read_back),
    "adapter": Format(adapter.check, adapter.write, adapter.read_back, keeps_quantization=True),
    "xtuner": Format(xtuner.check, xtuner.write, xtuner.read_back),
    "gguf": Format(gguf.check, gguf.write, gguf.read_back),
}


def export_run(
    run: Path | str,
    format_name: str,
    output: Path | str,
    *,
    llm: str | None = None,
    vision: str | None = None,
    dtype: str | None = None,
    base: str = "dequantized",
    layout: str = "llama",
    overwrite: bool = False,
) -> Parity:
    """Export a run and check the export against it.

    Args:
        run: a run folder or a checkpoint.
        format_name: a key of `FORMATS`.
        output: the folder to write.
        llm: where the base language model is now, if it moved.
        vision: where the vision encoder is now, if it moved.
        dtype: of the weights; None takes the run's.
        base: for a quantized run, what its adapter is merged into: `dequantized` or `original` weights.
        layout: `llama` or `internlm2` names; for `merged`.
        overwrite: replace an export that is there.

    Returns:
        How far the answers of the export are from those of the run.

    Raises:
        MMTuneError: the format cannot hold the run, the folder is not empty, or the export, which is kept then,
            answers otherwise.
    """
    run, output, chosen = Path(run), Path(output), lookup(FORMATS, format_name, "--format")
    if layout != "llama" and format_name != "merged":
        raise ConfigError("--layout", f"{layout} is a layout of --format merged, not of {format_name}. Leave it out.")
    source = open_run(run, llm=llm, vision=vision, dtype=dtype, base=base, layout=layout)
    if format_name != "adapter":
        require_mergeable(source, format_name)
    chosen.check(source)
    facts = {"format": format_name, "run": str(run), "dtype": str(source.dtype).removeprefix("torch.")}
    prepare_output(output, facts, overwrite=overwrite)
    with exact_convolutions():
        parity = _write_and_compare(source, chosen, output)
    if not parity.holds:
        raise CheckpointError(output, f"does not answer as {run} does: {parity}. It is kept; do not use it.")
    return parity


def _write_and_compare(source: Source, chosen: Format, output: Path) -> Parity:
    started = time.monotonic()
    if source.is_quantized and not chosen.keeps_quantization:
        add_facts(output, base=source.base, largest_logit_differences=_choose_base(source))
    probes = make_probes(source.parts)
    chosen.write(source, output)
    use_default_modes(output)
    log.info("%s: %.1f MB in %.1f s", output, folder_size(output) / 1e6, time.monotonic() - started)
    source.parts.model.llm = source.parts.model.base_llm
    gc.collect()
    parity = chosen.read_back(source, output, probes)
    add_facts(output, parity=str(parity))
    return parity


def _choose_base(source: Source) -> dict[str, float]:
    """Put a quantized run on the base that was chosen; say and return how far the bases are apart."""
    probes = make_probes(source.parts)
    bits = source.bits
    logits = {bits: [probe.logits for probe in probes]}
    chosen: Parts | None = None
    for base in sorted(BASES, key=lambda name: name == source.base):  # the chosen one last: it is kept
        chosen = None  # the first base goes before the second comes: each is a whole 16- or 32-bit model
        gc.collect()
        chosen = unquantized_parts(source, base)
        logits[base] = [logits_of_parts(chosen, probe) for probe in probes]
    assert chosen is not None
    source.parts = chosen
    found = {}
    for one, other in (("dequantized", bits), ("original", bits), ("original", "dequantized")):
        differences = [(a - b).abs() for a, b in zip(logits[one], logits[other], strict=True)]
        largest = max(float(difference.max()) for difference in differences)
        mean = sum(float(difference.mean()) for difference in differences) / len(differences)
        log.info("%s base against %s: logits differ by at most %.2e, mean %.2e", one, other, largest, mean)
        found[f"{one} against {other}"] = largest
    return found
