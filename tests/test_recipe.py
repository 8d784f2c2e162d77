"""`mmtune run`: what is skipped, continued, made anew and refused, and what a dry run says of it."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from recipe_workspace import STEPS, finished, write_recipe
from training_workspace import models, workspace

from mmtune.cli import main
from mmtune.recipe_plan import plan_lines, plan_recipe
from mmtune.run_folder import newest_checkpoint
from mmtune.training.run_lock import run_lock

__all__ = ["models", "workspace"]


@pytest.fixture
def recipe(workspace):
    """A recipe of two trainings, `short.yaml`."""
    steps = [
        {"name": "check", "verb": "check", "config": {"steps": ["pretrain"]}},
        {"name": "pretrain", "verb": "pretrain", "config": "pretrain.yaml", "overrides": ["train.max_steps=2"]},
        {
            "name": "finetune",
            "verb": "finetune",
            "config": "finetune.yaml",
            "overrides": ["train.max_steps=2", "model.init_from=runs/short/pretrain"],
            "needs": ["pretrain"],
        },
    ]
    Path("short.yaml").write_text(yaml.safe_dump({"steps": steps}))
    return Path("runs/short")


@pytest.fixture
def short(recipe):
    """The same, and it has run."""
    assert main(["run", "short.yaml"]) == 0
    return recipe


def mistake(capsys, *argv):
    capsys.readouterr()
    assert main(["run", "short.yaml", *argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def plan(*overrides, overwrite=False, **options):
    return list(plan_lines(plan_recipe("short.yaml", overrides, **options), overwrite=overwrite))


def first_lines(lines):
    return [line for line in lines if not line.startswith(" ")]


def test_ctrl_c_saves_and_says_that_the_same_command_continues(recipe, capsys):
    def interrupt():
        while not (recipe / "pretrain" / "checkpoint-2").exists():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    command = ["run", "short.yaml", "pretrain.train.max_steps=40", "pretrain.train.save_steps=2"]
    threading.Thread(target=interrupt, daemon=True).start()
    assert main(command) == 130
    newest = newest_checkpoint(recipe / "pretrain")
    expected = f"mmtune: Ctrl-C: saved {newest}; the same command continues"
    assert capsys.readouterr().err.splitlines()[-1] == expected
    assert main(command) == 0


def test_what_is_complete_is_not_repeated_and_what_is_missing_is(short):
    before = finished(short, "check", "pretrain", "finetune")
    assert main(["run", "short.yaml"]) == 0
    assert finished(short, *before) == before
    shutil.rmtree(short / "finetune")
    assert main(["run", "short.yaml"]) == 0
    assert finished(short, "check", "pretrain") == {name: before[name] for name in ("check", "pretrain")}


def test_a_changed_data_file_is_named_and_made_anew_with_what_rests_on_it(short, capsys):
    before = finished(short, "check", "pretrain", "finetune")
    captions = json.loads(Path("captions.json").read_text())
    Path("captions.json").write_text(json.dumps(captions[:6]))
    line = mistake(capsys)
    assert line == (
        "mmtune: runs/short/check: was made from another config or other inputs than step 'check' has now"
        " (content of captions.json). --overwrite makes it anew."
    )
    assert first_lines(plan()) == [
        "1 check     check: inputs changed (content of captions.json): stops here; --overwrite makes it anew",
        "2 pretrain  pretrain: inputs changed (content of captions.json): stops here; --overwrite makes it anew",
        "3 finetune  finetune: complete, but pretrain will run before: stops here if that changes; --overwrite makes"
        " it anew",
    ]
    assert main(["run", "short.yaml", "--overwrite"]) == 0
    after = finished(short, *before)
    assert all(after[name] != before[name] for name in before)
    assert main(["run", "short.yaml"]) == 0
    assert finished(short, *before) == after


def test_a_changed_key_is_named_and_other_steps_stay(short, capsys):
    before = finished(short, "check", "pretrain", "finetune")
    line = mistake(capsys, "finetune.train.seed=7")
    assert "than step 'finetune' has now (train.seed: None -> 7). --overwrite makes it anew." in line
    assert main(["run", "short.yaml", "finetune.train.seed=7", "--overwrite"]) == 0
    assert finished(short, "check", "pretrain") == {name: before[name] for name in ("check", "pretrain")}
    assert finished(short, "finetune")["finetune"] != before["finetune"]


def test_a_file_that_was_lost_is_named(short, capsys):
    (short / "pretrain/projector.safetensors").unlink()
    line = mistake(capsys)
    assert "runs/short/pretrain: step 'pretrain' was complete, and is not any more:" in line
    assert "projector.safetensors" in line
    assert line.endswith("--overwrite makes it anew.")
    assert "files are damaged" in plan()[1]
    assert main(["run", "short.yaml", "--overwrite"]) == 0


def test_from_takes_what_is_before_as_it_is(short, capsys):
    before = finished(short, "check", "pretrain", "finetune")
    captions = Path("captions.json")
    captions.write_text(captions.read_text() + "\n")
    assert main(["run", "short.yaml", "--from", "finetune"]) == 0
    assert finished(short, *before) == before
    assert first_lines(plan(first="finetune"))[0].startswith("1 finetune  finetune: complete, took ")
    shutil.rmtree(short / "pretrain")
    line = mistake(capsys, "--from", "finetune")
    assert line == (
        "mmtune: --from finetune: step 'finetune' needs step 'pretrain', which is not complete in runs/short/pretrain."
        " Take --from pretrain, or leave --from out."
    )
    assert mistake(capsys, "--from", "finetune", "--dry-run") == line
    assert "unknown name 'finetun'. Did you mean 'finetune'?" in mistake(capsys, "--from", "finetun")


def test_a_dry_run_writes_nothing_and_says_memory_and_steps(short, capsys):
    shutil.rmtree(short / "finetune")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    capsys.readouterr()
    assert main(["run", "short.yaml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    assert lines[0] == "1 check     check: complete: not repeated"
    assert lines[1].startswith("2 pretrain  pretrain: complete, took ")
    assert lines[2] == "3 finetune  finetune: runs"
    text = "\n".join(lines[3:])
    assert "fits on this machine: needs " in text
    assert "longest batch: 2 x " in text
    assert "optimizer steps: 2" in text
    assert "time: not known; --probe runs the longest batch here" in text


def test_a_dry_run_before_anything_ran_probes_the_time_of_all_trainings(short):
    shutil.rmtree(short)
    lines = plan(probes=True)
    assert first_lines(lines)[:3] == [
        "1 check     check: runs",
        "2 pretrain  pretrain: runs",
        "3 finetune  finetune: runs after pretrain",
    ]
    assert sum("s for the longest batch on cpu, about" in line for line in lines) == 2
    assert lines[-1].startswith("trainings take about ")
    assert not short.exists()


def test_the_plan_is_for_a_card_of_a_size_and_only_for_a_dry_run(short, capsys):
    message = "it is for the plan of a recipe. Add --dry-run, or leave it out."
    assert mistake(capsys, "--gpu-memory", "8") == f"mmtune: command line: --gpu-memory: {message}"
    assert mistake(capsys, "--probe") == f"mmtune: command line: --probe: {message}"
    lines = plan("finetune.train.device=auto", first="finetune", gpu_memory=8, overwrite=True)
    assert "inputs changed (train.device: cpu -> auto): made anew" in lines[0]
    assert "fits on a card of 8 GiB" in lines[1]


def test_bad_data_stops_at_the_check_and_mended_data_goes_on(short, capsys):
    shutil.rmtree(short)
    good = Path("captions.json").read_text()
    records = json.loads(good)
    records[2]["conversations"] = []
    Path("captions.json").write_text(json.dumps(records))
    line = mistake(capsys)
    assert line == (
        "mmtune: runs/short/check/pretrain.jsonl: 1 of 10 records cannot be trained. Mend what is listed there, or set"
        " data.on_bad_record=skip."
    )
    assert not (short / "pretrain").exists()
    Path("captions.json").write_text(good)
    assert main(["run", "short.yaml"]) == 0


@pytest.mark.parametrize(("key", "broken"), [("train", "captions.json"), ("validation", "held.json")])
def test_a_check_stops_where_nothing_is_left_to_train_or_to_measure(recipe, capsys, key, broken):
    """Good records of the one do not hide that the other has none."""
    shutil.copy("captions.json", "held.json")
    records = [record | {"conversations": []} for record in json.loads(Path(broken).read_text())]
    Path(broken).write_text(json.dumps(records))
    keys = ["pretrain.data.validation=[{path: held.json}]", "pretrain.data.on_bad_record=skip"]
    assert mistake(capsys, *keys) == (
        f"mmtune: runs/short/check/pretrain.jsonl: no sample is left of the 10 records of data.{key}."
        " Mend what is listed there."
    )
    assert not (recipe / "pretrain").exists()


def test_what_a_late_step_misses_is_said_before_the_first_runs(workspace, capsys):
    write_recipe()
    Path("questions.json").unlink()
    assert main(["run", "whole.yaml"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("mmtune: step compare: questions.json is not there (resolved to ")
    assert not Path("runs").exists()
    assert "    not there, and no step makes it: questions.json" in list(
        plan_lines(plan_recipe("whole.yaml"), overwrite=False)
    )
    assert main(["run", "whole.yaml", "export.formt=gguf"]) == 2
    assert "export: unknown key 'formt'. Did you mean 'format'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{steps: [finetun]}", "step check: steps: unknown name 'finetun'. Did you mean 'finetune'?"),
        ("{step: [finetune]}", "step check: unknown key 'step'. check knows one: steps, the trainings it is for."),
        ("{steps: 3}", "step check: 'steps' is a list of trainings (got 3). Known: pretrain, finetune."),
    ],
)
def test_a_check_is_for_trainings_of_the_recipe(recipe, capsys, config, words):
    recipe = yaml.safe_load(Path("short.yaml").read_text())
    recipe["steps"][0]["config"] = yaml.safe_load(config)
    Path("short.yaml").write_text(yaml.safe_dump(recipe))
    assert words in mistake(capsys)


def test_a_copy_that_reads_the_steps_of_its_original_is_refused(recipe, capsys):
    text = Path("short.yaml").read_text()
    Path("other.yaml").write_text(text)
    assert main(["run", "other.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "mmtune: step finetune: needs step 'pretrain' of this recipe, and reads runs/short/pretrain, which is that of"
        " another one. Write runs/RECIPE/pretrain for what this one makes."
    )
    Path("other.yaml").write_text(text.replace("runs/short/", "runs/RECIPE/"))
    (planned,) = [entry for entry in plan_recipe("other.yaml") if entry.step.name == "finetune"]
    assert planned.step.values["model"]["init_from"] == "runs/other/pretrain"
    assert planned.waits_for == ("pretrain",)
    changed = ["finetune.model.init_from=runs/RECIPE/check"]
    assert plan_recipe("other.yaml", changed)[2].step.values["model"]["init_from"] == "runs/other/check"


def test_one_process_at_a_time_runs_a_recipe(short, capsys):
    with run_lock(short):
        line = mistake(capsys)
    assert "runs/short: another run writes here (process" in line
    assert line.endswith("Wait for its end, or take another name for the recipe's file.")


def test_all_kinds_of_steps_are_run(workspace):
    write_recipe()
    assert main(["run", "whole.yaml"]) == 0
    before = finished("runs/whole")
    assert list(before) == list(STEPS)
    assert main(["run", "whole.yaml"]) == 0
    assert finished("runs/whole") == before
