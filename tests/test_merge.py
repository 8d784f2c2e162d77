"""Runs merged with weights: the result is what the weights say, and a run like any other."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from training_workspace import make, models, run_answers, workspace

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.cli.merge import COMBINATIONS as CHOICES
from mmtune.models.combining import COMBINATIONS

__all__ = ["models", "workspace"]

TEXT = [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}]
BLIND = ["model.vision=null", "model.projector=null", "model.init_from=null", "data.train=[{path: text.json}]"]


@pytest.fixture
def runs(workspace):
    """Two runs with adapters of rank 4, trained otherwise."""
    make("pretrain", verb="pretrain")
    Path("text.json").write_text(json.dumps(TEXT))
    return make("birds", "train.seed=1"), make("cars", "train.seed=2", "train.learning_rate=1e-2")


@pytest.fixture
def merge(capsys):
    """Return a function that merges through the command line, and gives the run folder."""

    def run(*argv):
        assert main(["merge", *map(str, argv), "-o", "runs/merged"]) == 0, capsys.readouterr().err
        return Path("runs/merged")

    return run


@pytest.fixture
def refused(capsys):
    def run(*argv):
        capsys.readouterr()
        assert main(["merge", *map(str, argv), "-o", "runs/merged"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
        assert not Path("runs/merged").exists()
        return line.removeprefix("mmtune: ")

    return run


def updates(folder):
    """What a run adds to each layer's weight, by hand: scaling B A, summed over its stack."""
    model, found = load_run(folder).model.llm, {}
    for name, config in model.peft_config.items():
        tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        scaling = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
        for key, a in tensors.items():
            if "lora_A" in key:
                layer = key.split(".lora_A")[0]
                update = scaling * tensors[key.replace("lora_A", "lora_B")].double() @ a.double()
                found[layer] = found[layer] + update if layer in found else update
    return found


def sum_of(*weighted):
    total = {}
    for weight, found in weighted:
        for layer, update in found.items():
            total[layer] = total.get(layer, torch.zeros(())) + weight * update
    return total


def assert_close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **(tolerance or {"rtol": 1e-4, "atol": 1e-6}))


@pytest.mark.parametrize("combination", [(), ("--combination", "cat"), ("--combination", "linear")])
def test_one_run_with_weight_1_is_that_run(runs, merge, combination):
    merged = merge("runs/birds", "--weights", "1", *combination)
    assert_close(updates(merged), updates("runs/birds"))
    assert run_answers(merged) == run_answers("runs/birds")


def test_half_of_one_run_twice_is_that_run(runs, merge):
    merged = merge("runs/birds", "runs/birds")
    assert_close(updates(merged), updates("runs/birds"))
    assert run_answers(merged) == run_answers("runs/birds")


def test_cat_is_exactly_the_weighted_sum(runs, merge):
    merged = merge(*runs, "--weights", "0.7", "-0.4")
    assert_close(updates(merged), sum_of((0.7, updates("runs/birds")), (-0.4, updates("runs/cars"))))
    assert yaml.safe_load((merged / "config.yaml").read_text())["model"]["adapter"]["r"] == 8


def test_svd_of_the_whole_rank_is_the_sum_and_less_is_an_approximation(runs, merge):
    expected = sum_of((0.7, updates("runs/birds")), (0.3, updates("runs/cars")))
    merged = merge(*runs, "--weights", "0.7", "0.3", "--combination", "svd", "--svd-rank", "8")
    assert_close(updates(merged), expected, rtol=1e-3, atol=1e-5)
    for rank in (4, 1):
        assert main(["merge", *map(str, runs), "--weights", "0.7", "0.3", "--combination", "svd",
                     "--svd-rank", str(rank), "-o", f"runs/rank{rank}"]) == 0  # fmt: skip
        for layer, update in updates(f"runs/rank{rank}").items():
            u, s, vh = torch.linalg.svd(expected[layer])
            torch.testing.assert_close(update, u[:, :rank] @ s[:rank].diag() @ vh[:rank], rtol=1e-3, atol=1e-5)


def test_linear_sums_a_and_b_apart(runs, merge):
    """As PEFT does: the roots of weight times scaling on both sides, so that one's B meets the other's A."""
    merged = merge(*runs, "--weights", "0.7", "0.3", "--combination", "linear")
    tensors = [load_file(run / "adapter/adapter_model.safetensors") for run in runs]
    roots = [(weight * 8 / 4) ** 0.5 for weight in (0.7, 0.3)]
    expected = {name: roots[0] * tensors[0][name] + roots[1] * tensors[1][name] for name in tensors[0]}
    assert_close(load_file(merged / "adapter/adapter_model.safetensors"), expected)


