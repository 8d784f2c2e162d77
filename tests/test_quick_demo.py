"""demos/quick_demo.py, interrupted: what it had begun to make is completed, what trains saves before it ends."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import venv

import pytest
from readme import ROOT


def has_pip(python):
    return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0


def test_an_environment_whose_making_was_interrupted_gets_its_pip(tmp_path, monkeypatch):
    make_environment = runpy.run_path(str(ROOT / "demos" / "quick_demo.py"))["make_environment"]
    monkeypatch.setitem(make_environment.__globals__, "VENV", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)  # uv installs without pip
    builder = venv.EnvBuilder(symlinks=os.name != "nt")
    builder.create(tmp_path)
    python = tmp_path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    assert not has_pip(python)
    make_environment(python)
    assert has_pip(python)


SAVES = """
import signal, sys, time, pathlib
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), pathlib.Path("saved").touch(), sys.exit(130)))
print("trains", flush=True)
time.sleep(60)
"""
STARTS = """
import runpy, sys
demo = runpy.run_path(sys.argv[1])
demo["run_to_its_end"].__globals__["ROOT"] = sys.argv[2]
sys.exit(demo["run_to_its_end"]([sys.executable, "-c", sys.argv[3]]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C goes to a group of processes, as a POSIX terminal sends it")
def test_ctrl_c_waits_until_what_trains_has_saved(tmp_path):
    command = [sys.executable, "-c", STARTS, str(ROOT / "demos" / "quick_demo.py"), str(tmp_path), SAVES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        assert started.stdout.readline() == "trains\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait() == 130
    assert (tmp_path / "saved").exists()
