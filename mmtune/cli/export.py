"""`mmtune export`: write a run as a folder that other libraries load."""

import argparse
from typing import Any

FORMATS = ("hf-llava", "merged", "adapter", "xtuner", "gguf")


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "export",
        help="write a run for transformers, PEFT, XTuner or llama.cpp",
        description="Write a run as a folder that other libraries load, and check that it answers as the run does.\n"
        "  hf-llava  the whole model for transformers' LlavaForConditionalGeneration\n"
        "  merged    the language model with its adapter merged, for transformers\n"
        "  adapter   the adapter alone, for PEFT\n"
        "  xtuner    adapter and projector in XTuner's layout\n"
        "  gguf      language model and vision encoder for llama.cpp and Ollama",
        epilog="example:\n  mmtune export runs/finetune --format hf-llava --output exports/llava",
    )
    parser.add_argument("folder", metavar="RUN", help="a run folder, or a checkpoint in it")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--output", metavar="FOLDER", help="where to write (RUN-FORMAT)")
    parser.add_argument("--layout", default="llama", choices=("llama", "internlm2"), help="names of merged weights")
    parser.add_argument(
        "--base", default="dequantized", choices=("dequantized", "original"),
        help="what the adapter of a quantized run is merged into (dequantized)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights written (that of the run)"
    )
    parser.add_argument("--llm", metavar="PATH", help="where the base language model is now, if it moved")
    parser.add_argument("--vision", metavar="PATH", help="where the vision encoder is now, if it moved")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that the folder holds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export."""
    from pathlib import Path

    from mmtune.export.formats import export_run

    folder = Path(args.folder)
    output = Path(args.output) if args.output else folder.parent / f"{folder.name}-{args.format}"
    parity = export_run(
        folder,
        args.format,
        output,
        llm=args.llm,
        vision=args.vision,
        dtype=args.dtype,
        base=args.base,
        layout=args.layout,
        overwrite=args.overwrite,
    )
    print(f"{output}: {parity}")
    return 0
