"""`mmtune serve` in this process: what it says, how it ends, and what it refuses before a model loads."""

import importlib.util
import logging
import os
import re
import signal
import socket
import threading

import openai
import pytest
from serve_workspace import write_endless_llm

from mmtune.cli import main

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model whose answers do not end."""
    return write_endless_llm(tmp_path_factory.mktemp("models") / "tiny")


class Told(logging.Handler):
    """Keeps log lines, and lets a thread wait for one."""

    def __init__(self):
        super().__init__()
        self.lines, self.came = [], threading.Condition()

    def emit(self, record):
        with self.came:
            self.lines.append(record.getMessage())
            self.came.notify_all()

    def wait_for(self, pattern):
        with self.came:
            self.came.wait_for(lambda: any(re.search(pattern, line) for line in self.lines), 60)
            return next(found for line in self.lines if (found := re.search(pattern, line)))


@pytest.fixture
def told():
    handler = Told()
    logging.getLogger("mmtune").addHandler(handler)
    yield handler
    logging.getLogger("mmtune").removeHandler(handler)


def serve(model, told, visit, *options):
    """Serve while a thread visits, which ends the server; return the exit code."""
    problems = []

    def visiting():
        try:
            url = told.wait_for(r"serving \S+ at (\S+),")[1]
            visit(openai.OpenAI(base_url=url, api_key="right", max_retries=0))
        except BaseException as error:
            problems.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visiting)
    visitor.start()
    code = main(["serve", str(model), "--chat-template", "chatml", "--port", "0", *options])
    visitor.join(60)
    if problems:
        raise problems[0]
    return code


def ask(client, **options):
    return client.chat.completions.create(model="tiny", messages=HI, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_begun_is_finished_and_what_is_new_is_refused(model, told, number):
    def visit(client):
        stream = iter(ask(client, stream=True, max_tokens=300))
        next(stream)
        os.kill(os.getpid(), number)
        told.wait_for("^ending: ")
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        assert (caught.value.status_code, caught.value.code) == (503, "server_draining")
        *_, last = stream
        assert last.choices[0].finish_reason == "length"

    assert serve(model, told, visit, "--drain-seconds", "600") == 0
    assert told.lines[0] == f"loading {model}"
    assert re.fullmatch(
        r"serving tiny at http://127\.0\.0\.1:\d+/v1, from this machine, without a key\. Ctrl-C ends\.", told.lines[1]
    )
    assert told.lines[-1] == "ended"


def test_what_takes_too_long_is_cancelled(model, told):
    def visit(client):
        stream = iter(ask(client, stream=True, max_tokens=20_000))
        next(stream)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(openai.APIError, match="server: it is about to end"):
            list(stream)

    assert serve(model, told, visit, "--drain-seconds", "0.2", "--max-tokens", "20000") == 0
    told.wait_for(r"^not all was answered in 0\.2 s; the rest was cancelled \(--drain-seconds\)")


def test_a_second_signal_ends_at_once(model, told):
    def visit(client):
        stream = iter(ask(client, stream=True, max_tokens=20_000))
        next(stream)
        os.kill(os.getpid(), signal.SIGINT)
        told.wait_for("^ending: ")
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises((openai.APIError, openai.APIConnectionError)):
            list(stream)

    assert serve(model, told, visit, "--drain-seconds", "600", "--max-tokens", "20000") == 0


def test_options_reach_the_answers(model, told, monkeypatch):
    monkeypatch.setenv("MMTUNE_API_KEY", "right")

    def visit(client):
        assert client.models.list().data[0].id == "tiny"
        with pytest.raises(openai.AuthenticationError):
            ask(openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0))
        assert ask(client).usage.completion_tokens == 7
        assert ask(client).usage.prompt_tokens > len("Be brief.Hi")  # a token is a byte
        with pytest.raises(openai.BadRequestError, match="an answer has at most 7 tokens here"):
            ask(client, max_tokens=8)
        os.kill(os.getpid(), signal.SIGTERM)

    assert serve(model, told, visit, "--max-tokens", "7", "--system", "Be brief.") == 0
    assert "with an API key. Ctrl-C ends." in told.lines[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--host", "0.0.0.0"],
            "--host: 0.0.0.0 is reached from other machines, and nothing keeps strangers out. Add --api-key KEY, or",
        ),
        (["--host", "::"], "--host: :: is reached from other machines"),
        (["--host", "nowhere.invalid"], "--host: there is no host nowhere.invalid."),
        (["--host", "192.0.2.7", "--api-key", "a"], "--host: 192.0.2.7 is no address of this machine."),
        (["--api-key", ""], "--api-key: a key is a text of ASCII characters."),
        (["--api-key", "schlüssel"], "--api-key: a key is a text of ASCII characters."),
        (["--allow-origin", "*"], "--allow-origin: * lets any web page that is open on this machine ask."),
        (["--allow-origin", "localhost:3000"], "--allow-origin: an origin has no path, such as http://localhost:3000"),
        (["--allow-origin", "http://localhost/x"], "--allow-origin: an origin has no path"),
        (["--llm", "x"], "--llm: it is for runs, and "),
    ],
)
def test_what_does_not_go_together_is_one_line(model, capsys, options, message):
    assert main(["serve", str(model), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mmtune: {message}")
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model), "--port", str(port)]) == 2
    mend = f"Take another one: --port {port % 65535 + 1}."
    message = f"mmtune: --port: {port} on 127.0.0.1 is taken (Address already in use). {mend}"
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_missing_package_is_one_line(model, capsys, monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else real(name))
    assert main(["serve", str(model)]) == 2
    assert (
        capsys.readouterr().err
        == f"mmtune: mmtune serve: needs {package}, which is not installed. Run: pip install 'mmtune[serve]'\n"
    )


@pytest.mark.parametrize("options", [["--port", "65536"], ["--port", "x"], ["--queue", "0"], ["--max-tokens", "0"]])
def test_numbers_out_of_range_are_refused(capsys, options):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "run", *options])
    assert caught.value.code == 2
    assert f"argument {options[0]}: must be a whole number" in capsys.readouterr().err
