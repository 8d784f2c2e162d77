"""Published layouts become questions as LLaVA-1.5 puts them; what is wrong with a file is one line with its place."""

import json

import pytest
from published_layouts import (
    WRITERS,
    base64_picture,
    mmbench_row,
    write_json,
    write_lines,
    write_mmbench,
    write_tsv,
)

from mmtune.errors import ConfigError, DataError
from mmtune.evaluate.benchmarks.chosen import draw, find_images, prompt_of, questions_hash
from mmtune.evaluate.benchmarks.table import BENCHMARKS

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
PROMPTS = {
    "pope": f"Is there a dog in the image?\n{SHORT}",
    "mme": f"Is it red?\n{SHORT}",
    "scienceqa": f"Context: Look.\nWhich?\nA. up\nB. down\n{LETTER}",
    "mmbench": f"Look.\nWhat is it?\nA. cat\nB. dog\nC. owl\n{LETTER}",
    "mmbench_cn": "Look.\nWhat is it?\nA. cat\nB. dog\nC. owl\n请直接回答选项字母。",
    "gqa": f"What colour is it?\n{SHORT}",
    "textvqa": f"what brand?\nReference OCR token: NOKIA, 17:02\n{SHORT}",
    "vqav2": f"Is it red?\n{SHORT}",
    "multiple_choice": f"What is 2 + 2?\nA. 3\nB. 4\n{LETTER}",
    "perplexity": "It was a dark night. " * 20,
}
NUM_ITEMS = {
    "pope": 18,
    "mme": 12,
    "scienceqa": 2,
    "mmbench": 5,
    "mmbench_cn": 5,
    "gqa": 4,
    "textvqa": 3,
    "vqav2": 3,
    "multiple_choice": 2,
    "perplexity": 3,
}


def read(name, folder):
    return BENCHMARKS[name].read(folder)


def error_of(name, folder):
    with pytest.raises(DataError) as caught:
        read(name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}", "FOLDER")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_published_layout_becomes_questions_with_llavas_prompts(tmp_path, name):
    WRITERS[name](tmp_path)
    items = read(name, tmp_path)
    assert len(items) == NUM_ITEMS[name] == len({item.id for item in items})
    assert prompt_of(items[0], BENCHMARKS[name].instruction) == PROMPTS[name]
    found, missing = find_images(BENCHMARKS[name], items, tmp_path, None)
    assert (len(found), missing) == (len(items), [])
    assert all(image.data or image.path.startswith(str(tmp_path)) for item in found for image in item.images)


def test_mmes_tasks_have_pairs_and_both_layouts(tmp_path):
    WRITERS["mme"](tmp_path)
    items = read("mme", tmp_path)
    assert [item.group for item in items[::4]] == ["color", "artwork", "code_reasoning"]
    assert [item.reference[0] for item in items[:2]] == ["yes", "no"]
    assert {item.images[0] for item in items if item.group == "artwork"} == {
        "artwork/images/0.jpg",
        "artwork/images/1.jpg",
    }


def test_rotations_are_made_where_the_file_has_none(tmp_path):
    rows = [mmbench_row(4, ["cat", "dog", "owl"], "C", base64_picture())]
    write_tsv(tmp_path / "x.tsv", rows)
    items = read("mmbench", tmp_path)
    assert [(item.id, item.reference[0]) for item in items] == [("4", "C"), ("1000004", "B"), ("2000004", "A")]


def test_rows_with_one_image_share_it(tmp_path):
    write_mmbench(tmp_path)
    items = {item.id: item for item in read("mmbench", tmp_path)}
    assert items["1"].images[0] is items["1000001"].images[0]
    assert items["2"].images[0] is items["1000002"].images[0]
    assert items["1"].images[0] is not items["2"].images[0]


def test_english_and_chinese_lie_in_one_folder(tmp_path):
    write_mmbench(tmp_path, "mmbench_dev_20230712.tsv")
    write_mmbench(tmp_path, "mmbench_dev_cn_20231003.tsv")
    assert "20230712" in read("mmbench", tmp_path)[0].place
    assert "20231003" in read("mmbench_cn", tmp_path)[0].place
    write_mmbench(tmp_path, "mmbench_dev_en_V11.tsv")
    assert "one TSV file with no '_cn' in its name was expected (got mmbench_dev_20230712.tsv," in error_of(
        "mmbench", tmp_path
    )


def test_a_draw_takes_whole_units_and_is_the_same_again(tmp_path):
    WRITERS["mme"](tmp_path)
    items = read("mme", tmp_path)
    drawn = draw(items, 3, seed=1)
    assert drawn == draw(items, 3, seed=1) != draw(items, 3, seed=3)
    assert len(drawn) == 6
    assert {item.unit for item in drawn[::2]} == {item.unit for item in drawn[1::2]}
    assert draw(items, 99, seed=1) == draw(items, None, seed=1) == items


def test_the_hash_follows_what_is_asked_and_not_where_it_lies(tmp_path):
    for place in ("a", "b"):
        WRITERS["multiple_choice"](tmp_path / place)
    first, second = (read("multiple_choice", tmp_path / place) for place in ("a", "b"))
    assert questions_hash(first) == questions_hash(second) != questions_hash(first[:1])
    write_lines(tmp_path / "b" / "mine.jsonl", [{"question": "What?", "choices": ["x", "y"], "answer": "A"}])
    assert questions_hash(first) != questions_hash(read("multiple_choice", tmp_path / "b"))


