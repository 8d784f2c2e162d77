"""The command line: one small file a verb. Heavy imports happen inside the verb, so that `--help` is instant."""

import argparse
import io
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from mmtune import __version__
from mmtune.cli import (
    bench,
    chat,
    compare,
    configs,
    convert,
    data,
    doctor,
    eval,
    export,
    identity,
    inspect,
    merge,
    plan,
    recipe,
    serve,
    train,
    web,
)
from mmtune.cli.former_verbs import answer_for
from mmtune.errors import EndedElsewhere, Interrupted, MMTuneError
from mmtune.plain_text import printable
from mmtune.processes import mark, num_processes, rank, tell_launcher

VERBS = (
    train,
    plan,
    recipe,
    identity,
    chat,
    serve,
    web,
    compare,
    eval,
    merge,
    export,
    data,
    inspect,
    bench,
    configs,
    doctor,
    convert,
)
VERB_NAMES = (
    *train.VERBS,
    "plan",
    "run",
    "identity",
    "chat",
    "serve",
    "web",
    "compare",
    "eval",
    "merge",
    "export",
    "data",
    "inspect",
    "bench",
    "configs",
    "doctor",
    "convert",
)
TAKES_OVERRIDES = ("pretrain", "finetune", "sft", "plan", "run", "identity", "inspect", "data", "bench")
LOG_LEVELS = ("debug", "info", "warning", "error")
FOR_SEVERAL = (*train.VERBS, "eval")
"""Verbs that torchrun may start in several processes."""
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
SECONDS_TO_SAY_WHY = 5.0
"""What a process waits that another one ended: torchrun ends all with the first, and the other has to say why."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="mmtune",
        description="Teach a language model to see, and train it on text with the same code.",
        epilog="example:\n  mmtune run configs/demo.yaml\n\nEach verb explains itself: mmtune VERB --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmtune {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in VERBS:
        module.add(verbs)
    assert tuple(verbs.choices) == VERB_NAMES
    for verb in verbs.choices.values():
        verb.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
        verb.add_argument("--log-level", choices=LOG_LEVELS, help="the least that is shown (default: info)")
        verb.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a mistake of the user, 130 for Ctrl-C, 143 for SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    answer = answer_for(argv, VERB_NAMES)
    if answer is not None:
        print(f"mmtune: {answer}", file=sys.stderr)
        return EXIT_MISTAKE
    args = _parse(argv)
    if num_processes() > 1 and args.verb not in FOR_SEVERAL:
        return _refuse_several(args.verb)
    try:
        from mmtune.logs import level_of, log_policy
    except ModuleNotFoundError as error:
        return _refuse_half(error.name)
    try:
        with log_policy(level_of(args.log_level)):
            return args.run(args) or 0
    except MMTuneError as error:
        if args.traceback:
            raise
        print(printable(f"mmtune: {mark()}{error}"), file=sys.stderr)
        tell_launcher(str(error))
        return EXIT_MISTAKE
    except EndedElsewhere:
        time.sleep(SECONDS_TO_SAY_WHY)
        return EXIT_MISTAKE
    except Interrupted as interrupted:
        if rank() == 0:
            print(f"mmtune: {interrupted}", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("mmtune: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _refuse_half(package: str | None) -> int:
    """Say that a package is missing without which not even `mmtune doctor` can say what is missing."""
    found = f"{package}: is not installed for this Python ({sys.executable}), and mmtune needs it."
    mend = "Activate the environment of mmtune (. .venv/bin/activate), or run in the source folder: pip install -e ."
    print(f"mmtune: {found} {mend}", file=sys.stderr)
    return EXIT_MISTAKE


def _refuse_several(verb: str) -> int:
    """Say that a verb is for one process; the first one of several says it."""
    if rank():
        time.sleep(SECONDS_TO_SAY_WHY)
        return EXIT_MISTAKE
    mend = f"Start it without torchrun, which is for {', '.join(FOR_SEVERAL)}."
    message = f"mmtune {verb}: runs in one process (got {num_processes()}). {mend}"
    print(message, file=sys.stderr)
    tell_launcher(message)
    return EXIT_MISTAKE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and let overrides stand before and after options."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (args.verb not in TAKES_OVERRIDES or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}. See: mmtune {args.verb} --help")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def entry_point() -> NoReturn:
    """What the `mmtune` command runs.

    A character that standard output cannot write, such as Chinese in a pipe of Windows' code page 1252, is written as
    its escape. Python does so for standard error by itself; here it would end the program.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # None under pythonw
        sys.stdout.reconfigure(errors="backslashreplace")
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `mmtune inspect ... | head` ends quietly
    code = main()
    if num_processes() > 1 and code == 0:
        from mmtune.training.ranks import leave

        leave()
    sys.exit(code)
