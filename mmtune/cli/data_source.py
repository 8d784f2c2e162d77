"""What `inspect` and `data` look at: a training config, or a data file with the settings of one."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_0, at_least_1

DEFAULT_LLM, DEFAULT_TEMPLATE, DEFAULT_IMAGE_TOKENS = "smollm2-135m-instruct", "chatml", 576


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the data and how it is read."""
    parser.add_argument("source", metavar="CONFIG|DATA", help="a training config, or a data file, folder or pattern")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
    parser.add_argument("--llm", metavar="FOLDER", help=f"whose tokenizer ({DEFAULT_LLM}; a config names its own)")
    parser.add_argument(
        "--template", metavar="NAME", help=f"the chat template ({DEFAULT_TEMPLATE}; a config names its own)"
    )
    parser.add_argument(
        "--num-image-tokens",
        type=at_least_0,
        metavar="N",
        help=f"ids an image takes ({DEFAULT_IMAGE_TOKENS}; a config knows its own)",
    )
    parser.add_argument("--max-length", type=at_least_1, metavar="N", help="where samples are cut (2048)")
    add_verb_of_config(parser)
    parser.add_argument("--format", metavar="NAME", help="the format of a data file (detected record by record)")
    parser.add_argument("--image-folder", metavar="DIR", help="what a data file's image paths start from (its folder)")


def add_verb_of_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says whose defaults a config has."""
    parser.add_argument(
        "--verb",
        dest="verb_of_config",
        choices=("pretrain", "finetune", "sft"),
        help="whose defaults a config has (told by what it holds)",
    )


def named_config(name: str, overrides: list[str], verb: str | None) -> tuple[Any, str]:
    """Return the config of a file or a shipped name, and the verb whose defaults it has.

    Args:
        name: of the config.
        overrides: `section.name=value` texts.
        verb: None takes the one that fits what the config holds.

    Raises:
        ConfigError: there is no such config, or it is wrong.
    """
    from mmtune.config import fitting_verb, load_config, to_values

    config = load_config(name, overrides, verb)
    return config, verb or fitting_verb(to_values(config))


def source_config(args: argparse.Namespace) -> Any:
    """Return the config that the arguments name: the one in the file, or one made for a data file.

    Raises:
        ConfigError: the config is wrong, or keys are set where there is no config.
    """
    from pathlib import Path

    from mmtune.errors import ConfigError
    from mmtune.schema import Config, DataSource
    from mmtune.shipped import shipped_configs

    is_config = args.source.endswith((".yaml", ".yml")) or (
        args.source in shipped_configs() and not Path(args.source).is_file()
    )
    if is_config:
        for option in ("format", "image_folder"):
            if vars(args)[option] is not None:
                message = f"a config names its own. Set data.train.0.{option}=VALUE instead."
                raise ConfigError(f"command line: --{option.replace('_', '-')}", message)
        config, _ = named_config(args.source, args.overrides, args.verb_of_config)
    elif args.overrides:
        message = "a data file has no keys to set. Name a config, or take --llm, --template and --max-length."
        raise ConfigError(f"command line: {args.overrides[0]}", message)
    else:
        config = Config()
        config.model.llm.name_or_path, config.model.llm.chat_template = DEFAULT_LLM, DEFAULT_TEMPLATE
        config.data.train = [DataSource(path=args.source, format=args.format, image_folder=args.image_folder)]
        if args.num_image_tokens is None:
            args.num_image_tokens = DEFAULT_IMAGE_TOKENS
    config.model.llm.name_or_path = args.llm or config.model.llm.name_or_path
    config.model.llm.chat_template = args.template or config.model.llm.chat_template
    config.data.max_length = args.max_length or config.data.max_length
    return config


def source_reader(args: argparse.Namespace, config: Any) -> Any:
    """Return what reads the data of `source_config`: tokenizer, template, tokens of an image."""
    from mmtune.build_data import build_reader

    reader = build_reader(config.model)
    if args.num_image_tokens is not None:
        reader.num_image_tokens = args.num_image_tokens
    return reader
