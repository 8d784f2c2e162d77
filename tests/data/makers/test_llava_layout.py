"""llava_layout: counts that come out, what to get where, links, and names with the suffixes that files have."""

import json
import re

import pytest

from mmtune.data.makers.llava_sets import IMAGE_SETS, group_of

FOLDERS = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")


@pytest.fixture
def mix(desk, data_file, record):
    """The shape of mix665k: two records an image in every folder, a text; ocr_vqa as its script leaves it."""
    rows = [record("<image>", "x", image=f"{folder}/{n}.jpg") for folder in FOLDERS for n in (1, 2, 1)]
    rows.append(record("Hi?", "Hello."))
    data_file(*rows, name="mix.json", draw=False)
    for folder in FOLDERS:
        (desk / "images" / folder).mkdir(parents=True)
        for n in (1, 2):
            (desk / "images" / folder / f"{n}.jpg").write_bytes(b"x")
    return rows


def row_of(shown, name):
    line = next(line for line in shown.splitlines() if line.startswith(name + " "))
    return [int(number) for number in line.removeprefix(name).split()]


def test_all_there(tool, mix, capsys):
    assert tool("llava_layout", "--json", "mix.json", "--image-folder", "images") == 0
    shown = capsys.readouterr().out
    assert all(row_of(shown, folder) == [3, 2, 2, 0, 0, 0] for folder in FOLDERS)
    assert row_of(shown, "total") == [18, 12, 12, 0, 0, 0]
    assert "19 records = 18 with images + 1 text-only; 12 images = 12 there + 0 with another suffix" in shown
    assert "http" not in shown


def test_what_lacks_is_counted_and_its_address_told(tool, mix, desk, capsys):
    (desk / "images/coco/train2017/1.jpg").unlink()
    (desk / "images/vg/VG_100K_2/2.jpg").write_bytes(b"")
    (desk / "images/ocr_vqa/images/2.jpg").rename(desk / "images/ocr_vqa/images/2.gif")
    argv = ("--json", "mix.json", "--image-folder", "images", "--json-report", "report.json")
    assert tool("llava_layout", *argv) == 2
    shown = capsys.readouterr().out
    assert row_of(shown, "coco/train2017") == [3, 2, 1, 0, 0, 1]
    assert row_of(shown, "vg/VG_100K_2") == [3, 2, 1, 0, 1, 0]
    assert row_of(shown, "ocr_vqa/images") == [3, 2, 1, 1, 0, 0]
    assert "first coco/train2017/1.jpg (missing), mix.json:1" in shown
    assert "get COCO train2017: http://images.cocodataset.org/zips/train2017.zip" in shown
    assert "unpack into images/coco\n" in shown
    assert "unpack into images/vg\n" in shown
    assert "--write-fixed OUT.json" in shown
    assert "gqa" not in shown.split("total")[1]
    report = json.loads((desk / "report.json").read_text())
    assert report["total"] == {
        "num_named": 18, "num_images": 12, "num_there": 9, "num_other_suffix": 1, "num_empty": 1, "num_missing": 1
    }  # fmt: skip
    assert report["groups"]["vg/VG_100K_2"]["examples"] == [
        {"image": "vg/VG_100K_2/2.jpg", "place": "mix.json:17", "problem": "empty"}
    ]


def test_write_fixed_names_the_files_that_are_there(tool, mix, desk, capsys):
    folder = desk / "images/ocr_vqa/images"
    (folder / "1.jpg").rename(folder / "1.png")
    (folder / "2.jpg").rename(folder / "2.gif")
    argv = ("--json", "mix.json", "--image-folder", "images")
    assert tool("llava_layout", *argv) == 2
    assert tool("llava_layout", *argv, "--write-fixed", "fixed.json") == 0
    assert "fixed: 19 records = 19 in fixed.json, 3 of them changed" in capsys.readouterr().out
    fixed = json.loads((desk / "fixed.json").read_text())
    assert [new["image"] for old, new in zip(mix, fixed, strict=True) if old != new] == [
        f"ocr_vqa/images/{name}" for name in ("1.png", "2.gif", "1.png")
    ]
    assert tool("llava_layout", "--json", "fixed.json", "--image-folder", "images") == 0
    assert tool("llava_layout", *argv, "--write-fixed", "fixed.json") == 2
    assert "fixed.json: exists already" in capsys.readouterr().err