# What can be wrong


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_that_is_not_there_and_an_empty_one(tmp_path, name):
    assert error_of(name, tmp_path / "none").startswith("FOLDER: ")
    assert "docs/eval.md" in error_of(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("pope", "label", "maybe", "'label' must be yes or no (got 'maybe')."),
        ("pope", "text", None, "'text' must be a text (got None)."),
        ("multiple_choice", "answer", "C", "'answer' must be a letter of A to B or a number of 0 to 1 (got 'C')."),
        ("multiple_choice", "answer", True, "(got True)."),
        ("multiple_choice", "choices", ["x"], "'choices' must be 2 to 26 texts (got 1)."),
        ("multiple_choice", "anwser", "A", "unknown key 'anwser'. Known: id, question,"),
        ("perplexity", "text", 7, "'text' must be a text (got 7)."),
        ("perplexity", "text", " ", "the text is empty."),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, key, value, words):
    WRITERS[name](tmp_path)
    path = sorted(tmp_path.rglob("*random.json" if name == "pope" else "*.jsonl"))[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] = {"question": "What?", "choices": ["x", "y"], "answer": "A"} if name == "multiple_choice" else lines[1]
    lines[1][key] = value
    write_lines(path, lines)
    message = error_of(name, tmp_path)
    assert message.startswith(f"FOLDER/{path.relative_to(tmp_path)}:2: ")
    assert words in message


def test_two_questions_with_one_id(tmp_path):
    row = {"id": 5, "question": "What?", "choices": ["x", "y"], "answer": "A"}
    write_lines(tmp_path / "x.jsonl", [row, row])
    assert "x.jsonl:2: the id '5' is that of FOLDER/x.jsonl:1 too." in error_of("multiple_choice", tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "E"}, ":1: 'answer' must be a letter of its 2 options (got 'E')."),
        ({"answer": ""}, ":1: has no answer: MMBench's server scores the test split. Take the dev split"),
        ({"index": "x"}, ":1: 'index' must be a whole number (got 'x')."),
        ({"image": "!!"}, ":1: 'image' is no base64."),
        ({"B": "nan"}, ":1: a row needs a question and at least two options"),
    ],
)
def test_a_wrong_row_of_mmbench(tmp_path, changes, words):
    write_tsv(tmp_path / "x.tsv", [mmbench_row(1, ["cat", "dog"], "A", base64_picture()) | changes])
    assert words in error_of("mmbench", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Is it red? Yes\nIs it black?\tNo\n", "0000.txt:1: a question, a tab and Yes or No were expected"),
        ("Is it red?\tYes\n", "0000.txt: holds 1 questions, MME asks two of each image."),
        ("Is it red?\tYes\nIs it?\tSure\n", "0000.txt:2: 'answer' must be yes or no (got 'sure')."),
    ],
)
def test_a_wrong_text_of_mme(tmp_path, text, words):
    WRITERS["mme"](tmp_path)
    (tmp_path / "color" / "0000.txt").write_text(text)
    assert f"FOLDER/color/{words}" in error_of("mme", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "value", "words"),
    [
        ("gqa", "testdev_balanced_questions.json", [], "an object was expected (got list)."),
        ("gqa", "testdev_balanced_questions.json", {}, "holds no question."),
        ("gqa", "testdev_balanced_questions.json", {"7": {"imageId": "n1"}}, "question 7: 'answer' must be a text"),
        ("vqav2", "v2_mscoco_val2014_annotations.json", {"annotations": []}, "question_id 0 has no annotation."),
        ("textvqa", "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": []}, "no words are given for its image i0."),
        ("scienceqa", "pid_splits.json", {"test": ["5"]}, "no problem of the test split has an image."),
        ("scienceqa", "pid_splits.json", {"test": ["4"]}, "'4' must be an object (got None)."),
    ],
)
def test_a_wrong_file(tmp_path, name, file, value, words):
    WRITERS[name](tmp_path)
    write_json(tmp_path / file, value)
    assert words in error_of(name, tmp_path)


def test_a_file_that_is_cut_off_is_named_with_its_line(tmp_path):
    WRITERS["gqa"](tmp_path)
    (tmp_path / "testdev_balanced_questions.json").write_text('{\n"1": {')
    assert "testdev_balanced_questions.json:2: broken JSON:" in error_of("gqa", tmp_path)


def test_no_image_at_all_and_an_image_folder_for_none(tmp_path):
    WRITERS["gqa"](tmp_path)
    items = read("gqa", tmp_path)
    with pytest.raises(DataError, match=r"none of the images is there; .*Name their folder with --image-folder"):
        find_images(BENCHMARKS["gqa"], items, tmp_path, tmp_path / "nowhere")
    found, _ = find_images(BENCHMARKS["gqa"], items, tmp_path / "x", tmp_path / "images")
    assert len(found) == len(items)
    with pytest.raises(ConfigError, match=r"MMBench has no images in files\. Leave the option out"):
        find_images(BENCHMARKS["mmbench"], items, tmp_path, tmp_path)
