"""`mmtune chat`: ask a trained model about an image."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_1, probability, temperature


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "chat",
        help="ask a trained model about an image",
        description="Ask the model of a run folder, in a dialogue or with --prompt once.",
        epilog="example:\n  mmtune chat runs/demo/finetune --image photo.jpg\n"
        "  mmtune chat runs/demo/finetune --image photo.jpg --prompt 'What is this?'",
    )
    parser.add_argument("folder", metavar="RUN", help="a run folder, or a checkpoint in it")
    parser.add_argument(
        "--adapters", nargs="+", default=[], metavar="RUN",
        help="more runs on the same base models; /adapter NAME switches among them in the dialogue",
    )  # fmt: skip
    parser.add_argument("--image", metavar="FILE", help="shown with the first question")
    parser.add_argument("--prompt", metavar="TEXT", help="ask this one question, print the answer and leave")
    parser.add_argument("--system", metavar="TEXT", help="a system message (the one that the run's sources gave)")
    parser.add_argument(
        "--tools", action="append", metavar="NAMES",
        help="what the model may call: calculator, clock, documents:FOLDER, module:function, with commas between",
    )  # fmt: skip
    parser.add_argument("--tool-calls", type=at_least_1, default=5, metavar="N", help="calls for one question (5)")
    parser.add_argument(
        "--tool-seconds", type=at_least_1, default=10, metavar="S", help="after which a call is stopped (10)"
    )
    parser.add_argument(
        "--tool-bytes", type=at_least_1, default=4096, metavar="N", help="of a result; what is more is cut (4096)"
    )
    parser.add_argument("--llm", metavar="PATH", help="where the base language model is now, if it moved")
    parser.add_argument("--vision", metavar="PATH", help="where the vision encoder is now, if it moved")
    parser.add_argument("--max-new-tokens", type=at_least_1, default=256, metavar="N", help="the longest answer (256)")
    parser.add_argument(
        "--temperature", type=temperature, default=0.0, metavar="T", help="0 takes the likeliest words (0)"
    )
    parser.add_argument(
        "--top-p", type=probability, default=1.0, metavar="P", help="when drawing: nucleus probability (1)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Chat."""
    from pathlib import Path

    from rich.console import Console

    from mmtune.chat.generate import Decoding
    from mmtune.chat.session import ChatSession
    from mmtune.chat.switching import AdapterSwitch
    from mmtune.chat.terminal import call_printer, chat_loop
    from mmtune.chat.tool_session import ToolSession
    from mmtune.data.image_files import open_image
    from mmtune.errors import ConfigError
    from mmtune.run_folder import read_config
    from mmtune.schema import trained_system
    from mmtune.tools.finding import find_tools
    from mmtune.tools.running import Limits

    if args.image is not None:
        open_image(args.image, "--image")  # a wrong path is said before the model loads
    tools = find_tools(args.tools or [])
    if args.adapters and args.prompt is not None:
        message = "a dialogue switches among runs, and --prompt asks one. Leave one of the two out."
        raise ConfigError("--adapters", f"{message} `mmtune compare` asks several runs the same.")
    switch = AdapterSwitch([args.folder, *args.adapters], llm=args.llm, vision=args.vision)
    system = trained_system(read_config(Path(args.folder))) if args.system is None else args.system or None
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p)
    session: ChatSession
    if tools:
        limits = Limits(args.tool_calls, args.tool_seconds, args.tool_bytes)
        told = Console(stderr=args.prompt is not None)
        session = ToolSession(switch.parts, tools, limits, decoding, system, tell=call_printer(told))
    else:
        session = ChatSession(switch.parts, decoding, system)
    if args.prompt is not None:
        print(session.ask(args.prompt, (args.image,) if args.image else ()))
    else:
        chat_loop(session, Console(), args.image, switch=switch)
    return 0