def test_lists_of_images_are_fixed_in_place(tool, desk, data_file, record):
    (desk / "a.gif").write_bytes(b"x")
    (desk / "b.jpg").write_bytes(b"x")
    data_file(record("<image><image>", "x", image=["b.jpg", "a.jpg"]), draw=False)
    assert tool("llava_layout", "--json", "data.json", "--image-folder", ".", "--write-fixed", "fixed.jsonl") == 0
    assert json.loads((desk / "fixed.jsonl").read_text())["image"] == ["b.jpg", "a.gif"]


def test_links_to_folders_elsewhere(tool, mix, desk, capsys):
    (desk / "images/coco").rename(desk / "elsewhere")
    (desk / "images/vg/VG_100K").rename(desk / "vg1")
    argv = ("--json", "mix.json", "--image-folder", "images")
    links = ("--link", "coco=elsewhere", "--link", "vg/VG_100K=vg1")
    assert tool("llava_layout", *argv) == 2
    capsys.readouterr()
    for _ in range(2):  # a second time they are there
        assert tool("llava_layout", *argv, *links) == 0
        assert "`follow_links: true`" in capsys.readouterr().out
    assert (desk / "images/coco").is_symlink()
    assert tool("llava_layout", *argv) == 0
    assert "`follow_links: true`" in capsys.readouterr().out, "also when the links were made before"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("coco=none", "none: no such folder"),
        ("../coco=images", "'../coco' is no folder inside images"),
        ("/coco=images", "'/coco' is no folder inside images"),
        ("gqa=images", "images/gqa: exists already and is not that link"),
    ],
)
def test_a_wrong_link_is_one_line(tool, mix, capsys, link, words):
    assert tool("llava_layout", "--json", "mix.json", "--image-folder", "images", "--link", link) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("image", "lies_at"),
    [
        ("vg/VG_100K/1.jpg", "images/vg/VG_100K/VG_100K/1.jpg"),
        ("00012/3.jpg", "images/images/00012/3.jpg"),
        ("coco/train2017/1.jpg", "images/train2017/1.jpg"),
        ("textvqa/train_images/1.jpg", "images/textvqa/1.jpg"),
    ],
)
def test_an_archive_unpacked_one_folder_off_is_found(tool, desk, data_file, record, capsys, image, lies_at):
    (desk / lies_at).parent.mkdir(parents=True)
    (desk / lies_at).write_bytes(b"x")
    data_file(record("<image>", "x", image=image), draw=False)
    assert tool("llava_layout", "--json", "data.json", "--image-folder", "images") == 2
    assert f"lies one folder off: {lies_at}" in capsys.readouterr().out


def test_pretrain_names_and_sets_of_ones_own(tool, desk, data_file, record, capsys):
    names = ["00000/000000030.jpg", "00658/006580001.jpg", "000000442786.jpg", "GCC_train_000000001.jpg", "mine/x.png"]
    data_file(*(record("<image>", "x", image=name) for name in names), draw=False)
    assert tool("llava_layout", "--json", "data.json", "--image-folder", ".") == 2
    shown = capsys.readouterr().out
    assert row_of(shown, "00000...") == [2, 2, 0, 0, 0, 2]
    assert "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain\n  unpack into .\n" in shown
    assert "https://huggingface.co/datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K" in shown
    assert "--image-folder is coco/train2017 itself" in shown
    assert row_of(shown, "mine") == [1, 1, 0, 0, 0, 1]


def test_a_thousand_folders_make_one_line(tool, desk, data_file, record, capsys):
    data_file(*(record("<image>", "x", image=f"folder{n}/x.png") for n in range(1000)), draw=False)
    assert tool("llava_layout", "--json", "data.json", "--image-folder", ".") == 2
    shown = capsys.readouterr().out
    assert row_of(shown, "other folders") == [900, 900, 0, 0, 0, 900]
    assert row_of(shown, "total")[-1] == 1000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--json", "none.json", "--image-folder", "."], "none.json: no such file"),
        (["--json", "mix.json", "--image-folder", "none"], "none: no such folder"),
        (
            ["--json", "odd.json", "--image-folder", "."],
            "odd.json:1: 'image' must be a path or a list of paths",
        ),
        (["--json", "text.json", "--image-folder", "."], "text.json:1: a record is a JSON object"),
    ],
)
def test_a_mistake_is_one_line(tool, mix, desk, capsys, argv, words):
    (desk / "odd.json").write_text('[{"image": 3}]')
    (desk / "text.json").write_text('["x"]')
    assert tool("llava_layout", *argv) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1


def test_every_set_has_an_address_and_unpacks_where_its_paths_begin():
    for name, source in IMAGE_SETS.items():
        assert re.match(r"https?://[\w.-]+/", source.address), name
        if name in FOLDERS:
            assert group_of(f"{name}/1.jpg") == name
            assert name.startswith(source.unpack_into)
