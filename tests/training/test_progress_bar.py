"""The progress line: which figures fit, the time left after a resume, and what a terminal and a pipe get."""

import io
import os
import re
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from mmtune.cli import main
from mmtune.training.progress_bar import Progress, duration, figure_texts, short

LOGS = {"loss": 1.2345, "learning_rate": 1.9e-4, "grad_norm": 0.4}
FIGURES = {
    "supervised_tokens_per_second": 1234.5,
    "samples_per_second": 15.6,
    "data_wait_share": 0.014,
    "peak_memory_bytes": 18.2 * 2**30,
}


@pytest.fixture
def progress():
    made = Progress("finetune", 5198, 1234, 1000, figure_texts(LOGS, FIGURES))
    now = time.monotonic()
    made.marks = [now - 600, now - 583.4, now]
    return made


def shown(progress, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(progress, end="")
    return console.file.getvalue()


def test_a_wide_terminal_shows_all(progress):
    text = shown(progress, 120)
    assert text.startswith("finetune ━")
    assert text.endswith("1234/5198 loss 1.234 lr 1.9e-4 1.2k tok/s 16 samp/s wait 1% 18.2G 2:45:26 left")


def test_80_columns_hold_every_figure(progress):
    text = shown(progress, 80)
    for figure in ("1234/5198", "loss 1.234", "lr 1.9e-4", "1.2k tok/s", "16 samp/s", "wait 1%", "18.2G", "left"):
        assert figure in text


@pytest.mark.parametrize("width", range(9, 130))
def test_no_width_is_overrun_and_the_least_important_goes_first(progress, width):
    text = shown(progress, width)
    assert len(text) <= width
    assert "\n" not in text
    assert "1234/5198" in text
    if width >= 20:
        assert "loss 1.234" in text


def test_a_figure_does_not_come_and_go_with_its_digits(progress):
    before = progress.chosen(80)
    progress.figures["samples"] = "1 samp/s"
    assert progress.chosen(80) == before


def test_the_time_left_counts_the_steps_since_the_start_or_resume(progress):
    assert progress.seconds_left() == pytest.approx(583.4 / 233 * (5198 - 1234), rel=1e-3)
    fresh = Progress("finetune", 5198, 1000, 1000)
    assert fresh.seconds_left() is None
    assert "left" not in fresh.texts()
    fresh.marks[0] -= 2
    fresh.advance(1001)
    assert fresh.seconds_left() == pytest.approx(2 * 4197, rel=0.01)


@pytest.mark.parametrize(
    ("number", "text"), [(0.123, "0.12"), (3.44, "3.4"), (56.1, "56"), (780.0, "780"), (1234, "1.2k"), (45_600, "46k")]
)
def test_rates_are_short(number, text):
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1s"), (187, "3:07"), (7387, "2:03:07"), (93_600, "1d 02h"), (0, "0s")]
)
def test_times_are_short(seconds, text):
    assert duration(seconds) == text


def test_without_a_terminal_there_is_a_line_now_and_then(workspace, capsys):
    options = ["train.num_train_epochs=12", "train.logging_steps=7", "train.save_steps=0"]
    assert main(["pretrain", "pretrain.yaml", *options]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pretrain  step ")]
    assert [line.split()[2] for line in lines] == [f"{step}/60" for step in range(7, 60, 7)]
    assert re.fullmatch(
        r"pretrain  step 7/60  loss \d\.\d{3}  lr \d\.\de-3  \S+ tok/s  \S+ samp/s  wait \d+%  \d\.\dG  \d+s left",
        lines[0],
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal is of Unix")
def test_lines_of_the_log_do_not_tear_the_bar(workspace):
    """In a pseudo terminal of 80 columns: whatever is written while the bar stands, every line is whole."""
    import fcntl
    import pty
    import struct
    import termios

    code = """
import logging, sys, warnings
from mmtune.cli import main
from mmtune.training.trainer import RunTrainer
step = RunTrainer.training_step
def noisy(self, *given, **named):
    logging.getLogger("mmtune.part").warning("a line that stands between")
    warnings.warn(f"warned at {self.state.global_step}")
    print("printed by a library", file=sys.stderr)
    return step(self, *given, **named)
RunTrainer.training_step = noisy
main(["pretrain", "pretrain.yaml", "train.save_steps=0"])
"""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color"}
    variables.pop("COLUMNS", None)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    received = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            received += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    lines = [text for text in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", received.decode())) if text]
    assert lines.count("warning: a line that stands between") == 10
    assert lines.count("printed by a library") == 10
    assert sum(line.startswith("warning: warned at ") for line in lines) >= 1
    bars = [line for line in lines if " loss " in line]
    assert bars
    assert all(line.rstrip().endswith("left") and len(line.rstrip()) <= 80 for line in bars)
