"""`mmtune chat`: ask a model, in a dialogue, once, or all questions of a file."""

import argparse
from typing import TYPE_CHECKING, Any

from mmtune.cli.arguments import at_least_0, at_least_1
from mmtune.cli.model_arguments import (
    add_answering_model,
    add_context,
    add_drawing,
    check_answering_model,
    quantization_of,
)

if TYPE_CHECKING:
    from mmtune.chat.dialogue import Dialogue, Screen
    from mmtune.chat.lines import LineScreen
    from mmtune.chat.session import ChatSession
    from mmtune.chat.switching import AdapterSwitch

EXIT_UNANSWERED = 2

EPILOG = """\
In a terminal it is a dialogue: /help lists its commands. Else each line of standard input is a question or a command,
answers go to standard output and all else to standard error. Exit codes: 0; 2 where something was not answered.

example:
  mmtune chat runs/demo/finetune --image photo.jpg
  mmtune chat runs/demo/finetune --image photo.jpg --prompt 'What is this?'
  mmtune chat runs/demo/finetune --questions questions.jsonl --json > answers.jsonl"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "chat",
        help="ask a model, about images too: a dialogue, one question, or a file of them",
        description="Ask a model in a dialogue, once with --prompt, or all questions of a file with --questions.",
        epilog=EPILOG,
    )
    add_answering_model(parser)
    parser.add_argument(
        "--adapters", nargs="+", default=[], metavar="RUN",
        help="more runs on the same base models; /adapter NAME switches among them in the dialogue",
    )  # fmt: skip
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE",
        help="shown with the first question; give it again for more",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="a system message (the one that the run's sources gave)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--prompt", metavar="TEXT", help="ask this one question, print the answer and leave")
    asked.add_argument(
        "--questions", metavar="FILE", help="ask all questions of a JSON or JSON lines file, each on its own"
    )
    parser.add_argument("--image-folder", metavar="FOLDER", help="of the images of --questions (the file's folder)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line for each answer")
    _add_decoding(parser)
    _add_tools(parser)
    parser.set_defaults(run=run)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how answers are chosen")
    group.add_argument("--max-new-tokens", type=at_least_1, default=256, metavar="N", help="the longest answer (256)")
    add_drawing(group)
    group.add_argument("--seed", type=at_least_0, default=0, metavar="N", help="of draws (0)")
    add_context(group)


def _add_tools(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tools")
    group.add_argument(
        "--tools", action="append", metavar="NAMES",
        help="what the model may call: calculator, clock, documents:FOLDER, module:function, with commas between",
    )  # fmt: skip
    group.add_argument("--tool-calls", type=at_least_1, default=5, metavar="N", help="calls for one question (5)")
    group.add_argument(
        "--tool-seconds", type=at_least_1, default=10, metavar="S", help="after which a call is stopped (10)"
    )
    group.add_argument(
        "--tool-bytes", type=at_least_1, default=4096, metavar="N", help="of a result; what is more is cut (4096)"
    )


def run(args: argparse.Namespace) -> int:
    """Chat."""
    import sys

    from rich.console import Console

    from mmtune.chat.dialogue import Dialogue, Screen
    from mmtune.chat.lines import JsonScreen, LineScreen, answer_lines, lines_of
    from mmtune.chat.terminal import TerminalScreen, chat_loop
    from mmtune.errors import ConfigError

    _check(args)
    is_talk = args.prompt is None and args.questions is None
    in_terminal = is_talk and not args.json and sys.stdin.isatty() and sys.stdout.isatty()
    screen: Screen
    if in_terminal:
        screen = TerminalScreen(Console())
    elif args.json:
        screen = JsonScreen(sys.stdout, sys.stderr)
    else:
        screen = LineScreen(sys.stdout, sys.stderr)
    session, switch = _open(args, screen)
    if args.image and session.parts.transform is None:
        raise ConfigError("--image", "this model was trained on text alone and cannot see. Leave --image out.")
    dialogue = Dialogue(session, screen, switch, args.image, args.seed)
    if args.questions is not None:
        assert isinstance(screen, LineScreen)
        return _answer_file(args, session, screen)
    if args.prompt is not None:
        _answer_once(dialogue, args.prompt)
        return 0
    if in_terminal:
        chat_loop(dialogue, args.folder)
        return 0
    return 0 if answer_lines(dialogue, lines_of(sys.stdin)) else EXIT_UNANSWERED


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before a model loads."""
    from mmtune.data.image_files import open_image
    from mmtune.errors import ConfigError

    for image in args.image:
        open_image(image, "--image")
    if args.adapters and (args.prompt is not None or args.questions is not None):
        option = "--questions" if args.prompt is None else "--prompt"
        message = f"a dialogue switches among runs, and {option} asks one. Leave one of the two out."
        raise ConfigError("--adapters", f"{message} `mmtune compare` asks several runs the same.")
    if args.image and args.questions is not None:
        raise ConfigError("--image", "the questions of a file name their own images. Leave one of the two out.")
    if args.image_folder is not None and args.questions is None:
        raise ConfigError("--image-folder", "it is for the images of --questions. Name the image with its folder.")
    check_answering_model(args)


