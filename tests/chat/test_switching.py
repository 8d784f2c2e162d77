"""Several runs on one model: each answers as it does alone, and the base model as before any of them."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from training_workspace import PROBES, answers, make, models, workspace, write_workspace

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.chat.switching import AdapterSwitch, run_names
from mmtune.cli import main
from mmtune.errors import CheckpointError, ConfigError
from mmtune.evaluate.compare import _load as load_model
from mmtune.testing import write_tiny_llm

__all__ = ["models", "workspace"]

ONE_STEP = "train.max_steps=1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models):
    """A working directory with a pretrained run, two adapters trained otherwise, and one stacked on the first."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_workspace(models)
        pretrain = make("pretrain", verb="pretrain")
        birds = make("birds", "train.seed=1")
        cars = make("cars", "model.adapter.r=2", "train.learning_rate=1e-2", "model.adapter.target_modules=[q_proj]")
        stacked = make("stacked", "model.stack_on=[runs/birds]", "model.init_from=runs/birds", "train.seed=5")
    return folder, (pretrain, birds, cars, stacked)


@pytest.fixture
def runs(workspace, trained):
    """These four runs, copied, so that a test may change them."""
    folder, found = trained
    shutil.copytree(folder, workspace, dirs_exist_ok=True)
    return found


@torch.no_grad()
def hidden(parts):
    """What a model makes of an image and a text, to the last bit."""
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return parts.model.hidden_states(
        torch.cat([parts.model.encode_images(pixels), parts.model.embed(torch.arange(9)[None])], 1)
    )


@pytest.mark.parametrize("first", range(4))
def test_each_run_answers_as_it_does_alone(runs, first):
    ordered = [runs[first], *(run for run in runs if run != runs[first])]
    alone = {run.name: (answers(parts := load_run(run)), hidden(parts)) for run in runs}
    assert len({str(found) for found, _ in alone.values()}) > 1
    assert not any(torch.equal(alone["birds"][1], alone[name][1]) for name in ("pretrain", "cars", "stacked"))
    switch = AdapterSwitch(ordered)
    for name in [*switch.names, *reversed(switch.names)]:
        switch.select(name)
        assert switch.active == name
        assert answers(switch.parts) == alone[name][0]
        assert torch.equal(hidden(switch.parts), alone[name][1])
        assert not any(value.requires_grad for value in switch.parts.model.parameters())


@pytest.mark.parametrize("folders", [("birds",), ("stacked", "cars"), ("pretrain", "birds")])
def test_without_an_adapter_the_base_model_answers(runs, folders):
    switch = AdapterSwitch([Path("runs") / name for name in folders])
    before = answers(switch.parts)
    text = [probe for probe in PROBES if not probe[1]]
    base = answers(load_model("base", f"runs/{folders[0]}", torch.device("cpu")), text)
    for name in ("none", "base"):
        switch.select(name)
        assert switch.active == "none"
        assert answers(switch.parts, text) == base
    seen = hidden(switch.parts)  # through the projector of the run
    plain = load_run(Path("runs") / folders[0])
    plain.model.llm = plain.model.llm.unload() if folders[0] != "pretrain" else plain.model.llm
    assert torch.equal(seen, hidden(plain))
    switch.select(folders[0])
    assert answers(switch.parts) == before


def test_a_vision_adapter_is_switched_too(workspace):
    make("pretrain", verb="pretrain")
    eyes = ("model.vision.tune=adapter", "model.vision.adapter={kind: lora, r: 2}", "train.learning_rate=1e-2")
    make("plain")
    make("eyes", *eyes)
    make("more", *eyes, "train.seed=3")
    alone = {name: hidden(load_run(f"runs/{name}")) for name in ("plain", "eyes", "more")}
    for order in (("plain", "eyes", "more"), ("more", "plain", "eyes")):
        switch = AdapterSwitch([f"runs/{name}" for name in order])
        for name in (*order, *reversed(order)):
            switch.select(name)
            assert torch.equal(hidden(switch.parts), alone[name]), (order, name)


