"""Hostile input through the whole preparation: each is a listed error, or a conversion that is documented."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from prepared_data import prepare

__all__ = ["prepare"]

GOOD = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}


def seeing(image, answer="A cat."):
    return {"image": image, "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": answer}]}


@pytest.fixture
def listed(prepare, desk):
    """Return a function from the bytes of a bad line to the reason it is listed with; the good lines are trained."""

    def run(line, image_folder=None):
        line = json.dumps(line).encode() if isinstance(line, dict) else line
        good = json.dumps(GOOD).encode()
        (desk / "data.jsonl").write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
        dataset, report = prepare("data.jsonl", on_bad_record="skip", image_folder=image_folder)
        assert [dataset.place(index) for index in range(len(dataset))] == ["data.jsonl:1", "data.jsonl:3"]
        assert report.num_records == 3
        (finding,) = report.problems
        assert finding.line == 2
        return finding.reason

    return run


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "sub/../../secret.png", "/proc/self/environ"])
def test_paths_out_of_the_image_folder(listed, desk, path):
    (desk / "images" / "sub").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(desk / "secret.png")
    assert "outside the image folder" in listed(seeing(path), "images") or "no file" in listed(seeing(path), "images")


def test_a_link_out_of_the_image_folder(listed, prepare, desk):
    (desk / "images").mkdir()
    (desk / "elsewhere").mkdir()
    Image.new("RGB", (32, 32)).save(desk / "elsewhere" / "1.png")
    (desk / "images" / "file.png").symlink_to(desk / "elsewhere" / "1.png")
    (desk / "images" / "folder").symlink_to(desk / "elsewhere")
    for path in ("file.png", "folder/1.png"):
        assert "a link leads to" in listed(seeing(path), "images")
        dataset, _ = prepare("data.jsonl", image_folder="images", follow_links=True)
        assert dataset.num_images.tolist() == [0, 1, 0]


def png(width, height):
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 1), (1, 20_000), (20_000, 1)])
def test_images_of_insane_size(listed, desk, size):
    if size[0] * size[1] > 10**6:
        (desk / "1.png").write_bytes(png(*size))
    else:
        Image.new("RGB", size).save(desk / "1.png")
    assert "1.png" in listed(seeing("1.png"))


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"<html>404</html>", b"\xff\xd8\xff\xe0" + b"\0" * 40, png(64, 64)]
)
def test_files_that_are_no_images(listed, desk, content):
    (desk / "1.jpg").write_bytes(content)
    assert "1.jpg" in listed(seeing("1.jpg"))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("P", "GIF"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "WEBP"), ("1", "TIFF")],
)
def test_odd_kinds_of_images_are_converted(prepare, desk, mode, kind):
    pixels = Image.fromarray(np.full((20, 30), 200, np.uint8))
    image = (
        Image.fromarray(np.full((20, 30), 51400, np.uint16))
        if mode == "I;16"
        else Image.new(mode, (30, 20), 1)
        if mode == "1"
        else pixels.convert(mode)
    )
    image.save(desk / "1.img", kind)
    (desk / "data.jsonl").write_text(json.dumps(seeing("1.img")))
    dataset, _ = prepare("data.jsonl")
    grey = float(dataset[0]["pixel_values"][0, :, 8, 8].mean()) * 127.5 + 127.5
    assert grey == pytest.approx(255 if mode == "1" else 200, abs=2)


def test_html_in_an_answer_is_trained_and_warned_of(prepare, desk):
    Image.new("RGB", (32, 32)).save(desk / "1.png")
    (desk / "data.jsonl").write_text(json.dumps(seeing("1.png", "<script>alert(1)</script> A cat<br>&amp; a dog")))
    dataset, report = prepare("data.jsonl")
    assert (len(dataset), report.problems) == (1, [])
    (warning,) = dataset.parts[0].store.warnings()
    assert "holds HTML" in warning.reason


def test_a_line_of_50_mb(listed):
    assert "longer than" in listed(b'{"text": "' + b"a" * (50 << 20) + b'"}')


@pytest.mark.parametrize("text", ["half \\ud83d of a pair", "a NUL \\u0000 inside"], ids=["lone surrogate", "NUL"])
@pytest.mark.parametrize("side", [0, 1])
def test_characters_that_no_text_should_hold(listed, text, side):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
    turns[side]["value"] = "TEXT"
    assert "turn" in listed(json.dumps({"conversations": turns}).replace("TEXT", text).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"conversations":' * 5000 + b"1" + b"}" * 5000,
        b'{"a": 1' + b"0" * 6000 + b"}",
    ],
)
def test_deep_and_huge_json(listed, line):
    assert listed(line)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\x00", b'{"text": "\xc3\x28"}', b"null", b"[1, 2]", b"{}", b"NaN", b"{'text': 'x'}"]
)
def test_lines_that_are_no_records(listed, line):
    assert listed(line)
