"""Easy-VQA as records and questions: nothing lost, nothing made up, nothing of the test set in what is trained on."""

import doctest
import hashlib
import importlib.metadata
import importlib.util
import json
import runpy
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mmtune.cli import main
from mmtune.data.formats import parse_record
from mmtune.data.makers import easy_vqa
from mmtune.data.makers.easy_vqa import COLOURS, GROUPS, SHAPES, Turn, caption, easy_vqa_folder, make_easy_vqa
from mmtune.data.records import read_records
from mmtune.evaluate.questions import read_questions
from mmtune.run_folder import read_json

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="easy-vqa is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_easy_vqa(tmp_path_factory.mktemp("easy_vqa"))


def source(split):
    return json.loads((easy_vqa_folder() / split / "questions.json").read_text())


def turns_of(record):
    texts = [turn["value"].removeprefix("<image>\n") for turn in record.value["conversations"]]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(easy_vqa)
    assert (results.attempted, results.failed) == (6, 0)


def test_every_training_question_is_asked_once_about_its_image(made):
    asked = [(*turn, int(r.value["id"][-4:])) for r in read_records(made["train"]) for turn in turns_of(r)]
    assert Counter(asked) == Counter(map(tuple, source("train")))
    assert len(asked) == 38575


def test_every_test_question_can_be_asked_and_has_its_answer(made):
    questions = read_questions(made["test_questions"])
    assert [(q.question, *q.reference, int(Path(q.images[0]).stem[-4:])) for q in questions] == [
        tuple(entry) for entry in source("test")
    ]
    assert len(questions) == len({question.id for question in questions}) == 9673
    assert {question.group for question in questions} == set(GROUPS)


def test_images_are_those_of_the_package_and_no_trained_one_is_a_test_one(made):
    folder = made["train"].parent
    for name, number, split in (("train_0007", 7, "train"), ("test_0999", 999, "test")):
        original = easy_vqa_folder() / split / "images" / f"{number}.png"
        assert (folder / "images" / f"{name}.png").read_bytes() == original.read_bytes()
    trained = {record.value["image"] for name in ("train", "captions") for record in read_records(made[name])}
    assert len(trained) == 4000
    assert not {Path(q.images[0]).name for q in read_questions(made["test_questions"])} & {
        Path(image).name for image in trained
    }
    digest = {
        split: {hashlib.sha256(path.read_bytes()).digest() for path in (folder / "images").glob(f"{split}_*.png")}
        for split in ("train", "test")
    }
    assert len(digest["train"]) > 3900
    assert not digest["train"] & digest["test"], "no test image is a copy of a trained one"


def test_captions_say_what_the_answers_say(made):
    dialogues = {record.value["id"]: turns_of(record) for record in read_records(made["train"])}
    captions = [record.value for record in read_records(made["captions"])]
    assert len(captions) > 3500
    for record in captions:
        article, colour, shape = record["caption"].split()
        assert (article, colour in COLOURS, shape in SHAPES) == ("a", True, True)
        for question, answer in dialogues[record["id"]]:
            words = question.rstrip("?").split()
            if answer in ("yes", "no"):
                is_shown = colour in words or shape in words
                assert (answer == "yes") == (is_shown != ("no" in words or "not" in words))
            else:
                assert answer in (colour, shape)


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([("what is the red shape?", "circle")], "a red circle"),
        ([("is no circle present?", "no"), ("is a red shape present?", "yes")], "a red circle"),
        ([("is there not a red shape?", "no"), ("is no circle present?", "yes")], None),
        (
            [("is there a circle?", "no"), ("is a triangle present?", "no"), ("what color is the shape?", "teal")],
            "a teal rectangle",
        ),
        ([("what shape is present?", "circle")], None),
    ],
)
def test_a_caption_needs_shape_and_colour(turns, text):
    assert caption([Turn(*turn) for turn in turns]) == text


