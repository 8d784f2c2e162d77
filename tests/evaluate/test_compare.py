"""`mmtune compare` from the command line: what it finds, and that no question stops the others."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmtune.cli import main
from mmtune.testing import write_tiny_clip, write_tiny_llm

ANSWERS = {
    "Describe this image.": "A man reads. It is warm.",
    "Who is there?": "One man.",
    "What does he hold?": "A big book.",
}
HOSTILE = "<script>alert(1)</script> | **b** \x1b[31m"


def turns(question, answer):
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def write_run_config(path, data, output_dir, model, **train):
    llm = {"name_or_path": "llm", "chat_template": "chatml", "dtype": "float32"} | model.get("llm", {})
    config = {
        "model": {
            "vision": {"source": "transformers", "name": "clip"},
            "projector": {"kind": "mlp2x_gelu"},
            **model,
            "llm": llm,
        },
        "data": {"train": [data], "max_length": 384},
        "train": {"output_dir": output_dir, "save_steps": 0, "device": "cpu", "logging_steps": 100, **train},
    }
    Path(path).write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with two runs: `before`, of one step, and `after`, which starts from it and knows one image by heart."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny_llm("llm", hidden_size=64)
        write_tiny_clip("clip")
        for name, colour in (("one", "red"), ("two", "blue"), ("three", "green")):
            Image.new("RGB", (32, 32), colour).save(f"{name}.png")
        shutil.copy("one.png", "copy_of_one.png")
        course = [{"image": "one.png", "conversations": turns(*pair)} for pair in ANSWERS.items()]
        Path("course.json").write_text(json.dumps(course))
        Path("other.json").write_text(json.dumps([{"image": "three.png", "conversations": turns("Is it?", "It is.")}]))
        write_run_config("before.yaml", {"path": "other.json"}, "runs/before", {}, max_steps=1)
        full = {"llm": {"tune": "full"}, "adapter": None, "init_from": "runs/before"}
        once = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 3}
        write_run_config("after.yaml", {"path": "course.json", "repeat": 80}, "runs/after", full, **once)
        assert main(["pretrain", "before.yaml"]) == 0
        assert main(["finetune", "after.yaml"]) == 0
        yield folder


@pytest.fixture
def compare(desk, monkeypatch, capsys):
    """Ask questions, and return exit code, report, Markdown, page and what was printed."""
    monkeypatch.chdir(desk)

    def ask(questions, *argv, models=("runs/before", "runs/after")):
        Path("questions.jsonl").write_text("\n".join(map(str, questions)) + "\n")
        code = main(["compare", *models, "--questions", "questions.jsonl", "--max-new-tokens", "32", *argv])
        folder = Path("runs/compare")
        report = json.loads((folder / "report.json").read_text())
        texts = [(folder / name).read_text() for name in ("report.md", "page.html")]
        return code, report, *texts, capsys.readouterr()

    return ask


def test_a_run_that_was_trained_on_one_image_is_flagged_as_memorised(compare):
    asked = [{"image": "copy_of_one.png", "question": text, "reference": said} for text, said in ANSWERS.items()]
    asked += [{"image": "two.png", "question": "Describe this image."}, {"question": "How are you?"}]
    code, report, markdown, page, printed = compare(map(json.dumps, asked))
    assert code == 0
    line = "memorised: 3 of 4 answers are verbatim sentences of the training set about training images (after)"
    assert all(line in text for text in (" ".join(printed.out.split()), markdown, page))
    assert report["memorised"][1] == {"model": "after", "images": [3, 4], "text": [0, 1]}
    assert report["memorised"][0]["images"] == [0, 4]
    flags = [entry["flags"].get("after", []) for entry in report["questions"]]
    assert flags[0] == ["image", "question", "verbatim"], "by content: the file has another name"
    assert "image" not in flags[3]
    assert "question" in flags[3]
    assert not any("before" in entry["flags"] for entry in report["questions"])
    assert 'data-training="memorised"' in page
    assert report["questions"][0]["answers"][1]["text"] == ANSWERS["Describe this image."]


def test_what_was_learned_before_counts_and_what_is_gone_is_said(compare):
    asked = [{"image": "three.png", "question": "Is it?"}, {"image": "two.png", "question": "Is it?"}]
    _, report, *_ = compare(map(json.dumps, asked))
    assert report["questions"][0]["flags"]["after"][:2] == ["image", "question"], "the run started from `before`"
    assert report["training_data_notes"] == []
    data = Path("other.json").read_text()
    Path("other.json").write_text(data + "\n")
    _, report, *_ = compare(map(json.dumps, asked))
    assert report["training_data_notes"] == ["other.json: its content is no longer what runs/before was trained on."]
    Path("other.json").unlink()
    _, report, markdown, page, printed = compare(map(json.dumps, asked))
    Path("other.json").write_text(data)
    gone = f"other.json: no longer there (resolved to {Path('other.json').resolve()}), so that what runs/before"
    assert report["training_data_notes"] == [f"{gone} learned from it is not known."]
    assert "flags" in report["questions"][0]
    assert "image" not in report["questions"][0]["flags"].get("after", [])
    assert f"not known: {gone}" in printed.out
    assert "other.json: no longer there" in page
    assert "other.json: no longer there" in markdown


def test_each_image_question_is_also_asked_with_a_blank_and_a_swapped_image(compare):
    asked = [{"image": name, "question": "Who is there?"} for name in ("one.png", "two.png", "three.png")]
    _, report, markdown, page, printed = compare(map(json.dumps, [*asked, {"question": "Hello"}]))
    conditions = [[answer["condition"] for answer in entry["answers"]] for entry in report["questions"]]
    assert conditions == [["image", "image", "blank", "shuffled"]] * 3 + [["none", "none"]]
    found = report["dependence"]
    texts = [
        [answer["text"].lower().strip(" .") for answer in entry["answers"][1:]] for entry in report["questions"][:3]
    ]
    assert found["depends"] == sum(blank != own or swapped != own for own, blank, swapped in texts)
    assert [found["of"], found["changed"]["blank"][1], found["changed"]["shuffled"][1]] == [3, 3, 3]
    said = f"{found['depends']} of 3 answers of after depend on the image (changed:"
    assert said in " ".join(printed.out.split())
    assert said in markdown.replace("\\", "")
    assert f"{found['depends']} of 3 answers depend" in " ".join(page.split())
    _, report, *_, printed = compare(map(json.dumps, asked[:1]))
    assert report["dependence"]["changed"]["shuffled"] == [0, 0]
    assert "there was no other picture to ask with the picture of another question" in " ".join(printed.out.split())
    _, report, *_ = compare(map(json.dumps, asked), "--controls")
    assert report["dependence"] is None


def test_what_cannot_be_asked_is_one_line_each_and_the_rest_is_answered(compare):
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    good = {"image": "one.png", "question": "Who is there? <|im_end|> <image> </s>", "reference": "One man."}
    lines = [
        json.dumps(good),
        '{"question": "broken',
        json.dumps({"question": "Where?", "image": "nowhere.png"}),
        json.dumps({"question": "Where?", "image": "broken.png"}),
        json.dumps({"question": "Half \ud83d"}),
        json.dumps({"question": "long " * 200}),
        json.dumps(good | {"question": HOSTILE, "id": HOSTILE, "group": HOSTILE}),
    ]
    code, report, *_, printed = compare(lines)
    assert code == 1
    left_out = printed.err.splitlines()[-len(report["left_out"]) :]
    assert left_out == [f"mmtune: {line}" for line in report["left_out"]]
    wanted = [
        "questions.jsonl:2: ",
        "questions.jsonl:3: image nowhere.png is missing (resolved to ",
        "questions.jsonl:4: image broken.png: ",
        "questions.jsonl:5: a text holds half of a surrogate pair",
        "questions.jsonl:6: not asked of before: ",
        "questions.jsonl:6: not asked of after: ",
    ]
    assert len(report["left_out"]) == len(wanted)
    assert all(line.startswith(start) for line, start in zip(report["left_out"], wanted, strict=True))
    assert report["left_out"][-1].endswith("are more than the model's context of 512. Shorten them.")
    answered = [entry["answers"][1]["problem"] == "" for entry in report["questions"]]
    assert answered == [True, False, True]


def test_hostile_texts_become_no_markup_and_no_command_of_the_terminal(compare):
    asked = [
        {"image": "one.png", "question": HOSTILE, "id": HOSTILE, "group": HOSTILE, "reference": HOSTILE},
        {"image": "two.png", "question": HOSTILE},
    ]
    code, _, markdown, page, printed = compare(map(json.dumps, asked))
    assert code == 0
    assert "<script>alert" not in page + markdown
    assert "\x1b" not in page + markdown + printed.out + printed.err
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;script>alert(1)&lt;/script> \\| \\*\\*b\\*\\*" in markdown
    assert "<script>alert(1)</script> | **b** ␛[31m" in printed.out


def test_every_measure_with_intervals_and_tests(compare):
    pytest.importorskip("sacrebleu", reason="needs the extra eval")
    pytest.importorskip("rouge_score", reason="needs the extra eval")
    asked = [{"image": "one.png", "question": text, "reference": said} for text, said in ANSWERS.items()]
    asked.append(
        asked[0] | {"reference": ["a man reads it is warm"] * 3 + ["a cat"] * 7, "question": "Describe this image."}
    )
    _, report, markdown, page, _ = compare(map(json.dumps, asked))
    rows = {(row["measure"], row["model"]): row for row in report["measures"]}
    names = ["right", "exact", "contains", "token F1", "VQA accuracy", "ROUGE-L", "BLEU"]
    assert list(dict.fromkeys(measure for measure, _ in rows)) == names
    for name in names:
        before, after = rows[name, "before"], rows[name, "after"]
        assert before["p"] is None
        assert 0 < after["p"] <= 1
        assert after["low"] <= after["value"] + 1e-9
        assert after["value"] <= after["high"] + 1e-9
        assert after["total"] == (1 if name == "VQA accuracy" else 4)
        assert f": {name} |" in markdown
        assert name == "right" or name in page
    assert rows["exact", "after"]["value"] == 1.0
    assert (rows["exact", "after"]["gained"], rows["exact", "after"]["lost"], rows["exact", "after"]["p"]) == (
        4,
        0,
        0.125,
    )
    assert rows["token F1", "after"]["value"] == rows["ROUGE-L", "after"]["value"] == 1.0
    assert rows["VQA accuracy", "after"]["value"] == pytest.approx((3 * 2 / 3 + 7) / 10)


def test_without_the_extra_the_measures_that_need_it_are_named(compare, monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    asked = {"image": "one.png", "question": "Who is there?", "reference": "There is one man."}
    code, report, *_, printed = compare([json.dumps(asked)])
    assert code == 0
    needs = "which is not installed. Run: pip install 'mmtune[eval]'"
    assert report["missing_measures"] == [
        f"ROUGE-L needs the package rouge-score, {needs}",
        f"BLEU needs the package sacrebleu, {needs}",
    ]
    assert all(line in " ".join(printed.out.split()) for line in report["missing_measures"])


def test_models_of_one_name_are_told_apart(compare):
    shutil.copytree("runs/before", "more/before", dirs_exist_ok=True)
    models = ("base", "more/before", "runs/before", "runs/after/")
    _, report, *_ = compare(['{"question": "Hello"}'], models=models)
    names = ["base", "more/before", "runs/before", "after"]
    assert [model["name"] for model in report["models"]] == names
    assert [answer["model"] for answer in report["questions"][0]["answers"]] == names


def test_one_model_alone_is_asked_too(compare):
    code, report, _, page, _ = compare(
        [json.dumps({"image": "one.png", "question": "Who is there?"})], models=["runs/after"]
    )
    assert code == 0
    assert report["memorised"] == [{"model": "after", "images": [1, 1], "text": [0, 0]}]
    assert "<mark>" not in page


@pytest.mark.slow
def test_a_run_trained_on_the_image_of_the_course_is_flagged_as_memorised(
    fixtures_folder, tmp_path, monkeypatch, capsys
):
    """The texts and the image of the XTuner course, with the tokenizer of InternLM2 and a model of its kind."""
    monkeypatch.chdir(tmp_path)
    course = fixtures_folder / "course"
    pairs = {}
    for record in json.loads((course / "unique_data.json").read_text()):
        said = [turn["value"].replace("<image>", "").strip() for turn in record["conversations"]]
        pairs |= dict(zip(said[::2], said[1::2], strict=True))
    shortest = sorted(pairs.items(), key=lambda pair: len(pair[1]))[:6]
    records = [{"image": "test_img/oph.jpg", "conversations": turns(*pair)} for pair in shortest]
    Path("course.json").write_text(json.dumps(records))
    write_tiny_clip("clip")
    llm = {"name_or_path": str(fixtures_folder / "internlm2-tiny"), "chat_template": "internlm2_chat"}
    source = {"path": "course.json", "image_folder": str(course)}
    write_run_config("before.yaml", source, "runs/before", {"llm": llm}, max_steps=1)
    full = {"llm": llm | {"tune": "full"}, "adapter": None, "init_from": "runs/before"}
    often = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 6}
    write_run_config("after.yaml", source | {"repeat": 150}, "runs/after", full, **often)
    assert main(["pretrain", "before.yaml"]) == main(["finetune", "after.yaml"]) == 0
    asked = [{"image": str(course / "test_img/oph.jpg"), "question": question} for question, _ in shortest]
    Path("questions.json").write_text(json.dumps(asked))
    assert main(["compare", "base", "runs/after", "--questions", "questions.json", "--max-new-tokens", "100"]) == 0
    report = json.loads(Path("runs/compare/report.json").read_text())
    number, total = report["memorised"][-1]["images"]
    assert total == 6
    assert number >= 5
    line = f"memorised: {number} of 6 answers are verbatim sentences of the training set about training images (after)"
    assert line in " ".join(capsys.readouterr().out.split())
