"""A recipe of every kind of step over the tiny models and data of `training_workspace`."""

import json
from pathlib import Path

import yaml
from published_layouts import write_pope

from mmtune.recipe_card import CARD_FILE
from mmtune.run_folder import MANIFEST_FILE, read_json

QUESTIONS = [
    {"id": "1", "image": "0.png", "question": "What colour?", "reference": ["It is red."], "group": "colours"},
    {"id": "2", "question": "Hi", "reference": ["Hello, you."], "group": "talk"},
]
STEPS = ("check", "pretrain", "finetune", "again", "merged", "compare", "pope", "export")
LENGTHS = ["train.max_steps=4", "train.save_steps=2"]


def write_recipe(name="whole"):
    """Write `NAME.yaml`, whose steps check, train three times, merge, compare, score and export."""
    runs = f"runs/{name}"
    start = [f"model.init_from={runs}/pretrain", *LENGTHS]
    compare = {"models": ["base", f"{runs}/pretrain", f"{runs}/merged"], "questions": {"held out": "questions.json"}}
    tunings = [f"{runs}/finetune", f"{runs}/again"]
    steps = [
        {"name": "check", "verb": "check"},
        {"name": "pretrain", "verb": "pretrain", "config": "pretrain.yaml", "overrides": LENGTHS},
        *(
            {"name": tuned, "verb": "finetune", "config": "finetune.yaml", "overrides": [*start, f"train.seed={seed}"],
             "needs": ["pretrain"]}
            for tuned, seed in (("finetune", 1), ("again", 2))
        ),
        {"name": "merged", "verb": "merge", "config": {"runs": tunings}, "needs": ["finetune", "again"]},
        {"name": "compare", "verb": "compare", "config": compare | {"max_new_tokens": 4},
         "needs": ["pretrain", "merged"]},
        {"name": "pope", "verb": "eval", "needs": ["merged"],
         "config": {"run": f"{runs}/merged", "benchmark": "pope", "data": "pope", "max_new_tokens": 2}},
        {"name": "export", "verb": "export", "config": {"run": tunings[0], "format": "merged"}, "needs": ["finetune"]},
    ]  # fmt: skip
    write_pope(Path("pope"))
    Path("questions.json").write_text(json.dumps(QUESTIONS))
    Path(f"{name}.yaml").write_text(yaml.safe_dump({"steps": steps}))
    return f"{name}.yaml"


def results(folder):
    """The hashes of all that a recipe made but for what tells time or place, by step and file."""
    found = {}
    for step in STEPS:
        for name, facts in read_json(Path(folder, step, MANIFEST_FILE))["files"].items():
            if name.endswith((".safetensors", ".jsonl")) and not name.endswith("log.jsonl"):
                found[step, name] = facts["sha256"]
    card = read_json(Path(folder, CARD_FILE))
    found["losses"] = [training["loss"] for training in card["trainings"]]
    found["answers"] = [sample["answers"] for sample in card["samples"]]
    found["scores"] = [report["rows"] for report in card["scores"]]
    return found


def finished(folder, *names):
    """When steps were finished: their manifests as they are."""
    return {name: Path(folder, name, MANIFEST_FILE).read_bytes() for name in names or STEPS}