def test_records_and_images_are_valid_and_the_same_seed_gives_the_same_bytes(tmp_path):
    sizes = {"num_train_images": 5, "num_test_images": 2, "num_validation_images": 3}
    paths = make_easy_vqa(tmp_path / "a", seed=1, **sizes)
    make_easy_vqa(tmp_path / "b", seed=1, **sizes)
    make_easy_vqa(tmp_path / "c", seed=2, **sizes)
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*.*"))]
    assert len(files) == 4 + 10
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    assert (tmp_path / "a" / "train.json").read_bytes() != (tmp_path / "c" / "train.json").read_bytes()
    for name in ("captions", "train"):
        for conversation in map(parse_record, read_records(paths[name])):
            (image,) = conversation.images
            with Image.open(tmp_path / "a" / image) as picture:
                assert (picture.size, picture.format) == ((64, 64), "PNG")
    validation = {Path(question.images[0]).stem for question in read_questions(paths["validation_questions"])}
    assert validation == {"train_3997", "train_3998", "train_3999"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train-images", "0"], "num_train_images: must be 1 to 4000 (got 0). Mend the number."),
        (["--test-images", "1001"], "num_test_images: must be 1 to 1000 (got 1001). Mend the number."),
        (["--validation-images", "4000"], "num_validation_images: must be 0 to 3999 (got 4000). Mend the number."),
        (
            ["--max-questions-per-record", "0"],
            "max_questions_per_record: must be 1 or more (got 0). Mend the number.",
        ),
    ],
)
def test_the_script_and_its_mistakes(desk, capsys, options, words):
    script = runpy.run_path(str(ROOT / "data_tools" / "easy_vqa.py"))["main"]
    assert script(["--output-folder", "out", *options]) == 2
    assert capsys.readouterr().err == f"easy_vqa: {words}\n"
    assert not (desk / "out").exists()
    assert script(["--output-folder", "out", "--train-images", "2", "--test-images", "1"]) == 0
    assert "records written to out/test_questions.json" in capsys.readouterr().out
    (desk / "file").write_text("")
    assert script(["--output-folder", "file"]) == 2
    assert capsys.readouterr().err.endswith("file: cannot be made: Not a directory. Name another folder.\n")


def test_without_the_package_one_line_says_how_to_get_it(desk, capsys, monkeypatch):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    (desk / "recipe.yaml").write_text("steps: [{name: data, verb: make-easy-vqa}]")
    assert main(["run", "recipe.yaml"]) == 2
    assert capsys.readouterr().err.endswith("mmtune: easy-vqa: the data set is missing. Run `pip install easy-vqa`.\n")


def test_the_data_set_is_found_beside_a_script_of_the_same_name(monkeypatch):
    """`python data_tools/easy_vqa.py` puts `data_tools` first among the places of modules."""
    monkeypatch.syspath_prepend(ROOT / "data_tools")
    assert (easy_vqa_folder() / "train" / "questions.json").is_file()


RECIPE = """
steps:
  - name: data
    verb: make-easy-vqa
    config: {num_train_images: 6, num_test_images: 4, max_questions_per_record: 4, balance_verdicts: true}
  - {name: pretrain, verb: pretrain, config: pretrain.yaml, needs: [data]}
  - {name: finetune, verb: finetune, config: finetune.yaml, needs: [data, pretrain]}
  - name: compare
    verb: compare
    needs: [data, finetune]
    config:
      models: [base, runs/small/finetune]
      controls: [blank, shuffled]
      num_control_questions: 10
      max_new_tokens: 2
      questions: {test: runs/small/data/test_questions.json}
"""


def test_a_small_run_goes_from_the_package_to_the_page(desk, config_file, capsys):
    tiny = ["data.max_length=2048", "model.projector.standardize=true", "model.projector.warm_start_epochs=2"]
    config_file(*tiny, "data.train=[{path: runs/small/data/captions.json}]", name="pretrain.yaml")
    lora = ["model.adapter={kind: lora, r: 2}", "model.llm.tune=adapter", "model.init_from=runs/small/pretrain"]
    config_file(*tiny, *lora, "data.train=[{path: runs/small/data/train.json}]", name="finetune.yaml")
    (desk / "small.yaml").write_text(RECIPE)
    steps = ["pretrain.train.max_steps=3", "finetune.train.max_steps=2"]
    assert main(["run", "small.yaml", *steps]) == 0

    num_questions = sum(image < 4 for *_, image in source("test"))
    facts = read_json(desk / "runs/small/finetune/data.json")
    num_records = len(list(read_records(desk / "runs/small/data/train.json")))
    assert (facts["num_samples"], facts["num_cut_samples"]) == (num_records, 0)
    report = read_json(desk / "runs/small/compare/report.json")
    totals = {(row["model"], row["condition"]): row["total"] for row in report["scores"] if row["group"] == "all"}
    asked = {("base", "none"): num_questions, ("finetune", "image"): num_questions}
    assert totals == asked | {("finetune", "blank"): 10, ("finetune", "shuffled"): 10}
    assert (desk / "runs/small/compare/page.html").is_file()

    assert main(["run", "small.yaml", "--overwrite", *steps, "compare.num_control_questions=0"]) == 2
    assert capsys.readouterr().err.endswith("mmtune: num_control_questions: must be 1 or more (got 0). Mend it.\n")


