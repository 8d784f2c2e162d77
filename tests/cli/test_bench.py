"""`mmtune bench` on tiny models: what it prints, what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from training_workspace import models, workspace

from mmtune.benchmark import random_weights
from mmtune.benchmark.bench import median_figures
from mmtune.benchmark.synthetic import SHAPES, write_records
from mmtune.build_data import build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.testing import write_tiny_clip, write_tiny_llm

__all__ = ["models", "workspace"]


def bench(capsys, *argv):
    code = main(["bench", *argv, "--steps", "2", "--warmup", "1"])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("config", ["pretrain.yaml", "finetune.yaml"])
def test_it_prints_rates_and_parts_and_writes_them(workspace, capsys, config):
    code, out, err = bench(capsys, config, "data.max_length=400", "--json", "figures.json")
    assert code == 0, err
    for label in ("samples/s", "of the matmul rate", "peak memory", "padding", "waiting for data"):
        assert label in out
    for part in ("data", "vision", "projector", "llm forward", "head", "backward", "optimizer"):
        assert f"\n{part} " in out
    result = json.loads(Path("figures.json").read_text())
    assert len(result["losses"]) == 3
    assert result["verb"] == config.removesuffix(".yaml")
    assert result["config"]["model"]["init_from"] is None
    assert result["versions"]["torch"]
    figures = result["figures"]
    assert figures["matmul_flops_per_second"] * figures["matmul_share"] == pytest.approx(
        figures["flops_per_second"], rel=0.5
    )
    assert not Path("runs").exists(), "nothing is kept"


def test_data_and_init_from_of_the_config_are_not_read(workspace, capsys):
    for path in ("captions.json", "dialogues.json"):
        Path(path).unlink()
    assert bench(capsys, "finetune.yaml", "data.max_length=400", "model.init_from=nowhere")[0] == 0


def test_packs_and_text(workspace, capsys):
    code, out, _ = bench(capsys, "pretrain.yaml", "data.pack_to_max_length=true", "--json", "packs.json")
    assert code == 0
    text = ["model.vision=null", "model.projector=null", "model.init_from=null", "--verb", "sft"]
    code, out, err = bench(capsys, "finetune.yaml", *text)
    assert code == 0, err
    assert "\nvision " not in out


def test_random_weights_take_the_place_of_absent_models(workspace, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MMTUNE_CACHE", str(tmp_path / "cache"))
    shapes = {"internlm2-chat-1_8b": (write_tiny_llm, 0.1), "clip-vit-large-patch14-336": (write_tiny_clip, 0.1)}
    monkeypatch.setattr(random_weights, "SHAPES", shapes)
    names = [
        "model.llm.name_or_path=internlm/internlm2-chat-1_8b",
        "model.vision.name=openai/clip-vit-large-patch14-336",
    ]
    code, out, err = bench(capsys, "pretrain.yaml", *names, "--random-weights")
    assert code == 0, err
    assert "random weights in place of internlm/internlm2-chat-1_8b, openai/clip-vit-large-patch14-336" in out
    written = tmp_path / "cache" / "random_weights"
    assert {path.name for path in written.iterdir() if path.is_dir()} == set(shapes)
    assert err.count("writing random weights") == 2
    assert "writing random weights" not in bench(capsys, "pretrain.yaml", *names, "--random-weights")[2]


def test_the_shapes_are_those_of_the_presets_models():
    for name in ("pretrain/llava_internlm2_1_8b_558k", "finetune/llava_internlm2_1_8b_665k_8gb"):
        from mmtune.shipped import find_config

        model = load_config(find_config(name), [], name.split("/")[0]).model
        assert Path(model.llm.name_or_path).name in random_weights.SHAPES
        assert Path(model.vision.name).name in random_weights.SHAPES


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pretrain.yaml", "--json", "no/where.json"], "--json: there is no folder"),
        (
            ["pretrain.yaml", "model.llm.name_or_path=owner/unknown", "--random-weights"],
            "model.llm.name_or_path: 'owner/unknown' is not looked up on a hub here, and its shape is not known.",
        ),
        (["nothing.yaml"], "nothing.yaml"),
    ],
)
def test_mistakes_are_one_line(workspace, capsys, argv, message):
    assert main(["bench", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_records_fit_and_are_the_same_each_time(workspace):
    config = load_config("pretrain.yaml", [], "pretrain")
    reader = build_reader(config.model)
    texts = []
    for name in ("one", "two"):
        Path(name).mkdir()
        texts.append(write_records(Path(name), reader, SHAPES["finetune"], 20, 256).read_bytes())
    assert texts[0] == texts[1]
    assert Path("one/3.jpg").read_bytes() == Path("two/3.jpg").read_bytes()
    records = [json.loads(line) for line in texts[0].splitlines()]
    assert len(records) == 20
    lengths = {len(record["conversations"][1]["value"]) for record in records}
    assert len(lengths) > 3, "lengths vary"


def test_figures_are_medians_and_the_peak_the_highest():
    speeds = [
        {"samples_per_second": rate, "flops_per_second": rate, "matmul_share": 0.5, "peak_memory_bytes": peak,
         "seconds_per_step": 1 / rate, "seconds": {"head": rate}}
        for rate, peak in ((1.0, 5), (2.0, 9), (6.0, 7))
    ]  # fmt: skip
    figures = median_figures(speeds)
    assert figures["samples_per_second"] == 2.0
    assert figures["peak_memory_bytes"] == 9
    assert figures["matmul_flops_per_second"] == 4.0
    assert figures["seconds"] == {"head": 2.0}
