"""The dialogue in a terminal, through the installed command: streaming, editing, Ctrl-C and Ctrl-D, history."""

import os
import re
import sys
from pathlib import Path

import pytest
from talk_workspace import TURNS, at_home, home, parts

from mmtune.chat.commands import COMMANDS
from mmtune.data.formats import parse_record
from mmtune.data.records import read_records

pexpect = pytest.importorskip("pexpect", reason="pexpect needs a POSIX terminal")
__all__ = ["at_home", "home", "parts"]

ANSWERS = [answer for _, answer in TURNS]
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()=>].?|\r")
SLOW = 240  # seconds until a model is loaded on a busy machine


@pytest.fixture
def terminal(at_home, tmp_path):
    """Return a function that starts a chat; it is ended behind the test."""
    started = []

    def start(*words, dimensions=(24, 80)):
        env = os.environ | {
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "TERM": "xterm",
            "MMTUNE_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([path for path in sys.path if path]),
        }
        argv = ["-m", "mmtune", "chat", *words]
        child = pexpect.spawn(
            sys.executable, argv, env=env, encoding="utf-8", timeout=SLOW, dimensions=dimensions, echo=False
        )
        child.seen = []
        started.append(child)
        child.expect("you: ")
        return child

    yield start
    for child in started:
        child.close(force=True)


def ask(child, text, until="you: "):
    """Type a line; return what is shown until the next prompt, without colours."""
    child.send(f"{text}\r")
    child.expect("model: ")
    child.expect(until)
    return CODES.sub("", child.before)


def test_a_dialogue_with_two_images_is_streamed_saved_and_left(terminal, parts):
    child = terminal("run", "--image", "red.png", "--max-new-tokens", "40")
    assert ANSWERS[0] in ask(child, "What colour?")
    assert ANSWERS[1] in ask(child, f"'{Path('my blue.png').resolve()}' And this?")
    assert ANSWERS[2] in ask(child, "Surr\x7fe?")  # backspace
    child.send("/save talk2.json\r")
    child.expect("saved to talk2.json")
    child.expect("you: ")
    child.send("\x1b[A\x1b[A\r")  # the line before the last: the question again
    child.expect("model: ")
    child.expect("you: ")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0
    (record,) = read_records("talk2.json")
    trained = parse_record(next(read_records("data.json")))
    saved = parse_record(record)
    assert saved.messages[1:] == trained.messages
    turns = [turn for turn in record.value["messages"] if turn["role"] == "assistant"]
    for turn in turns:
        assert turn["token_ids"] == parts.tokenizer.encode(turn["content"], add_special_tokens=False)


def test_ctrl_c_stops_the_answer_and_twice_leaves(terminal):
    child = terminal("llm", "--chat-template", "chatml", "--max-new-tokens", "400", "--context", "500")
    child.send("Tell me all\r")
    child.expect("model: ")
    child.sendintr()
    child.expect("stopped. Ctrl-C again leaves, /retry asks again.")
    child.expect("you: ")
    child.send("/params\r")
    child.expect("max_new_tokens=400")
    child.expect("you: ")
    child.send("half a li\x03")
    child.expect("Ctrl-C again leaves")
    child.expect("you: ")
    child.send("\x03")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0


def test_mistakes_are_lines_and_the_history_is_kept_for_its_user(terminal, tmp_path):
    child = terminal("run", "--max-new-tokens", "40")
    child.send("/imge x\r")
    child.expect("/imge: no such command. Did you mean '/image'")
    child.expect("you: ")
    child.send("/he\t")
    child.expect("/he(.\\[[0-9;?]*[A-Za-z])*lp")  # completed
    child.send("\r")
    child.expect("shows images with the next question")
    child.expect("you: ")
    child.send("/nope/cat.png What?\r")
    child.expect("no such image")
    child.expect("you: ")
    child.send("EXIT\r")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0
    history = tmp_path / "cache" / "chat_history"
    assert "+/imge x" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("/re", ["/retry", "/reset"]),
        ("/", list(COMMANDS)),
        ("re", []),
        ("", []),
        ("/load my", ["/load my blue.png"]),
        ("What of my", []),
        ("/undo my", []),
    ],
)
def test_what_tab_completes(at_home, text, completed):
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from mmtune.chat.completion import CommandCompleter

    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    assert [text[: len(text) + each.start_position] + each.text for each in found] == completed