def test_the_dialogue_in_the_terminal(runs, monkeypatch, capsys):
    typed = ["What colour?", "/adapter", "/adapter cras", "/adapter cars", "What colour?", "/adapter none", "Hi"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*typed, "/adapter", "/help", "/exit"])))
    argv = ["chat", "runs/birds", "--adapters", "runs/cars", "--image", "0.png", "--max-new-tokens", "6"]
    assert main(argv) == 2  # there is no run cras
    out, text = capsys.readouterr()
    told = [ask(run, "What colour?", "0.png") for run in ("runs/birds", "runs/cars")]
    assert out.startswith("".join(f"{answer}\n" for answer in told))
    assert "birds (answers), cars, none. /adapter NAME switches." in text
    assert "/adapter: unknown name 'cras'. Did you mean 'cars'? Known: base, birds, cars, none." in text
    assert "cars answers; the dialogue starts anew" in text
    assert "no adapter: the base model answers; the dialogue starts anew" in text
    assert "birds, cars, none (answers)." in text


def test_before_and_after_and_the_layers_of_a_stack(runs, monkeypatch, capsys):
    typed = ["Hi", "/adapter", "/before", "/retry", "/after", "/retry", "/adapter stacked/stacked/0", "/retry"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*typed, "/adapter runs/cars", "/retry", "/adapter"])))
    assert main(["chat", "runs/stacked", "--max-new-tokens", "8", "--json"]) == 0
    out, told = capsys.readouterr()
    found = [json.loads(line)["answer"] for line in out.splitlines()]
    names = ["runs/stacked", "base", "runs/stacked", "runs/birds", "runs/cars"]
    models = [load_model("base", names[0], torch.device("cpu")) if name == "base" else load_run(name) for name in names]
    assert found == [ChatSession(parts, Decoding(max_new_tokens=8)).ask("Hi") for parts in models]
    assert "the same model says the same" not in told, "another one was asked each time"
    assert "stacked (answers), stacked/stacked/0, none. /adapter NAME switches." in told
    assert "stacked, cars (answers), stacked/stacked/0, none. /adapter NAME switches." in told


def test_a_run_that_joins_later_answers_as_it_does_alone(runs):
    alone = {run.name: hidden(load_run(run)) for run in runs}
    switch = AdapterSwitch(["runs/birds"])
    for name in ("cars", "stacked", "pretrain"):
        assert switch.add(f"runs/{name}") == name
        assert switch.active == "birds"
        assert torch.equal(hidden(switch.parts), alone["birds"])
    assert switch.add("runs/cars/") == "cars"
    for name in switch.names:
        switch.select(name)
        assert torch.equal(hidden(switch.parts), alone[name])
        assert not any(value.requires_grad for value in switch.parts.model.parameters())


def test_a_run_without_an_adapter_has_nothing_before_it(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("/before\n"))
    assert main(["chat", "runs/pretrain"]) == 2
    assert "mmtune: /before: pretrain trained no adapter: the base model answers already" in capsys.readouterr().err


def test_the_base_of_an_adapter_in_4_bits(runs):
    switch = AdapterSwitch(["runs/birds"], quantization="nf4")
    quantized = load_run("runs/birds", quantization="nf4")
    assert {"Linear4bit"} <= {type(module).__name__ for module in quantized.model.modules()}
    assert torch.equal(hidden(switch.parts), hidden(quantized))
    assert not torch.equal(hidden(quantized), hidden(load_run("runs/birds")))


def ask(folder, question, image):
    session = ChatSession(load_run(folder), Decoding(max_new_tokens=6))
    return session.ask(question, (image,))


def test_names_of_runs():
    assert run_names([Path("a/x"), Path("b/y")]) == ["x", "y"]
    assert run_names([Path("a/x"), Path("b/x"), Path("c/none")]) == ["a/x", "b/x", "c/none"]