@pytest.mark.parametrize("name", [name for name, needs in COMBINATIONS.items() if needs.density])
def test_combinations_that_drop_values(runs, merge, name):
    merged = merge(*runs, "--combination", name, "--density", "0.5")
    first = {key: value.clone() for key, value in load_file(merged / "adapter/adapter_model.safetensors").items()}
    assert run_answers(merged)
    assert any(value.any() for value in first.values())
    argv = ["merge", *map(str, runs), "--combination", name, "--density", "0.5", "-o", "runs/again"]
    assert main(argv) == 0  # what is dropped by chance is the same again
    assert_close(load_file("runs/again/adapter/adapter_model.safetensors"), first)


def test_projectors_are_averaged_with_weights_that_sum_to_1(runs, merge):
    merged = merge(*runs, "--weights", "3", "1")
    one, other = (load_file(run / "projector.safetensors") for run in runs)
    assert {"feature_mean", "layers.0.weight"} <= one.keys()
    expected = {name: 0.75 * one[name] + 0.25 * other[name] for name in one}
    assert_close(load_file(merged / "projector.safetensors"), expected)


def test_the_ranks_and_scalings_may_differ(runs, merge):
    rslora = make("rslora", "model.adapter={kind: rslora, r: 3, lora_alpha: 5, target_modules: [q_proj, up_proj]}")
    expected = sum_of((0.5, updates(rslora)), (2.0, updates("runs/birds")))
    assert_close(updates(merge(rslora, "runs/birds", "--weights", "0.5", "2")), expected)


def test_a_stacked_run_becomes_one_adapter(runs, merge):
    stacked = make("stacked", "model.stack_on=[runs/birds]", "model.init_from=runs/birds", "model.adapter.r=2")
    assert list(load_run(stacked).model.llm.peft_config) == ["default", "stacked_0"]
    merged = merge(stacked, "--weights", "1")
    assert list(load_run(merged).model.llm.peft_config) == ["default"]
    assert_close(updates(merged), updates(stacked))
    assert run_answers(merged) == run_answers(stacked)
    for format_name in ("adapter", "xtuner"):
        assert main(["export", str(merged), "--format", format_name, "--output", format_name]) == 0


def test_text_joins_what_sees(runs, merge):
    text = make("text", *BLIND, verb="sft")
    merged = merge(text, "runs/birds", "--weights", "0.4", "0.6")
    assert_close(updates(merged), sum_of((0.4, updates(text)), (0.6, updates("runs/birds"))))
    assert_close(load_file(merged / "projector.safetensors"), load_file("runs/birds/projector.safetensors"))
    assert run_answers(merged)


def test_text_alone(runs, merge):
    merged = merge(make("text", *BLIND, verb="sft"), make("more", *BLIND, "train.seed=5", verb="sft"))
    assert not (merged / "projector.safetensors").exists()
    assert ChatSession.from_run(merged, Decoding(max_new_tokens=2)).ask("Hi") is not None


def test_ia3_by_linear_alone(runs, merge, refused):
    ia3 = [
        make(name, "model.adapter={kind: ia3}", seed)
        for name, seed in (("one", "train.seed=1"), ("two", "train.seed=2"))
    ]
    assert "PEFT combines ia3 adapters by linear alone (got cat)" in refused(*ia3, "--combination", "cat")
    merged = merge(*ia3, "--weights", "0.7", "0.3")
    one, other = (load_file(run / "adapter/adapter_model.safetensors") for run in ia3)
    expected = {name: 0.7 * one[name] + 0.3 * other[name] for name in one}
    assert_close(load_file(merged / "adapter/adapter_model.safetensors"), expected)
    assert run_answers(merged)


def test_every_verb_takes_the_result(runs, merge, capsys):
    merged = merge(*runs, "--weights", "0.7", "0.3")
    facts = json.loads((merged / "data.json").read_text())["merged_from"]
    assert [(fact["run"], fact["weight"]) for fact in facts] == [("runs/birds", 0.7), ("runs/cars", 0.3)]
    first_line = (merged / "config.yaml").read_text().splitlines()[0]
    assert first_line.startswith("# Merged, not trained: 0.7 runs/birds + 0.3 runs/cars, by cat.")
    assert "runs/merged: 0.7 runs/birds + 0.3 runs/cars by cat, rank 8" in capsys.readouterr().out
    assert main(["chat", str(merged), "--image", "0.png", "--prompt", "Hi", "--max-new-tokens", "2"]) == 0
    Path("questions.json").write_text(json.dumps([{"image": "0.png", "question": "What colour?"}]))
    assert main(["compare", "base", str(merged), "--questions", "questions.json", "--max-new-tokens", "2"]) == 0
    assert main(["export", str(merged), "--format", "hf-llava", "--output", "llava"]) == 0
    make(
        "on",
        f"model.init_from={merged}",
        "model.adapter={kind: lora, r: 8, lora_alpha: 8}",
        "train.learning_rate=1e-30",
    )
    assert_close(updates("runs/on"), updates(merged))
    make("up", f"model.stack_on=[{merged}]", f"model.init_from={merged}")


