"""split: no image and no question on both sides, each record on exactly one."""

import json
import random

import pytest
from PIL import Image


def load(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def images_of(records):
    found = set()
    for value in records:
        images = value.get("image", [])
        found |= {images} if isinstance(images, str) else set(images)
    return found


def questions_of_texts(records):
    return {" ".join(value["conversations"][0]["value"].split()) for value in records if "image" not in value}


def make_records(record):
    """300 records of 100 images, some with two images that tie their groups, and 60 texts with 20 questions."""
    rng = random.Random(1)
    rows = [record("<image>What?", f"{n}", image=f"{n % 90}.png", id=n) for n in range(270)]
    rows += [record("<image><image>?", "x", image=[f"{90 + n % 10}.png", f"{n}.png"], id=270 + n) for n in range(30)]
    rows += [record(f"Question  {n % 20}?", "y", id=300 + n) for n in range(60)]
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("asked", ["0.1", "36"])
def test_no_image_and_no_question_is_on_both_sides(tool, data_file, record, desk, capsys, asked):
    rows = make_records(record)
    data_file(*rows, name="mine.json", draw=False)
    assert tool("split", "-i", "mine.json", "--output-folder", "out", "--held-out", asked, "--seed", 3) == 0
    train, held = load(desk / "out", "train.json"), load(desk / "out", "held_out.json")
    order = {row["id"]: place for place, row in enumerate(rows)}
    assert sorted(row["id"] for row in train + held) == list(range(360))
    assert [order[row["id"]] for row in train] == sorted(order[row["id"]] for row in train), "the order stays"
    assert not images_of(train) & images_of(held)
    trained, held_texts = map(questions_of_texts, (train, held))
    assert not trained & held_texts
    assert held_texts, "texts are held out too"
    assert images_of(held)
    assert 18 <= len(held) <= 36
    shown = capsys.readouterr().out
    assert f"split: 360 records = {len(train)} in out/train.json + {len(held)} in out/held_out.json" in shown
    summary = load(desk / "out", "split.json")
    assert (summary["num_records"], summary["num_held_out"], summary["seed"]) == (360, len(held), 3)


def test_the_same_seed_draws_the_same_records_in_any_order_of_the_file(tool, data_file, record, desk):
    rows = make_records(record)
    for name, order in (("a", rows), ("b", rows[::-1])):
        data_file(*order, name=f"{name}.jsonl", draw=False)
        assert tool("split", "-i", f"{name}.jsonl", "--output-folder", name, "--held-out", "0.1") == 0
    sides = [{json.loads(line)["id"] for line in (desk / name / "held_out.jsonl").open()} for name in "ab"]
    assert sides[0] == sides[1]
    assert tool("split", "-i", "a.jsonl", "--output-folder", "c", "--held-out", "0.1", "--seed", 1) == 0
    assert {json.loads(line)["id"] for line in (desk / "c" / "held_out.jsonl").open()} != sides[0]


def test_one_image_under_two_names_is_found_by_content(tool, data_file, record, desk, capsys):
    (desk / "img").mkdir()
    for n in range(20):
        Image.new("RGB", (8, 8), (12 * n, 0, 0)).save(desk / "img" / f"{n}.png")
        (desk / "img" / f"twin{n}.png").write_bytes((desk / "img" / f"{n}.png").read_bytes())
    names = [f"{kind}{n}.png" for n in range(20) for kind in ("", "twin")]
    data_file(*(record("<image>", "x", image=name) for name in names), draw=False)
    argv = ("-i", "data.json", "--held-out", "0.5", "--by-content", "--image-folder", "img")
    assert tool("split", *argv, "--output-folder", "content") == 0
    assert "20 image names are copies of another image" in capsys.readouterr().out
    assert tool("split", *argv[:4], "--output-folder", "names") == 0
    torn = {
        folder: sum(
            ("twin" + name in images_of(load(desk / folder, "train.json")))
            != (name in images_of(load(desk / folder, "train.json")))
            for name in names[::2]
        )
        for folder in ("content", "names")
    }
    assert torn["content"] == 0
    assert torn["names"] > 0, "by name alone, twins are torn: what --by-content is for"


def test_a_spelling_of_a_path_is_no_other_image(tool, data_file, record, desk):
    data_file(
        *(record("<image>", "x", image=image) for n in range(30) for image in (f"a/{n}.png", f"./a//{n}.png")),
        draw=False,
    )
    assert tool("split", "-i", "data.json", "--output-folder", "out", "--held-out", "0.5") == 0
    train, held = ({i.replace("./", "").replace("//", "/") for i in images_of(load(desk / "out", f"{side}.json"))}
                   for side in ("train", "held_out"))  # fmt: skip
    assert not train & held


@pytest.mark.parametrize(
    ("rows", "argv", "words"),
    [
        ([("<image>", "x", "1.png"), ("<image>", "y", "1.png")], [], "all records share images or questions"),
        ([("<image><image>", "x", "1.png"), ("a", "b", None)], [], "data.json:1: 1 image but 2 '<image>' marks"),
        ([("<image>", "x", "1.png"), ("a", "b", None)], ["--by-content"], "data.json:1: image 1.png cannot be read"),
    ],
)
def test_what_cannot_be_split_is_one_line(tool, data_file, record, desk, capsys, rows, argv, words):
    data_file(*(record(q, a, image=image) for q, a, image in rows), draw=False)
    assert tool("split", "-i", "data.json", "--output-folder", "out", *argv) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1
    assert list((desk / "out").iterdir()) == []


def test_a_group_that_is_too_large_is_not_torn(tool, data_file, record, desk):
    rows = [record("<image>", f"{n}", image=image) for image in ("1.png", "2.png") for n in range(10)]
    data_file(*rows)
    assert tool("split", "-i", "data.json", "--output-folder", "out", "--held-out", "1") == 0
    assert len(load(desk / "out", "held_out.json")) == 10


@pytest.mark.parametrize("share", ["0", "1.0", "0.0", "-0.1"])
def test_a_share_that_is_none_is_refused(tool, capsys, share):
    with pytest.raises(SystemExit) as stop:
        tool("split", "-i", "a.json", "--output-folder", "out", f"--held-out={share}")
    assert stop.value.code == 2
    assert "must be a share between 0.0 and 1.0" in capsys.readouterr().err
