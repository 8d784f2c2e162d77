"""`mmtune web` before it serves: each mistake is one line; a page is for this machine unless there is a password."""

import importlib.util
import re
import signal
import socket
import subprocess
import sys

import pytest
from ending import ended_once_it_answers
from talk_workspace import at_home, home

from mmtune.cli import main

__all__ = ["at_home", "home"]


@pytest.fixture
def mistake(capsys, at_home):
    def run(*words):
        assert main(["web", *map(str, words)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("mmtune: ")
        return lines[-1].removeprefix("mmtune: ")

    return run


def test_without_gradio_it_says_what_to_install(mistake, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    assert mistake("run") == 'mmtune web: needs gradio, which is not installed. Run: pip install "mmtune[web]"'


def test_other_machines_need_a_password(mistake, monkeypatch):
    monkeypatch.delenv("MMTUNE_WEB_PASSWORD", raising=False)
    line = mistake("run", "--host", "0.0.0.0")
    assert line.startswith("--host: 0.0.0.0 is reached from other machines, and nothing keeps strangers out.")
    assert "--password TEXT, or set MMTUNE_WEB_PASSWORD" in line
    assert mistake("run", "--host", "0.0.0.0", "--password", "").startswith("--host: ")


def test_a_port_that_is_taken_is_one_line(mistake):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert mistake("run", "--port", port).startswith(f"--port: {port} on 127.0.0.1 is taken")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nothing"], "nothing: no such folder"),
        (["run", "--before", "run"], "--before: run is what it would be compared with. Name another run"),
        (["run", "--chat-template", "chatml"], "--chat-template: a run knows its own template. Leave it out."),
        (["llm", "--vision", "clip"], "--vision: it is for runs, and llm is a model without a run. Leave it out."),
        (["run", "--examples", "data.json"], "data.json:1: a question is an object with a text under 'question'."),
        (["run", "--examples", "none.png"], "--examples: none.png: no such image"),
        (
            ["llm", "--chat-template", "chatml", "--examples", "red.png"],
            "--examples: red.png: this model was trained on",
        ),
    ],
)
def test_what_cannot_be_served_is_one_line(mistake, words, line):
    pytest.importorskip("gradio", reason="needs the extra `web`")
    assert mistake(*words, "--port", 0).startswith(line)


def test_a_signal_ends_the_page_with_code_0(at_home, capsys):
    pytest.importorskip("gradio", reason="needs the extra `web`")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ended_once_it_answers(f"http://127.0.0.1:{port}/"):
        assert main(["web", "run", "--port", str(port), "--examples", "red.png"]) == 0
    said = capsys.readouterr()
    assert f"the page is at http://127.0.0.1:{port}, from this machine. Ctrl-C ends." in said.err
    assert "Traceback" not in said.err + said.out


def test_options_are_in_range(capsys, at_home):
    for words in (["--max-upload-mb", "0"], ["--max-pixels", "0"], ["--port", "70000"], ["--top-p", "2"]):
        with pytest.raises(SystemExit) as caught:
            main(["web", "run", *words])
        assert caught.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_the_page_with_a_tab_open_in_one_line(at_home):
    pytest.importorskip("gradio", reason="needs the extra `web`")
    httpx = pytest.importorskip("httpx")
    command = [sys.executable, "-m", "mmtune", "web", "run", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"the page is at (http://\S+?), from this machine", line):
                break
        with httpx.Client(base_url=found[1]) as tab, tab.stream("GET", "/gradio_api/heartbeat/tab") as reply:
            assert reply.status_code == 200
            process.send_signal(signal.SIGINT)
            lines += process.stderr.readlines()
        assert process.wait(30) == 0
    assert "ended" in lines[-1]
    assert not any("rror" in line or "Traceback" in line for line in lines)
