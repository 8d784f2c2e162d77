"""The logging policy: levels, ranks, quiet libraries, lines that do not tear a bar, the text log of a run."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from training_workspace import models, workspace

from mmtune.cli import main
from mmtune.logs import LEVEL_VARIABLE, TextLog, log_policy

__all__ = ["models", "workspace"]

SPEAK = """
import logging, sys, warnings
from mmtune.logs import level_of, log_policy
with log_policy(level_of(None)):
    log = logging.getLogger("mmtune.part")
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("one %s", level)
    log.info("two\\nlines")
    logging.getLogger("transformers.part").warning("from transformers")
    logging.getLogger("other.library").warning("from a library")
    logging.getLogger("other.library").info("chatter")
    warnings.warn("old thing", FutureWarning)
    warnings.warn("look here")
"""


def spoken(**variables):
    """What a process writes to a pipe in place of standard error, without the times."""
    clean = {name: value for name, value in os.environ.items() if name not in (LEVEL_VARIABLE, "RANK")}
    done = subprocess.run(
        [sys.executable, "-c", SPEAK], capture_output=True, text=True, check=True, env=clean | variables
    )
    return [line[20:] for line in done.stderr.splitlines()], done.stderr


def test_our_lines_and_warnings_of_libraries_have_the_time_in_a_pipe():
    lines, text = spoken()
    assert lines[:5] == ["one info", "warning: one warning", "error: one error", "two", "lines"]
    assert lines[5] == "warning: from a library"
    assert lines[6].startswith("warning: look here (UserWarning, ")
    assert len(lines) == 7
    assert all(line[:2] == "20" and line[19] == " " for line in text.splitlines() if not line.startswith(" "))


def test_what_is_hidden_is_shown_at_debug():
    lines, _ = spoken(MMTUNE_LOG_LEVEL="debug")
    assert "one debug" in lines
    assert "warning: from transformers" in lines
    assert "chatter" in lines
    assert any(line.startswith("old thing (FutureWarning, ") for line in lines)


def test_another_rank_shows_errors_alone_and_its_number():
    lines, _ = spoken(RANK="3")
    assert lines[0] == "[rank 3] error: one error"
    assert "one info" not in " ".join(lines)
    assert "one warning" not in " ".join(lines)


def test_another_rank_shows_all_at_debug():
    lines, _ = spoken(RANK="3", MMTUNE_LOG_LEVEL="debug")
    assert {"[rank 3] one info", "[rank 3] warning: one warning"} <= set(lines)


def test_levels_by_option_and_by_variable(data_file, record, config_file, capsys, monkeypatch):
    data_file(record("<image>\nWhat?", "A cat.", image="1.png"))
    config = config_file()
    assert main(["pretrain", config, "--log-level", "warning"]) == 0
    assert "step 1/1" not in capsys.readouterr().err
    monkeypatch.setenv(LEVEL_VARIABLE, "error")
    assert main(["pretrain", config, "--overwrite", "--log-level", "info"]) == 0
    assert "step 1/1" in capsys.readouterr().err
    assert main(["pretrain", config, "--overwrite"]) == 0
    assert "optimizer steps" not in capsys.readouterr().err
    monkeypatch.setenv(LEVEL_VARIABLE, "loud")
    assert main(["pretrain", config, "--overwrite"]) == 2
    told = "mmtune: MMTUNE_LOG_LEVEL: unknown name 'loud'. Known: debug, error, info, warning.\n"
    assert capsys.readouterr().err == told


def test_the_policy_leaves_nothing_behind():
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogger("mmtune").level, warnings.showwarning
    with log_policy(logging.INFO):
        assert len(root.handlers) == len(before[0]) + 1
    assert (list(root.handlers), root.level, logging.getLogger("mmtune").level, warnings.showwarning) == before


def test_a_run_keeps_all_its_lines_and_a_resumed_one_appends(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=3", "--log-level", "error"]) == 0
    text = Path("runs/pretrain/run.log").read_text()
    assert "INFO    mmtune.training.data: 10 samples, " in text
    assert "step 3/3" in text
    assert "the run is in runs/pretrain" in text
    Path("runs/pretrain/manifest.json").unlink()
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=3", "--resume"]) == 0
    assert Path("runs/pretrain/run.log").read_text().startswith(text)


def test_a_run_that_fails_before_its_first_step_leaves_no_log(workspace):
    Path("0.png").write_bytes(b"no image")
    assert main(["pretrain", "pretrain.yaml"]) == 2
    assert not Path("runs/pretrain/run.log").exists()


def test_the_log_of_a_run_that_failed_ends_with_the_reason(tmp_path):
    def fail():
        with TextLog(tmp_path / "run.log") as kept:
            logging.getLogger("mmtune").error("before")
            kept.open()
            raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match="the reason"):
        fail()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[0].endswith("mmtune: before")
    assert "the run ended: RuntimeError('the reason')" in lines[1]
    assert lines[-1] == "RuntimeError: the reason"
