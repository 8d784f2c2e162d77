"""`mmtune inspect`: see which tokens will be trained."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_0, at_least_1

DEFAULT_LLM, DEFAULT_TEMPLATE = "smollm2-135m-instruct", "chatml"


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "inspect",
        help="show samples as they will be trained",
        description="Print encoded samples, supervised tokens green and all others red. Loads no language model.",
        epilog="example:\n  mmtune inspect configs/demo/finetune.yaml -n 2\n"
        "  mmtune inspect data.json --llm internlm2-chat-1_8b --template internlm2_chat --num-image-tokens 576 --json",
    )
    parser.add_argument("source", metavar="CONFIG|DATA_FILE", help="a training config, or a data file")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
    parser.add_argument("--llm", metavar="FOLDER", help=f"whose tokenizer ({DEFAULT_LLM}; a config names its own)")
    parser.add_argument(
        "--template", metavar="NAME", help=f"the chat template ({DEFAULT_TEMPLATE}; a config names its own)"
    )
    parser.add_argument(
        "--num-image-tokens", type=at_least_0, metavar="N", help="ids an image takes (576; a config knows its own)"
    )
    parser.add_argument("--max-length", type=at_least_1, metavar="N", help="where samples are cut (2048)")
    parser.add_argument("-n", "--num-samples", type=at_least_1, metavar="N", help="how many (3; all with --json)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: line, input_ids, labels, images")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inspect."""
    from itertools import islice

    from rich.console import Console

    from mmtune.build import inspect_samples
    from mmtune.evaluate.inspect import sample_json, sample_text, sample_title

    config = _config(args)
    tokenizer, samples = inspect_samples(config, args.num_image_tokens)
    limit = args.num_samples if args.num_samples is not None else None if args.json else 3
    console = Console(soft_wrap=True)
    for sample in islice(samples, limit):
        if args.json:
            print(sample_json(sample))
        else:
            console.print(sample_title(sample), style="bold", highlight=False)
            console.print(sample_text(sample, tokenizer))
    return 0


def _config(args: argparse.Namespace) -> Any:
    """Return the config to inspect: the one named, or one made for the data file named."""
    from pathlib import Path

    from mmtune.config import load_config
    from mmtune.errors import ConfigError
    from mmtune.schema import Config, DataSource
    from mmtune.shipped import find_config, shipped_configs

    is_config = args.source.endswith((".yaml", ".yml")) or (
        args.source in shipped_configs() and not Path(args.source).is_file()
    )
    if is_config:
        config = load_config(find_config(args.source), args.overrides, "sft")
    elif args.overrides:
        message = "a data file has no keys to set. Name a config, or take --llm, --template and --max-length."
        raise ConfigError(f"command line: {args.overrides[0]}", message)
    else:
        config = Config()
        config.model.llm.name_or_path, config.model.llm.chat_template = DEFAULT_LLM, DEFAULT_TEMPLATE
        config.data.train = [DataSource(path=args.source)]
        if args.num_image_tokens is None:
            args.num_image_tokens = 576
    config.model.llm.name_or_path = args.llm or config.model.llm.name_or_path
    config.model.llm.chat_template = args.template or config.model.llm.chat_template
    config.data.max_length = args.max_length or config.data.max_length
    return config
