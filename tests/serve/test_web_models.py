"""What answers on the page: a run and what it was before, by one model where they can share it."""

import shutil
from pathlib import Path

import pytest
from training_workspace import PROBES, answers, make, models, run_answers, workspace, write_workspace

from mmtune.errors import ConfigError, MMTuneError
from mmtune.run_folder import read_config
from mmtune.serve.web_models import AFTER, BEFORE, Choice, open_sides

__all__ = ["models", "workspace"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_workspace(models)
        make("pretrain", "train.max_steps=2", verb="pretrain")
        make("tuned", "train.learning_rate=2e-2", "train.max_steps=2")
        make("whole", "model.llm.tune=full", "model.adapter=null", "train.learning_rate=1e-2", "train.max_steps=2")
    return folder


@pytest.fixture
def runs(workspace, trained):
    shutil.copytree(trained, workspace, dirs_exist_ok=True)
    return workspace


def said(side, probes=PROBES):
    side.select()
    return answers(side.parts, probes)


def test_two_runs_on_one_base_share_it_and_answer_as_they_do_alone(runs):
    after, before = open_sides("runs/tuned", "runs/pretrain", Choice())
    assert (after.key, after.name, before.key, before.name) == (AFTER, "tuned", BEFORE, "pretrain")
    assert after.parts is before.parts
    alone = run_answers(Path("runs/tuned")), run_answers(Path("runs/pretrain"))
    assert alone[0] != alone[1]
    for _ in range(2):
        assert (said(after), said(before)) == alone


def test_a_run_with_an_adapter_is_compared_with_the_model_below_it(runs):
    after, before = open_sides("runs/tuned", None, Choice())
    assert (before.key, before.name) == (BEFORE, "")
    first = said(after)
    text = [probe for probe in PROBES if not probe[1]]
    assert said(before, text) == said_by_model(models_folder(runs), text)
    assert said(after) == first == run_answers(Path("runs/tuned"))


def models_folder(runs):
    return read_config(runs / "runs" / "tuned").model.llm.name_or_path


def said_by_model(folder, probes):
    (side,) = open_sides(folder, None, Choice(template="chatml"))
    return said(side, probes)


def test_a_run_without_an_adapter_answers_alone(runs):
    for name in ("pretrain", "whole"):
        (side,) = open_sides(f"runs/{name}", None, Choice())
        assert side.name == name


def test_what_cannot_share_a_model_has_one_of_its_own(runs):
    after, before = open_sides("runs/whole", "runs/pretrain", Choice())
    assert after.parts is not before.parts
    assert said(after) == run_answers(Path("runs/whole"))
    assert said(before) == run_answers(Path("runs/pretrain"))


def test_a_model_that_is_no_run_is_one_that_reads_text(runs):
    (side,) = open_sides(models_folder(runs), None, Choice(template="chatml"))
    assert side.parts.transform is None


def test_a_run_is_not_compared_with_itself_or_nothing(runs):
    with pytest.raises(ConfigError, match="--before: runs/tuned/ is what it would be compared with"):
        open_sides("runs/tuned", "runs/tuned/", Choice())
    with pytest.raises(MMTuneError, match="no such folder"):
        open_sides("runs/tuned", "runs/nothing", Choice())
