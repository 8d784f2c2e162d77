"""What a config cannot ask of validation, of the metric that decides and of sample answers."""

import pytest
from PIL import Image

from mmtune.cli import main
from mmtune.config import load_config
from mmtune.errors import ConfigError
from mmtune.schema import DataSource, SampleConfig
from mmtune.schema_evaluation import questions_of, source_names

HELD = "data.validation=[{path: held.json}]"
TWO = "data.validation=[{path: a/coco.json}, {path: b/gqa.json}]"
BEST = "train.metric_for_best_model="
TEXT = ("model.vision=null", "model.projector=null")
WRONG = [
    (("data.validation_fraction=1.5",), "'data.validation_fraction' must be above 0 and below 1 (got 1.5). 0.05"),
    (("data.validation_fraction=0",), "must be above 0 and below 1 (got 0.0)."),
    ((HELD, "data.validation_fraction=0.1"), "do not go together. Set one of them."),
    (("data.train.0.stream=true", "data.validation_fraction=0.1"), "Name files as data.validation instead."),
    (("data.validation=[{path: a.json, stream: true}]",), "'data.validation[0].stream': validation data is read as"),
    (("data.validation=[{path: a.json, repeat: 2}]",), "'data.validation[0].repeat' is for trained data (got 2.0)"),
    (("data.validation=[{path: a.json, weight: 2}]",), "'data.validation[0].weight' is for trained data (got 2.0)"),
    (("data.validation=[{path: a.json, limit: 0}]",), "'data.validation[0].limit' must be greater than 0 (got 0)."),
    ((f"{BEST}eval_loss",), "has no metric 'eval_loss'. Nothing is held out: give data.validation or"),
    (("train.load_best_model_at_end=true",), ", which is eval_loss where it is not set, has no metric 'eval_loss'."),
    ((HELD, f"{BEST}loss"), "may be eval_loss or train_loss. Write the one that is meant."),
    (
        (HELD, f"{BEST}eval_los"),
        "has no metric 'eval_los'. Did you mean 'eval_loss'? Known: eval_loss, eval_perplexity, eval_token_acc",
    ),
    ((TWO, f"{BEST}eval_coc_loss"), "has no metric 'eval_coc_loss'. Did you mean 'eval_coco_loss'? Known:"),
    ((HELD, f"{BEST}eval_held_loss"), "has no metric 'eval_held_loss'."),
    (
        (f"{BEST}train_loss", "train.logging_steps=3", "train.eval_steps=4"),
        "(logging_steps=3, evaluation every 4 steps)",
    ),
    ((HELD, "train.early_stopping_patience=2"), "needs evaluations while training. Set train.eval_steps."),
    ((HELD, "train.early_stopping_patience=0"), "'train.early_stopping_patience' must be greater than 0 (got 0)."),
    (("train.greater_is_better=true",), "is of 'train.metric_for_best_model', which is not set. Set both, or none."),
    (("train.eval_strategy=steps",), "Give data.validation or data.validation_fraction; train.eval_steps says how"),
    (("evaluation_inputs=[Hi]",), "Here it is called sample.questions."),
    (("sample={images: [1.png]}",), "'sample.questions' asks nothing."),
    (("sample={questions: [' ']}",), "'sample.questions[0]' is empty. Ask something."),
    (("sample={questions: [Hi, 3]}",), "'sample.questions[1]' must be a text, or a mapping with a question (got 3)."),
    (("sample={questions: [{question: Hi, images: a}]}",), "has an unknown key 'images'. Known: question, image."),
    (("sample={questions: [{question: Hi, image: 3}]}",), "has an image that is no path (got 3)."),
    (("sample={questions: [{question: Hi}], images: [1.png]}",), "'sample.images' are shown by no question"),
    (('sample={questions: ["<image> What"]}',), "spells '<image>', which is text here. Write {question: ..., image:"),
    ((*TEXT, "sample={questions: [Hi], images: [1.png]}"), "this model has no 'model.vision'. Ask about text alone."),
    (("sample={questions: [Hi], every_steps: -1}",), "'sample.every_steps' must be 0 or more (got -1)."),
    (("sample={question: Hi}",), "unknown key 'sample.question'. Did you mean 'sample.questions'?"),
]


@pytest.mark.parametrize(
    ("changes", "words"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_wrong_config_is_one_line(config_file, changes, words):
    verb = "sft" if "model.vision=null" in changes else "pretrain"
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(), [*changes], verb)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        (TWO, f"{BEST}eval_gqa_token_accuracy"),
        ("data.validation_fraction=0.1", "train.early_stopping_patience=1", "train.eval_steps=5"),
        (f"{BEST}grad_norm", "train.eval_steps=1"),
        ("data.train.0.stream=true", HELD),
    ],
)
def test_a_right_one_loads(config_file, changes):
    load_config(config_file(), [*changes], "pretrain")


def error_of(capsys, *argv):
    assert main([*argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_images_of_questions_are_opened_before_a_model_loads(config_file, data_file, record, desk, capsys):
    data_file(record("<image>\nWhat?", "A cat.", image="1.png"))
    (desk / "broken.png").write_bytes(b"no image")
    listed = error_of(capsys, "pretrain", config_file(), "sample={questions: [Hi], images: [gone.png]}")
    assert listed.startswith("mmtune: sample.images: image gone.png: no such image (resolved to ")
    paired = error_of(capsys, "pretrain", config_file(), "sample={questions: [{question: Hi, image: broken.png}]}")
    assert paired.startswith("mmtune: sample.questions (Hi): image broken.png: ")
    assert [path.name for path in (desk / "run").iterdir()] == [".lock"]


def test_what_cannot_be_held_out_is_said(config_file, data_file, record, desk, capsys):
    Image.new("RGB", (40, 32)).save(desk / "1.png")
    data_file(*[record("<image>\nWhat?", f"{number}.", image="1.png") for number in range(4)])
    line = error_of(capsys, "pretrain", config_file(), "data.validation_fraction=0.5")
    assert "data.validation_fraction: nothing can be held out: all samples belong to the same images" in line


def test_a_source_of_which_nothing_is_held_out_cannot_decide(config_file, data_file, record, capsys):
    data_file(*[record(f"Say {number}", "So.") for number in range(30)], name="many.json")
    data_file(record("Only", "One."), name="one.json")
    sources = "data.train=[{path: many.json}, {path: one.json}]"
    changes = (sources, "data.validation_fraction=0.04", f"{BEST}eval_one_loss", "train.seed=1")
    line = error_of(capsys, "pretrain", config_file(), *changes)
    assert "train.metric_for_best_model: nothing of 'one' is held out, so there is no eval_one_loss." in line


def test_names_of_sources():
    paths = ("a/coco.json#500", "b/coco.jsonl", "hub:owner/gqa", "shards/{000..009}.tar", "数据.json", "///")
    names = source_names([DataSource(path=path) for path in paths])
    assert names == ["coco", "coco_2", "gqa", "000_009", "数据", "source"]


def test_each_text_is_asked_about_each_image_and_pairs_as_they_are():
    pair = {"question": "Both?", "image": ["a.png", "c.png"]}
    asked = questions_of(SampleConfig(questions=["What?", pair, {"question": "Hi"}], images=["a.png", "b.png"]))
    assert asked == [("What?", ("a.png",)), ("What?", ("b.png",)), ("Both?", ("a.png", "c.png")), ("Hi", ())]
    assert questions_of(SampleConfig(questions=["Hi"])) == [("Hi", ())]