def refused(*folders):
    with pytest.raises(CheckpointError) as caught:
        AdapterSwitch(folders)
    return str(caught.value)


def test_runs_that_cannot_share_are_refused(runs, tmp_path, models):
    ia3 = make("ia3", "model.adapter={kind: ia3}", ONE_STEP)
    assert refused("runs/birds", ia3) == (
        "runs/ia3/adapter: its adapter is ia3, the model has lora: PEFT holds one kind on a model."
        " Take adapters of one kind."
    )
    pissa = make("pissa", "model.adapter={kind: pissa, r: 2}", ONE_STEP)
    for order in (("runs/birds", pissa), (pissa, "runs/birds")):
        assert refused(*order).startswith("runs/pissa/adapter: its adapter started as pissa, which changes the base")
    template = make("zephyr", "model.llm.chat_template=zephyr", ONE_STEP)
    assert refused("runs/birds", template).startswith(
        "runs/zephyr: has model.llm.chat_template: zephyr, and runs/birds has chatml."
    )
    quantized = make("quantized", "model.llm.quantization=nf4", ONE_STEP)
    assert refused("runs/birds", quantized).startswith("runs/quantized: has model.llm.quantization: nf4")
    other = write_tiny_llm(tmp_path / "other", intermediate_size=96)
    config = yaml.safe_load(Path("finetune.yaml").read_text())
    config["model"]["llm"]["name_or_path"] = str(other)
    Path("finetune.yaml").write_text(yaml.safe_dump(config))
    assert refused("runs/birds", make("other", ONE_STEP)).startswith(
        f"runs/other: was trained on another llm ({other}, hash "
    )


def test_a_run_with_a_whole_model_of_its_own_chats_alone(runs):
    full = make("full", "model.llm.tune=full", "model.adapter=null", ONE_STEP)
    assert "trained the whole model.llm (tune: full)" in refused("runs/birds", full)
    with pytest.raises(ConfigError, match="there is no adapter to unload"):
        AdapterSwitch([full]).select("none")


def test_text_and_images_do_not_mix(runs):
    Path("text.json").write_text(
        json.dumps([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}])
    )
    blind = ["model.vision=null", "model.projector=null", "model.init_from=null", "data.train=[{path: text.json}]"]
    text = make("text", *blind, verb="sft")
    assert refused("runs/birds", text).startswith(
        "runs/text: cannot go with runs/birds: runs/text has no vision encoder"
    )
    other = make("text_too", *blind, "train.seed=2", verb="sft")
    switch = AdapterSwitch([text, other])
    switch.select("text_too")
    assert answers(switch.parts, [("Hi", ())]) == answers(load_run(other), [("Hi", ())])


def test_one_prompt_asks_one_run(runs, capsys):
    capsys.readouterr()
    assert main(["chat", "runs/birds", "--adapters", "runs/cars", "--prompt", "Hi"]) == 2
    assert "mmtune: --adapters: a dialogue switches among runs, and --prompt asks one." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tuned", "words"),
    [
        (
            ["model.adapter={kind: prompt_tuning, num_virtual_tokens: 3}"],
            "its adapter is prompt_tuning: virtual",
        ),
        (["model.adapter={kind: houlsby, bottleneck_size: 4}"], "trained the language model itself"),
        (["model.adapter=null", "model.llm.tune={top_layers: 1}"], "trained the language model itself"),
    ],
)
def test_what_cannot_be_unloaded_answers_alone_and_says_so(workspace, tuned, words):
    make("pretrain", verb="pretrain")
    run = make("tuned", *tuned)
    switch = AdapterSwitch([run])
    expected = answers(load_run(run))
    assert answers(switch.parts) == expected
    with pytest.raises((CheckpointError, ConfigError), match=words):
        switch.select("none")
    assert answers(switch.parts) == expected
