"""The card of a recipe: what it holds, that the hub can read it, and what it does not tell."""

import json
import os
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from recipe_workspace import write_recipe
from training_workspace import models, write_workspace

from mmtune.cli import main
from mmtune.recipe_card import CARD_FILE, PAGE_FILE, _without_places
from mmtune.run_folder import read_json

__all__ = ["models"]
TOKEN = "hf_" + "aB3" * 8


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_workspace(models)
        yield folder


@pytest.fixture(scope="module")
def made(workspace):
    """A recipe that has run, over data with a bad record and a question that spells a token."""
    records = json.loads(Path("dialogues.json").read_text())
    records[5]["conversations"] = []
    Path("dialogues.json").write_text(json.dumps(records))
    recipe = write_recipe()
    questions = json.loads(Path("questions.json").read_text())
    questions[1]["question"] = f"Is | /usr/bin/env <b>{TOKEN}</b> a path?"
    Path("questions.json").write_text(json.dumps(questions))
    skip = [f"{name}.data.on_bad_record=skip" for name in ("finetune", "again")]
    whole = f"pretrain.data.train.0.path={workspace / 'captions.json'}"
    assert main(["run", recipe, *skip, whole]) == 0
    return Path("runs/whole")


def test_the_card_has_what_was_made_and_from_what(made):
    card = read_json(made / CARD_FILE)
    assert [step["verb"] for step in card["steps"]] == [
        "check", "pretrain", "finetune", "finetune", "merge", "compare", "eval", "export"
    ]  # fmt: skip
    assert [training["seed"] for training in card["trainings"]] == [42, 1, 2]
    assert [training["num_skipped"] for training in card["trainings"]] == [0, 1, 1]
    assert card["trainings"][1]["skipped"][0]["place"].startswith("dialogues.json:")
    assert card["trainings"][1]["config"]["train"]["max_steps"] == 4
    assert [step for step, _ in card["trainings"][0]["loss"]] == [1, 2, 3, 4]
    assert {model["part"] for model in card["base_models"]} == {"llm", "vision"}
    assert {row["model"] for row in card["scores"][0]["rows"]} == {"base", "pretrain", "merged"}
    assert {*card["samples"][0]["answers"]} == {"base", "pretrain", "merged"}
    assert card["benchmarks"][0]["num_answered"] == 18
    assert {row["group"] for row in card["benchmarks"][0]["rows"]} > {"all"}
    assert card["exports"][0]["format"] == "merged"
    assert card["exports"][0]["parity"]
    assert card["checks"][1]["num_bad_records"] == 1
    assert card["versions"] == read_json(made / "finetune/versions.json")["versions"]


def test_the_page_is_a_model_card_of_the_hub(made):
    page = ModelCard.load(made / PAGE_FILE)
    assert page.data.library_name == "transformers"
    assert page.data.pipeline_tag == "image-text-to-text"
    assert page.data.tags == ["mmtune", "lora"]
    assert {result.dataset_name for result in page.data.eval_results} == {"held out", "POPE"}
    text = page.text
    for title in ("Data", "Training", "Scores", "Benchmarks", "Sample answers", "Exports", "Steps", "Versions"):
        assert f"\n## {title}\n" in text
    assert "### held out, 2 questions\n\n| question | base | pretrain | merged | blank |\n" in text
    assert "\n| model.vision.source | transformers | transformers | transformers |\n" in text
    assert "finetune left out 1 of 10 records, such as:" in text
    plots = re.findall(r"!\[Loss of \w+\]\((.+)\)", text)
    assert plots
    assert all((made / plot).is_file() for plot in plots)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "&lt;b>" in text
    assert "![" not in (made / "export" / PAGE_FILE).read_text()


def test_neither_tells_places_of_this_machine_nor_tokens(made, workspace, models):
    for path in (made / CARD_FILE, made / PAGE_FILE, made / "export" / PAGE_FILE):
        text = path.read_text()
        assert "captions.json" in text
        assert TOKEN not in text
        assert "[removed]" in text.replace("\\", "")
        for place in (workspace, models, Path.home()):
            assert f"{place}{os.sep}" not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ada/my data/x.json", "x.json"),
        ("C:\\Users\\Ada L\\x.json", "x.json"),
        ("no image at /mnt/d/x.png. Mend it.", "no image at x.png. Mend it."),
        ("file:///mnt/d/x.png", "x.png"),
        ("~/data/x.json:12", "x.json:12"),
        ("data/x.json", "data/x.json"),
        ("and/or, 1/2, owner/name", "and/or, 1/2, owner/name"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("https://ada:secret@example.org/a", "https://[removed]@example.org/a"),
        (f"token {TOKEN}.", "token [removed]."),
    ],
)
def test_what_is_taken_out_of_a_text(text, left):
    assert _without_places(text) == left
    assert _without_places({"question": "Where is /usr/bin/env?"}) == {"question": "Where is /usr/bin/env?"}
