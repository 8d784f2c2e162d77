"""mmtune as a library: its public names, and the examples of its page, run in their order."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from readme import READMES, ROOT, blocks_of
from safetensors.torch import load_file
from training_workspace import COLOURS, models, workspace

import mmtune
from mmtune import (
    ChatSession,
    Conversation,
    DataError,
    Decoding,
    ImageSlot,
    Message,
    MMTuneError,
    load_config,
    load_run,
    save_run,
    train,
)
from mmtune.cli import main
from mmtune.hashing import file_hash

__all__ = ["models", "workspace"]
PAGE = ROOT / "docs" / "library.md"
CALM = "train.lr_scheduler_type=constant train.warmup_ratio=0 model.adapter.lora_dropout=0.0 train.num_train_epochs=1"
SHORT = ("train.max_steps=2", "train.save_steps=0")
LENGTH = ("--max-new-tokens", "16")
PLAIN = ("train.fused_lora=false", "train.recompute_activations=false", "train.optim=adamw_torch")
WEIGHTS = ("projector.safetensors", "adapter/adapter_model.safetensors")


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)


# ---------------------------------------------------------------- names


def test_the_names_that_type_checkers_see_are_those_of_the_table():
    tree = ast.parse(Path(mmtune.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    shown = {alias.asname: node.module for node in block.body for alias in node.names if alias.name == alias.asname}
    assert shown == mmtune.MODULE_OF
    assert set(mmtune.__all__) == set(shown) <= set(dir(mmtune))


@pytest.mark.parametrize("name", mmtune.MODULE_OF)
def test_a_public_name_is_there_and_no_module_hides_it(name):
    value = getattr(mmtune, name)
    assert value is vars(sys.modules[mmtune.MODULE_OF[name]])[name]
    folder = Path(mmtune.__file__).parent
    assert not (folder / f"{name}.py").exists(), "importing the module would put it in the place of the name"
    assert not (folder / name).is_dir()


def test_an_unknown_name_has_the_usual_error():
    with pytest.raises(AttributeError, match="module 'mmtune' has no attribute 'trian'"):
        mmtune.trian  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'trian'"):
        exec("from mmtune import trian")


def test_importing_the_package_loads_nothing():
    found = python("import sys, mmtune; dir(mmtune); print(*(name.split('.')[0] for name in sys.modules))")
    assert not {"torch", "transformers", "peft", "numpy", "yaml", "omegaconf", "PIL"} & set(found.stdout.split())


# ---------------------------------------------------------------- the page


def example(heading):
    """The code under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(part.split("\n```")[0] for part in section.split("```python\n")[1:])


@pytest.fixture
def photo(workspace):
    Image.new("RGB", (64, 48), COLOURS["red"]).save("photo.png")
    return workspace


def test_the_examples_of_the_page_run_in_their_order(photo, capsys):
    names = {}
    blocks = [block.text for block in blocks_of(PAGE) if block.language == "python"]
    assert len(blocks) == 8
    shown = []
    for code in blocks:
        exec(compile(code, PAGE.name, "exec"), names)
        captured = capsys.readouterr()
        shown.append(captured.out)
    assert "finetune/manifest.json" in shown[0].replace("\\", "/")
    assert len(shown[1].splitlines()) >= 3
    assert "('base', 0.0)" in shown[2]
    assert "0.7 runs/finetune + 0.3 runs/other" in shown[2].replace("\\", "/")
    assert "A cat.<|im_end|>" in shown[3]
    assert "'input_ids': (2, " in shown[4]
    assert "10 samples; 0 bad records" in shown[5]
    assert "unknown key 'train.learning_rat'. Did you mean 'train.learning_rate'?" in shown[6]
    assert "captions is complete and has this config: nothing to do" in captured.err
    assert Path("runs/report/page.html").is_file()
    assert main(["chat", "runs/own_loop", "--image", "photo.png", "--prompt", "What is this?", *LENGTH]) == 0
    assert capsys.readouterr().out.strip() == shown[5].splitlines()[-1].strip()


def test_the_example_of_the_readmes_runs(photo):
    """A file of the workspace stands where the README names a shipped config."""
    examples = [[block.text for block in blocks_of(readme) if block.language == "python"] for readme in READMES]
    assert examples[0] == examples[1]
    assert len(examples[0]) == 1
    train(load_config("pretrain.yaml", SHORT))
    Path("demo").mkdir()
    shutil.copy("finetune.yaml", "demo/finetune")
    exec(compile(examples[0][0], "README.md", "exec"), {})
    assert Path("runs/mine/manifest.json").is_file()


