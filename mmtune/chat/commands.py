"""The commands of a dialogue. A new one is a function and a line of `COMMANDS`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmtune.chat.dialogue import Dialogue
from mmtune.chat.params import changed_params, shown_params
from mmtune.chat.pasted import image_paths, split_images
from mmtune.chat.saving import load_dialogue, save_dialogue
from mmtune.chat.switching import UNLOADED
from mmtune.errors import ConfigError
from mmtune.lookup import nearest
from mmtune.plain_text import shortened

SHOWN_CHARACTERS = 70  # of what was said before
NOTHING = "none"
"""What `/system` takes for no system message."""


class Command(NamedTuple):
    """One of them.

    Attributes:
        run: takes the dialogue and the argument, raises MMTuneError.
        argument: in the help.
        help: what it does.
    """

    run: Callable[[Dialogue, str], None]
    argument: str
    help: str


def take_line(dialogue: Dialogue, line: str) -> None:
    """Do what a line says: a command, images for the next question, or a question.

    Raises:
        MMTuneError: it cannot be done. All is then as it was before.
        KeyboardInterrupt: Ctrl-C; what was said until then is kept.
    """
    text = WORDS_OF_XTUNER.get(line.strip(), line.strip())
    name, _, argument = text.partition(" ")
    if name in COMMANDS:
        COMMANDS[name].run(dialogue, argument.strip())
        return
    if re.fullmatch(r"/[A-Za-z_-]+", name):
        raise ConfigError(name, f"no such command.{nearest(name, COMMANDS)} /help lists all.")
    question, images = split_images(text)
    if images and not question:
        dialogue.add_images(images, "image")
    elif question or dialogue.waiting:
        dialogue.ask(question, images)


def _image(dialogue: Dialogue, argument: str) -> None:
    if not argument:
        raise ConfigError("/image", "name a file, such as /image cat.png.")
    dialogue.add_images(image_paths(argument), "/image")


def _reset(dialogue: Dialogue, argument: str) -> None:
    dialogue.begin_anew()
    dialogue.screen.note("the dialogue starts anew")


def _system(dialogue: Dialogue, argument: str) -> None:
    session = dialogue.session
    if not argument:
        dialogue.screen.note(session.system or "there is no system message; /system TEXT sets one")
        return
    session.resume(None if argument == NOTHING else argument, [])
    dialogue.begin_anew()
    told = "there is no system message" if session.system is None else "the system message is set"
    dialogue.screen.note(f"{told}; the dialogue starts anew")


def _save(dialogue: Dialogue, argument: str) -> None:
    path = _path("/save", argument)
    image_folder = save_dialogue(dialogue.session, path)
    hint = f"; to train on it, set image_folder: {image_folder}" if image_folder else ""
    dialogue.screen.note(f"saved to {path}{hint}")


def _load(dialogue: Dialogue, argument: str) -> None:
    session = dialogue.session
    load_dialogue(session, _path("/load", argument))
    dialogue.waiting = ()
    for exchange in session.exchanges:
        answer = exchange.said[-1]
        dialogue.screen.note(f"you: {shortened(exchange.question.text, SHOWN_CHARACTERS)}")
        said = session.text(answer) if isinstance(answer, list) else ""
        dialogue.screen.note(f"model: {shortened(said, SHOWN_CHARACTERS)}")


def _retry(dialogue: Dialogue, argument: str) -> None:
    dialogue.retry()


def _undo(dialogue: Dialogue, argument: str) -> None:
    question = dialogue.session.undo()
    dialogue.screen.note(f"taken back: {shortened(question.text, SHOWN_CHARACTERS) or ', '.join(question.images)}")


def _params(dialogue: Dialogue, argument: str) -> None:
    session = dialogue.session
    session.decoding, seed = changed_params(session.decoding, dialogue.seed, argument)
    if "seed=" in argument:
        dialogue.set_seed(seed)
    context = "" if session.context is None else f"; {len(session.ids)} of {session.context} tokens are in use"
    dialogue.screen.note(f"{shown_params(session.decoding, dialogue.seed)}{context}")


def _adapter(dialogue: Dialogue, argument: str) -> None:
    if argument:
        dialogue.select(argument)
        return
    switch = dialogue.require_switch("/adapter")
    names = (*switch.names, *switch.layers, UNLOADED[0])
    marked = [f"{name} (answers)" if name == switch.active else name for name in names]
    dialogue.screen.note(f"{', '.join(marked)}. /adapter NAME switches.")


def _before(dialogue: Dialogue, argument: str) -> None:
    switch = dialogue.require_switch("/before")
    if not switch.has_adapter:
        message = f"{switch.active} trained no adapter: the base model answers already, through its projector."
        raise ConfigError("/before", f"{message} `mmtune compare base RUN` asks it without.")
    dialogue.select(UNLOADED[0], "/before")


def _after(dialogue: Dialogue, argument: str) -> None:
    dialogue.select(dialogue.require_switch("/after").last)


def _help(dialogue: Dialogue, argument: str) -> None:
    width = max(len(f"{name} {command.argument}") for name, command in COMMANDS.items()) + 2
    for name, command in COMMANDS.items():
        dialogue.screen.note(f"{f'{name} {command.argument}'.ljust(width)}{command.help}")
    dialogue.screen.note("Paste or drag image files to show them. Alt-Enter begins a new line.")
    dialogue.screen.note("Ctrl-C stops an answer; twice, or Ctrl-D, leaves.")


def _exit(dialogue: Dialogue, argument: str) -> None:
    dialogue.is_over = True


COMMANDS: dict[str, Command] = {
    "/image": Command(_image, "FILE ...", "shows images with the next question"),
    "/retry": Command(_retry, "", "asks the last question again"),
    "/undo": Command(_undo, "", "takes the last question back"),
    "/reset": Command(_reset, "", "starts anew (so does RESET)"),
    "/system": Command(_system, "TEXT", "sets the system message and starts anew; none: without"),
    "/params": Command(_params, "NAME=VALUE", "shows or sets how answers are chosen"),
    "/save": Command(_save, "FILE", "writes the dialogue, as a training record"),
    "/load": Command(_load, "FILE", "goes on with a dialogue from a file"),
    "/adapter": Command(_adapter, "NAME", "lists runs, or lets another one answer"),
    "/before": Command(_before, "", "lets the base model answer, untrained"),
    "/after": Command(_after, "", "lets the run answer again"),
    "/help": Command(_help, "", "shows this"),
    "/exit": Command(_exit, "", "leaves (so does EXIT)"),
}
"""What is typed -> what it does, in the order of the help."""

WORDS_OF_XTUNER = {"RESET": "/reset", "EXIT": "/exit"}


def _path(command: str, argument: str) -> Path:
    if not argument:
        raise ConfigError(command, f"name a file, such as {command} talk.json.")
    return Path(argument).expanduser()
