"""lmms-eval itself: its scoring functions beside ours, and a run of ours as its model on toy tasks.

It wants other versions of some libraries, so it lies in a folder of its own, filled by `pip install --no-deps --target`
with lmms-eval 0.7.3 and what it imports; `MMTUNE_LMMS_EVAL` names that folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from published_layouts import write_lines
from readme import ROOT
from training_workspace import make, models, workspace

from mmtune.build import load_run
from mmtune.chat.exchange import question_message
from mmtune.chat.generate import Decoding
from mmtune.conversation import Conversation, Message
from mmtune.evaluate.asking import Asker
from mmtune.models.scoring import score_answers

__all__ = ["models", "workspace"]
pytestmark = pytest.mark.slow
CHECKS = Path(__file__).with_name("lmms_eval_checks.py")
COLOURS = ("red", "blue", "green")
FUNCTIONS = """
from PIL import Image

def images(doc):
    return [Image.open(path) for path in doc["images"]]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def scored(doc, results):
    return {"said": results[0]}

def joined(results):
    return "|".join(results)
"""


@pytest.fixture(scope="module")
def lmms_eval():
    folder = os.environ.get("MMTUNE_LMMS_EVAL")
    if folder is None:
        pytest.skip("MMTUNE_LMMS_EVAL is not set: it names a folder with lmms-eval")
    return folder


def run_with(lmms_eval, *argv, first=ROOT):
    paths = os.pathsep.join([str(first), lmms_eval, str(ROOT / "tests")])
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(Path("hf").resolve())}
    environment = os.environ | offline | {"PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-m", *argv], env=environment, capture_output=True, text=True)


def test_scorers_equal_those_of_lmms_eval(lmms_eval, desk):
    done = run_with(lmms_eval, "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(CHECKS))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.fixture
def installed(tmp_path_factory):
    """A folder with the package as pip installs it, so that its entry points are there."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(ROOT)], check=True)
    return folder


def write_tasks(folder):
    """A task that generates, with an image, with two and with none, and one that compares likelihoods."""
    rows = []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (40, 32), colour).save(f"{colour}.png")
        shown = [[], [f"{colour}.png"], [f"{colour}.png", "red.png"]][number]
        rows.append({"question": f"What is number {number}?", "images": shown, "right": number, "choices": COLOURS})
    write_lines(Path("toy.jsonl"), rows)
    folder.mkdir()
    (folder / "toy.py").write_text(FUNCTIONS)
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path("toy.jsonl").resolve())}},
        "test_split": "test",
    }
    functions = "doc_to_visual: !function toy.images\ndoc_to_text: !function toy.question\n"
    said = {"task": "toy_said", "output_type": "generate_until", "doc_to_target": "question"}
    said |= {"generation_kwargs": {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": ["\x00"]}}
    metric = "process_results: !function toy.scored\nmetric_list:\n"
    metric += "  - {metric: said, aggregation: !function toy.joined, higher_is_better: true}\n"
    (folder / "said.yaml").write_text(yaml.safe_dump(common | said) + functions + metric)
    likely = {"task": "toy_likely", "output_type": "multiple_choice", "doc_to_target": "right"}
    likely |= {"doc_to_choice": "{{choices}}"}
    likely |= {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    (folder / "likely.yaml").write_text(yaml.safe_dump(common | likely) + functions)
    return rows


def loss_of(parts, question, images, answer):
    """The mean loss by another way: the whole dialogue as training encodes it, without the stop token."""
    turns = (question_message(question, tuple(images)), Message("assistant", (answer,)))
    sample = parts.encode(Conversation(turns))
    batch = {"input_ids": torch.tensor([sample.input_ids]), "labels": torch.tensor([sample.labels])}
    if images:
        batch["pixel_values"] = torch.stack([parts.transform.open(path) for path in images])
    return float(score_answers(parts.model, batch)[0][:-1].mean())


def test_a_run_is_a_model_of_lmms_eval(lmms_eval, installed, workspace):
    run = make("seen", verb="pretrain")
    rows = write_tasks(Path("tasks"))
    argv = ["lmms_eval", "--model", "mmtune", "--model_args", f"run={run.resolve()},device=cpu", "--batch_size", "2"]
    argv += ["--tasks", "toy_said,toy_likely", "--include_path", "tasks", "--output_path", "out", "--log_samples"]
    done = run_with(lmms_eval, *argv, first=installed)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = {}
    for path in Path("out").rglob("*_samples_*.jsonl"):
        found[path.stem.split("_samples_")[1]] = [json.loads(line) for line in path.read_text().splitlines()]
    parts = load_run(run)
    asker = Asker(parts, Decoding(max_new_tokens=6), 2)
    expected = asker.ask([row["question"] for row in rows], [tuple(row["images"]) for row in rows])
    said = sorted(found["toy_said"], key=lambda entry: entry["doc_id"])
    assert [entry["said"] for entry in said] == expected
    losses = [[loss_of(parts, row["question"], row["images"], f" {name}") for name in COLOURS] for row in rows]
    right = [min(range(3), key=values.__getitem__) == row["right"] for values, row in zip(losses, rows, strict=True)]
    likely = sorted(found["toy_likely"], key=lambda entry: entry["doc_id"])
    assert [entry["acc"] for entry in likely] == [float(value) for value in right]
    given = [[float(pair[0]) for pair in entry["filtered_resps"]] for entry in likely]
    assert given == [pytest.approx(values, rel=1e-4) for values in losses]