def _open(args: argparse.Namespace, screen: "Screen") -> "tuple[ChatSession, AdapterSwitch | None]":
    """Load the model and return a session with it, and what switches among runs."""
    from mmtune.build_folder import is_model, load_model
    from mmtune.chat.dialogue import call_printer
    from mmtune.chat.generate import Decoding
    from mmtune.chat.session import ChatSession
    from mmtune.chat.switching import AdapterSwitch
    from mmtune.chat.tool_session import ToolSession
    from mmtune.run_folder import read_system
    from mmtune.tools.finding import find_tools
    from mmtune.tools.running import Limits

    tools = find_tools(args.tools or [])
    quantization = quantization_of(args)
    switch, system = None, args.system or None
    if is_model(args.folder):
        parts = load_model(args.folder, template=args.chat_template, quantization=quantization)
    else:
        folders = [args.folder, *args.adapters]
        switch = AdapterSwitch(folders, llm=args.llm, vision=args.vision, quantization=quantization)
        parts = switch.parts
        if args.system is None:
            system = read_system(args.folder)
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.top_k, args.repetition_penalty)
    if not tools:
        return ChatSession(parts, decoding, system, args.context), switch
    limits = Limits(args.tool_calls, args.tool_seconds, args.tool_bytes)
    session = ToolSession(parts, tools, limits, decoding, system, call_printer(screen), args.context)
    return session, switch


def _answer_once(dialogue: "Dialogue", prompt: str) -> None:
    """Ask one question; a JSON screen shows also why it was not answered."""
    from mmtune.chat.lines import JsonScreen
    from mmtune.errors import MMTuneError

    try:
        dialogue.ask(prompt)
    except MMTuneError as error:
        if isinstance(dialogue.screen, JsonScreen):
            dialogue.screen.write({"error": str(error)})
        raise


def _answer_file(args: argparse.Namespace, session: "ChatSession", screen: "LineScreen") -> int:
    """Ask the questions of a file and show the answers."""
    import sys

    from mmtune.chat.lines import JsonScreen
    from mmtune.evaluate.question_file import ask_questions
    from mmtune.plain_text import printable

    code = 0
    for found, error in ask_questions(session, args.questions, args.image_folder):
        if error is not None:
            print(printable(f"mmtune: {error}"), file=sys.stderr)
            code = EXIT_UNANSWERED
        if isinstance(screen, JsonScreen):
            screen.write(found)
        elif error is None:
            verdict = {True: "right", False: "wrong", None: ""}[found.get("correct")]
            head = f"[{found['id']}] {found['question']}"
            screen.say(f"{head}\n{found['answer']}{verdict and f' ({verdict})'}\n")
    return code
