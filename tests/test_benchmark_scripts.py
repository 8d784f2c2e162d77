"""The benchmark scripts run from end to end on tiny models."""

import json
import subprocess
import sys

import pytest
from readme import ROOT


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_tiny_models(tmp_path):
    script = ROOT / "tests" / "benchmarks" / "gpu" / "recipe.py"
    subprocess.run([sys.executable, str(script), "--smoke", "--output", str(tmp_path)], check=True, cwd=tmp_path)
    results = json.loads((tmp_path / "cases.json").read_text())
    assert len(results) == 9
    assert not [name for name, result in results.items() if "error" in result]
    assert (tmp_path / "table.md").read_text().count("\n| finetune, ") == 7
    assert "Self CPU" in (tmp_path / "profile.txt").read_text()
