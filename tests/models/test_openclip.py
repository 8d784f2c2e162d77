"""Runs checks in a process of its own, where open_clip, timm and torchvision can be imported.

They are put into a folder once, without what they need: a default install would bring another torch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).with_name("openclip_checks.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def packages(pytestconfig):
    """The folder of `MMTUNE_TEST_PACKAGES`, or one in pytest's cache, which pip fills where it is empty."""
    given = os.environ.get("MMTUNE_TEST_PACKAGES")
    folder = Path(given) if given else pytestconfig.cache.mkdir("openclip_packages")
    if not (folder / "open_clip").is_dir():
        minor = int(torch.__version__.split(".")[1])
        names = [f"torchvision==0.{minor + 15}.*", "open_clip_torch", "timm", "ftfy", "wcwidth"]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *names]
        subprocess.run(install, check=True)
    return folder


def run_there(packages, *what):
    paths = os.pathsep.join([str(ROOT), str(packages)])
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *what]
    done = subprocess.run(run, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_open_clip_towers(packages):
    run_there(packages, str(CHECKS))


@pytest.mark.slow
def test_an_export_is_compared_with_the_pixels_of_the_run_where_torchvision_would_resize(packages):
    held = "a_standardized_and_a_linear_projector or the_image_token"
    assert "2 passed" in run_there(packages, "tests/export/test_hf_llava.py", "-k", held)