@pytest.mark.parametrize("fast", [True, False])
def test_the_loop_of_the_page_trains_as_train_does(photo, fast):
    """With the measures for speed off to the bit, with them as close as two ways to sum."""
    changes = [*CALM.split(), *(() if fast else PLAIN)]
    captions = train(load_config("pretrain.yaml", ["train.output_dir=runs/captions", *SHORT]))
    expected = train(load_config("finetune.yaml", [f"model.init_from={captions}", *changes]))
    names = {
        "captions": captions,
        "load_config": lambda path, given: load_config(path, [*given, *changes]),
        "ChatSession": ChatSession,
        "Decoding": Decoding,
    }
    exec(compile(example("A loop of your own"), PAGE.name, "exec"), names)
    moved = 0.0
    for name in WEIGHTS:
        found, wanted = (load_file(folder / name) for folder in (Path("runs/own_loop"), expected))
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6 if fast else 0.0)
            moved = max(moved, float(value.abs().max()))
    before = load_file(captions / WEIGHTS[0])
    assert any(not torch.equal(value, before[key]) for key, value in load_file(expected / WEIGHTS[0]).items())
    assert moved > 0


# ---------------------------------------------------------------- the functions


def test_a_call_leaves_what_the_verb_leaves(photo):
    for verb, path in (("pretrain", "pretrain.yaml"), ("finetune", "finetune.yaml")):
        by_call = train(load_config(path, SHORT))
        hashes = {name: file_hash(by_call / name) for name in WEIGHTS if (by_call / name).is_file()}
        assert main([verb, path, *SHORT, f"train.output_dir=runs/{verb}_by_verb"]) == 0
        by_verb = Path(f"runs/{verb}_by_verb")
        assert hashes == {name: file_hash(by_verb / name) for name in hashes}
        assert '"verb": "' + verb in (by_call / "versions.json").read_text(encoding="utf-8")
        assert len(hashes) == (1 if verb == "pretrain" else 2)


def test_a_session_answers_as_chat_does_with_the_system_message_of_the_data(photo, capsys):
    told = "data.train.0.system=Answer in one word."
    run = train(load_config("pretrain.yaml", [told, *SHORT]))
    session = ChatSession.from_run(run, Decoding(max_new_tokens=8))
    assert session.system == "Answer in one word."
    answer = session.ask("What colour?", ["photo.png"])
    assert main(["chat", str(run), "--image", "photo.png", "--prompt", "What colour?", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.strip() == answer
    ids = list(session.ids)
    session.reset()
    assert session.ask("What colour?", [Image.open("photo.png")]) == answer
    assert session.ids == ids
    assert ChatSession.from_run(run, system="").system is None


def test_what_a_caller_can_do_wrong_is_one_line(photo):
    run = train(load_config("pretrain.yaml", SHORT))
    parts = load_run(run)
    ask = Message("user", (ImageSlot("photo.png"), "\nWhat is this?"))
    said = Message("assistant", ("A cat.",))
    session = ChatSession(parts, Decoding(max_new_tokens=2))
    mistakes = [
        (lambda: session.ask("What?", "photo.png"), "images: must be a list (got str). Write images=[IMAGE]."),
        (lambda: session.ask("What?", [Image.new("RGB", (2, 2))]), "image: too small (2 x 2 pixels"),
        (lambda: session.ask("What?", ["none.png"]), "none.png"),
        (lambda: load_config("pretrain.yaml", verb="pretrian"), "verb: unknown name 'pretrian'. Did you mean"),
        (lambda: load_config("nowhere.yaml"), "nowhere.yaml: no such file"),
        (lambda: load_run("nowhere"), "nowhere: no such folder"),
        (lambda: save_run(run, load_config("pretrain.yaml"), parts), "holds something already. Name another folder."),
        (lambda: parts.encode(Conversation((ask,))), "its last turn is the user's. It must be an answer."),
        (lambda: parts.dataset([]), "samples: there is none."),
        (
            lambda: parts.dataset([Conversation((ask, said)), Conversation((ask, ask, said))]),
            "conversations[1]: turn 2",
        ),
        (lambda: parts.dataset([Conversation((ask, said))], max_length=4), "conversations[0]: no answer is left"),
    ]
    for mistake, line in mistakes:
        with pytest.raises(MMTuneError) as caught:
            mistake()
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_image_of_a_conversation_is_one_of_its_folder(photo):
    parts = load_run(train(load_config("pretrain.yaml", SHORT)))
    said = Message("assistant", ("A cat.",))
    talks = [Conversation((Message("user", (ImageSlot(name), "What?")), said)) for name in ("none.png", "../x.png")]
    dataset = parts.dataset(talks)
    with pytest.raises(DataError, match=r"conversations\[0\]: image none.png is missing"):
        dataset[0]
    with pytest.raises(DataError, match=r"conversations\[1\]: image ../x.png lies outside the image folder"):
        dataset[1]
