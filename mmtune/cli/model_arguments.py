"""Options that say which model answers and how: those that `chat` and `serve` share."""

import argparse
from typing import Any, Literal

from mmtune.cli.arguments import above_0, at_least_0, at_least_1, probability, temperature


def add_answering_model(parser: argparse.ArgumentParser) -> None:
    """Add the model and what changes it, but for the runs beside it."""
    parser.add_argument(
        "folder", metavar="RUN", help="a run folder or a checkpoint in it; a language model; an hf-llava export"
    )
    group = parser.add_argument_group("the model")
    group.add_argument("--4bit", dest="is_4bit", action="store_true", help="quantize the language model to NF4")
    group.add_argument("--llm", metavar="PATH", help="where the base language model of a run is now, if it moved")
    group.add_argument("--vision", metavar="PATH", help="where the vision encoder of a run is now, if it moved")
    group.add_argument(
        "--chat-template", metavar="NAME", help="of a model that is no run (its tokenizer's own), such as chatml"
    )


def add_drawing(group: Any) -> None:
    """Add how the tokens of an answer are chosen to a group of options."""
    group.add_argument(
        "--temperature", type=temperature, default=0.0, metavar="T", help="0 takes the likeliest words (0)"
    )
    group.add_argument(
        "--top-p", type=probability, default=1.0, metavar="P", help="when drawing: nucleus probability (1)"
    )
    group.add_argument(
        "--top-k", type=at_least_0, default=0, metavar="K", help="when drawing: of the K likeliest; 0: of all (0)"
    )
    group.add_argument(
        "--repetition-penalty", type=above_0, default=1.0, metavar="R", help="above 1: fewer repetitions (1)"
    )


def add_context(group: Any) -> None:
    """Add the length of the context to a group of options."""
    group.add_argument(
        "--context", type=at_least_1, metavar="N", help="tokens of prompt and answer (what the model was made for)"
    )


def quantization_of(args: argparse.Namespace) -> Literal["nf4"] | None:
    """Return how the language model is to be quantized."""
    return "nf4" if args.is_4bit else None


def check_answering_model(args: argparse.Namespace) -> None:
    """Refuse options that do not go with the model, before it loads."""
    from mmtune.build_folder import is_model
    from mmtune.errors import ConfigError

    of_runs = {"--adapters": args.adapters, "--llm": args.llm, "--vision": args.vision}
    if not is_model(args.folder):
        if args.chat_template is not None:
            raise ConfigError("--chat-template", "a run knows its own template. Leave it out.")
    elif wrong := next((option for option, value in of_runs.items() if value), None):
        raise ConfigError(wrong, f"it is for runs, and {args.folder} is a model without a run. Leave it out.")
