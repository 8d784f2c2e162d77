"""to_webdataset: the WebDataset library reads what was written, and the bytes depend on the data alone."""

import json
import os
import tarfile
import time

import pytest
import webdataset
from PIL import Image


@pytest.fixture
def mixed(desk, data_file, record):
    """One image, two, the same twice, none; suffixes of all kinds; random bytes that no encoder would write again."""
    rows = [
        record("<image>猫?", "A cat.", image="a/1.JPG", id="x"),
        record("<image> or <image>?", "Both.", image=["b.png", "a/1.JPG"]),
        record("Hello?", "Hi."),
        {"image": "dot.ted.name.webp", "caption": "A caption."},
        {
            "images": ["b.png"],
            "messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "x"}],
        },
    ]
    (desk / "a").mkdir()
    Image.effect_noise((40, 30), 90).convert("RGB").save(desk / "a" / "1.JPG", "JPEG")
    Image.effect_noise((64, 64), 90).save(desk / "b.png")
    Image.effect_noise((20, 20), 90).convert("RGB").save(desk / "dot.ted.name.webp")
    return data_file(*rows, draw=False), rows


def read_back(folder):
    """Samples as the WebDataset library gives them: the record, and images in the order of their names."""
    urls = sorted(map(str, folder.glob("*.tar")))
    for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
        images = sorted((name, data) for name, data in sample.items() if name != "json" and not name.startswith("__"))
        yield json.loads(sample["json"]), images


def as_before(value):
    """A record of a shard with the image names that it had in the data file."""
    if "source_image" not in value:
        return value
    key = "image" if "image" in value else "images"
    return {name: each for name, each in value.items() if name != "source_image"} | {key: value["source_image"]}


def test_the_webdataset_library_reads_the_same_records_and_images(tool, mixed, desk, capsys):
    _path, rows = mixed
    argv = ("-i", "data.json", "--output-folder", "shards", "--shard-records", 2, "--check")
    assert tool("to_webdataset", *argv) == 0
    shown = capsys.readouterr().out
    assert "5 records = 5 with 5 images in 3 shards + 0 left out" in shown
    assert "checked: 5 records and their images are unchanged" in shown
    found = list(read_back(desk / "shards"))
    assert [as_before(value) for value, _images in found] == rows
    assert [value.get("image", value.get("images")) for value, _images in found] == [
        "00000000.jpg",
        ["00000001.0.png", "00000001.1.jpg"],
        None,
        "00000003.webp",
        ["00000004.0.png"],
    ]
    jpg, png, webp = ((desk / name).read_bytes() for name in ("a/1.JPG", "b.png", "dot.ted.name.webp"))
    assert [images for _value, images in found] == [
        [("jpg", jpg)],
        [("0.png", png), ("1.jpg", jpg)],
        [],
        [("webp", webp)],
        [("0.png", png)],
    ]


def test_the_same_data_gives_the_same_bytes(tool, mixed, desk):
    for name in ("one", "two"):
        assert tool("to_webdataset", "-i", "data.json", "--output-folder", name) == 0
        os.utime(desk / "b.png", (time.time() - 1e6,) * 2)
        (desk / "b.png").chmod(0o600)
    assert (desk / "one" / "shard-000000.tar").read_bytes() == (desk / "two" / "shard-000000.tar").read_bytes()
    with tarfile.open(desk / "one" / "shard-000000.tar") as tar:
        assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in tar} == {(0, 0, 0, "", "", 0o644)}


def test_shards_keep_to_their_size(tool, desk, data_file, record):
    (desk / "i").mkdir()
    for n in range(12):
        (desk / "i" / f"{n}.png").write_bytes(os.urandom(30_000))
    data_file(*(record("<image>", "x", image=f"i/{n}.png") for n in range(12)), draw=False)
    assert tool("to_webdataset", "-i", "data.json", "--output-folder", "shards", "--shard-size", 0.1) == 0
    sizes = [path.stat().st_size for path in sorted((desk / "shards").glob("*.tar"))]
    assert len(sizes) == 4
    assert all(size <= 100_000 + 2 * 10_240 for size in sizes), "tar rounds the end up to 10 KiB"
    assert len(list(read_back(desk / "shards"))) == 12


def test_check_finds_a_changed_byte_and_a_lost_member(tool, mixed, desk, capsys, monkeypatch):
    from mmtune.data.makers import webdataset_shards as maker

    assert tool("to_webdataset", "-i", "data.json", "--output-folder", "shards") == 0
    path = desk / "shards" / "shard-000000.tar"
    shards = maker.Shards([path], 5, 5, 5, [])
    assert maker.check_shards(shards, desk / "data.json", desk) == 5
    whole = path.read_bytes()
    at = whole.index((desk / "b.png").read_bytes()) + 60
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(maker.DataError, match=r"00000001\.0\.png of data\.json:2 was expected, another"):
        maker.check_shards(shards, "data.json", desk)
    path.write_bytes(whole[: whole.index(b"00000004.json")] + bytes(1024))
    with pytest.raises(maker.DataError, match=r"00000004\.json of data\.json:5 was expected, nothing was found"):
        maker.check_shards(shards, "data.json", desk)


def test_bad_records_stop_or_are_listed(tool, desk, data_file, record, capsys, read_lines):
    rows = [
        record("<image>", "good", image="1.png"),
        record("<image>", "lost", image="lost.png"),
        record("no mark", "x", image="1.png"),
        record("<image>", "odd", image="1.xyz"),
        record("text", "good"),
    ]
    data_file(*rows, draw=False)
    for name in ("1.png", "1.xyz"):
        Image.new("RGB", (8, 8)).save(desk / name, "PNG")
    assert tool("to_webdataset", "-i", "data.json", "--output-folder", "shards", "--shard-records", 1) == 2
    shown = capsys.readouterr().err
    assert "data.json:2: image" in shown
    assert shown.count("\n") == 1
    assert list((desk / "shards").iterdir()) == [], "some shards would look like all"
    argv = ("-i", "data.json", "--output-folder", "shards", "--on-bad-record", "skip", "--check")
    assert tool("to_webdataset", *argv) == 0
    assert "5 records = 2 with 1 images in 1 shards + 3 left out" in capsys.readouterr().out
    listed = read_lines("shards/shard.skipped.jsonl")
    assert [row["place"] for row in listed] == ["data.json:2", "data.json:3", "data.json:4"]
    assert "no suffix that WebDataset readers decode" in listed[2]["reason"]
    assert [as_before(value) for value, _ in read_back(desk / "shards")] == [rows[0], rows[4]]


def test_old_shards_are_not_mixed_with_new_ones(tool, mixed, desk, capsys):
    argv = ("-i", "data.json", "--output-folder", "shards")
    assert tool("to_webdataset", *argv, "--shard-records", 1) == 0
    assert tool("to_webdataset", *argv) == 2
    assert "holds 5 shards of this name already" in capsys.readouterr().err
    assert tool("to_webdataset", *argv, "--overwrite") == 0
    assert [path.name for path in (desk / "shards").iterdir()] == ["shard-000000.tar"]
    assert tool("to_webdataset", *argv, "--prefix", "a/b") == 2
    assert "--prefix: is no plain name" in capsys.readouterr().err