def test_a_4_bit_run_merges(runs, merge):
    small = [
        make(name, "model.llm.quantization=nf4", seed) for name, seed in (("a", "train.seed=1"), ("b", "train.seed=2"))
    ]
    assert_close(updates(merge(*small)), sum_of((0.5, updates(small[0])), (0.5, updates(small[1]))))
    assert load_run("runs/merged").model.config.quantization_config is not None


def test_mistakes(runs, refused):
    assert refused(*runs, "--weights", "1") == "--weights: 1 weights for 2 runs. Give each run one."
    assert refused(*runs, "--weights", "1", "nan").startswith("--weights: weights are numbers (got 1.0, nan).")
    assert refused(*runs, "--weights", "1", "-1").startswith("--weights: the weights of the runs that see must sum")
    assert refused("runs/birds", "runs/pretrain").startswith(
        "runs/pretrain: holds no adapter to merge (model.llm.tune:"
    )
    assert refused("runs/birds", "runs/none").startswith("runs/none: no such folder")
    assert refused(*runs, "--combination", "ties").startswith("--density: ties keeps a share of the values. Set it")
    assert refused(*runs, "--density", "0.5").startswith("--density: has an effect on ties, ties_svd, dare_linear")
    assert refused(*runs, "--combination", "ties", "--density", "0.5", "--svd-rank", "3").startswith(
        "--svd-rank: has an"
    )
    assert refused("runs/birds", "--combination", "svd") == (
        "--combination: svd needs two adapters or more. Take linear for one."
    )
    assert refused(*runs, "--combination", "svd", "--svd-rank", "1000") == (
        "--svd-rank: 1000 is more than a layer has (16). Take 16 or less."
    )
    rank2 = make("rank2", "model.adapter.r=2")
    assert "All adapters must have the same r value" in refused("runs/birds", rank2, "--combination", "linear")


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("{kind: ia3}", "its adapter is ia3, the model has lora: PEFT holds one kind on a model."),
        ("{kind: dora, r: 4}", "an adapter has use_dora: True, which combining would lose."),
        ("{kind: pissa, r: 4}", "its adapter started as pissa, which changes the base model's weights"),
        ("{kind: loha, r: 4, target_modules: [q_proj]}", "its adapter is loha, the model has lora"),
    ],
)
def test_adapters_that_peft_cannot_combine(runs, refused, adapter, words):
    assert words in refused("runs/birds", make("other", f"model.adapter={adapter}"))


def test_kinds_that_peft_cannot_combine(runs, refused):
    loha = make("loha", "model.adapter={kind: loha, r: 4, target_modules: [q_proj]}")
    assert refused(loha).startswith("--combination: PEFT combines lora and ia3 adapters alone (got loha).")


@pytest.mark.parametrize(
    "adapters",
    [
        ("{kind: ia3}", "{kind: ia3, target_modules: [k_proj], feedforward_modules: []}"),
        (
            "{kind: lora, r: 4, target_modules: [q_proj], layers_to_transform: [0]}",
            "{kind: lora, r: 4, target_modules: [q_proj], layers_to_transform: [1]}",
        ),
    ],
)
def test_adapters_on_other_layers_are_not_combined_in_part(runs, refused, adapters):
    made = [make(str(number), f"model.adapter={adapter}") for number, adapter in enumerate(adapters)]
    assert refused(*made).startswith("--combination: the adapters are on other layers, which PEFT cannot combine.")


def test_ranks_that_differ_between_layers(runs, refused, merge):
    mixed = make("mixed", "model.adapter={kind: lora, r: 4, rank_pattern: {q_proj: 2}}")
    assert "linear gives layers of ranks 2, 4 where 4 is meant. Take cat" in refused(
        mixed, mixed, "--combination", "linear"
    )
    merge(mixed, "runs/birds")


def test_other_projectors_and_trained_encoders_are_refused(runs, refused):
    make("linear_first", "model.projector.kind=linear", verb="pretrain")
    linear = make("linear", "model.projector.kind=linear", "model.init_from=runs/linear_first")
    assert refused("runs/birds", linear).startswith("runs/linear: its projector is another kind (linear, standardize:")
    eyes = make("eyes", "model.vision.tune=adapter", "model.vision.adapter={kind: lora, r: 2}")
    assert refused("runs/birds", eyes).startswith(
        "runs/eyes: holds a trained vision_adapter, which merging would lose."
    )


def test_a_folder_with_files_is_left_alone(runs, capsys):
    before = {path: path.read_bytes() for path in Path("runs/cars").rglob("*") if path.is_file()}
    assert main(["merge", *map(str, runs), "-o", "runs/cars"]) == 2
    assert "mmtune: --output: runs/cars is not empty. Name another --output." in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("runs/cars").rglob("*") if path.is_file()} == before


def test_the_command_line_names_all_combinations():
    assert set(CHOICES) == set(COMBINATIONS)
