"""demos/quick_demo.py: an environment whose making was interrupted is completed, not used as it is."""

import os
import runpy
import shutil
import subprocess
import venv

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