def test_a_few_records_train_with_tiny_models(desk, tiny, config_file):
    """The whole way in seconds: make, check, train packed with cached features."""
    make_easy_vqa(desk / "data", num_train_images=4, num_test_images=2)
    config = config_file("data.train.0.path=data/train.json", "data.max_length=512", "train.max_steps=2")
    assert main(["data", "check", config, "--images", "decode"]) == 0
    changes = ["data.pack_to_max_length=true", "data.cache_vision_features=true"]
    assert main(["pretrain", config, *changes]) == 0
    facts = read_json(desk / "run" / "data.json")
    assert (facts["num_records"], facts["num_samples"], facts["skipped"]) == (4, 4, [])


def test_evidence_stands_before_each_answer_and_nowhere_in_the_test(tmp_path):
    """What is seen, whether what is asked for is part of it, the answer: "a red circle, blue is absent, so no"."""
    plain = make_easy_vqa(tmp_path / "plain", num_train_images=40, num_test_images=3)
    reasoned = make_easy_vqa(tmp_path / "reasoned", num_train_images=40, num_test_images=3, with_evidence=True)
    captions = {record.value["id"]: record.value["caption"] for record in read_records(plain["captions"])}
    answers = {record.value["id"]: Counter(turns_of(record)) for record in read_records(plain["train"])}
    records = [record.value for record in read_records(reasoned["train"])]
    assert {record["id"] for record in records} == captions.keys() <= answers.keys()
    for record in read_records(reasoned["train"]):
        bare = Counter()
        for question, reason in turns_of(record):
            seen, *finding, verdict = reason.split(", ")
            assert seen == captions[record.value["id"]]
            answer = verdict.removeprefix("so ")
            bare[question, answer] += 1
            asked = {*COLOURS, *SHAPES}.intersection(question.rstrip("?").split())
            if answer in ("yes", "no"):
                (word,) = asked
                assert finding == [f"{word} is {'present' if word in seen.split() else 'absent'}"]
            else:
                assert finding == []
        assert bare == answers[record.value["id"]]
    assert plain["test_questions"].read_bytes() == reasoned["test_questions"].read_bytes()


@pytest.mark.parametrize("max_questions", [1, 3, 100])
def test_dialogues_cut_into_records_lose_nothing_and_each_record_has_its_image(made, tmp_path, max_questions):
    paths = make_easy_vqa(tmp_path, max_questions_per_record=max_questions)
    whole = [record.value for record in read_records(made["train"])]
    parts = [record.value for record in read_records(paths["train"])]
    assert len({part["id"] for part in parts}) == len(parts)
    lengths = [len(part["conversations"]) // 2 for part in parts]
    assert sum(lengths) == 38575
    assert max(lengths) <= max_questions
    assert len(parts) == sum(-(-len(record["conversations"]) // 2 // max_questions) for record in whole)
    joined = {record["id"]: [] for record in whole}
    for part in parts:
        name = part["id"].rpartition("_")[0]
        assert part["image"] == f"images/{name}.png"
        assert [turn["value"].count("<image>") for turn in part["conversations"]] == [1] + [0] * (
            len(part["conversations"]) - 1
        )
        joined[name] += part["conversations"]
    for record in whole:
        texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        assert [turn["value"].removeprefix("<image>\n") for turn in joined[record["id"]]] == texts
    for name in ("captions", "test_questions"):
        assert paths[name].read_bytes() == made[name].read_bytes()


@pytest.mark.parametrize("with_evidence", [False, True])
def test_balanced_verdicts_tell_nothing_by_their_wording(made, tmp_path, with_evidence):
    """As many yes as no to each wording, as many as there are; all other questions stay, and no test question goes."""
    paths = make_easy_vqa(tmp_path, balance_verdicts=True, with_evidence=with_evidence)
    plain = make_easy_vqa(tmp_path / "plain", with_evidence=with_evidence)

    def counts(path):
        return Counter(
            (question, answer.rpartition(" ")[2]) for r in read_records(path) for question, answer in turns_of(r)
        )

    before, after = counts(plain["train"]), counts(paths["train"])
    wordings = {question for question, answer in before if answer in ("yes", "no")}
    assert len(wordings) == 88
    for wording in wordings:
        fewer = min(before[wording, "yes"], before[wording, "no"])
        assert after[wording, "yes"] == after[wording, "no"] == fewer > 0
    others = {key: count for key, count in before.items() if key[0] not in wordings}
    assert others == {key: count for key, count in after.items() if key[0] not in wordings}
    assert paths["test_questions"].read_bytes() == made["test_questions"].read_bytes()


def test_the_seed_draws_which_verdicts_stay(tmp_path):
    options = {"num_train_images": 200, "num_test_images": 1, "balance_verdicts": True, "max_questions_per_record": 2}
    texts = [
        make_easy_vqa(tmp_path / str(n), seed=seed, **options)["train"].read_bytes() for n, seed in enumerate("001")
    ]
    assert texts[0] == texts[1] != texts[2]
