"""Which file a path means, and that it lies in the image folder."""

import os
import re
import time
from pathlib import Path

import pytest

from mmtune.data.image_folder import ImageFolder

OUTSIDE = "lies outside the image folder"


@pytest.fixture
def images(desk):
    """images/coco/1.jpg, images/0.jpg and secret/2.jpg beside them."""
    for path in ("images/0.jpg", "images/coco/1.jpg", "secret/2.jpg"):
        (desk / path).parent.mkdir(parents=True, exist_ok=True)
        (desk / path).write_bytes(path.encode())
    return desk / "images"


def refusal(folder, path):
    with pytest.raises(ValueError, match=r"^image .*\.$") as caught:
        folder.resolve(path)
    with pytest.raises(ValueError, match=re.escape(str(caught.value))):
        folder.stamp(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("named", ["images", "./images/", "secret/../images", "{desk}/images"])
def test_paths_inside_are_given_out_absolute(images, desk, named, follow_links):
    folder = ImageFolder(named.format(desk=desk), follow_links)
    for path in ("coco/1.jpg", "./coco//1.jpg", "coco/../coco/1.jpg", f"{images}/coco/1.jpg"):
        assert folder.resolve(path) == str(images / "coco" / "1.jpg")
        assert folder.resolve(folder.resolve(path)) == folder.resolve(path)
    info = os.stat(images / "coco" / "1.jpg")
    assert folder.stamp("coco/1.jpg") == (info.st_size, info.st_mtime_ns) == folder.stamp(folder.resolve("coco/1.jpg"))
    assert folder.find("0.jpg") == (str(images / "0.jpg"), 12, os.stat(images / "0.jpg").st_mtime_ns)


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("path", ["../secret/2.jpg", "coco/../../secret/2.jpg", "../../../etc/passwd", "/etc/passwd"])
def test_paths_that_leave_the_folder_are_refused(images, path, follow_links):
    message = refusal(ImageFolder(images, follow_links), path)
    assert message.startswith(f"image {path} {OUTSIDE} {images} (it is /")
    assert message.endswith(" Mend the path, or `image_folder`.")
    assert "follow_links" not in message


def test_a_folder_whose_name_begins_as_the_image_folder_is_outside(images, desk):
    (desk / "images2").mkdir()
    (desk / "images2" / "1.jpg").touch()
    assert OUTSIDE in refusal(ImageFolder(images), "../images2/1.jpg")


def test_links_that_leave_the_folder_need_leave(images, desk):
    (images / "file.jpg").symlink_to(desk / "secret" / "2.jpg")
    (images / "linked").symlink_to("../secret")
    for path in ("file.jpg", "linked/2.jpg", str(images / "linked" / "2.jpg")):
        message = refusal(ImageFolder(images), path)
        assert message == (
            f"image {path} {OUTSIDE} {images} (a link leads to {desk}/secret/2.jpg). "
            "Set `follow_links: true` if that is meant, or mend `image_folder`."
        )
        followed = ImageFolder(images, follow_links=True)
        assert Path(followed.resolve(path)).read_text() == "secret/2.jpg"
        assert followed.stamp(path)[0] == len("secret/2.jpg")
    assert OUTSIDE in refusal(ImageFolder(images, follow_links=True), "linked/../../secret/2.jpg")


def test_links_within_the_folder_are_fine(images):
    (images / "again.jpg").symlink_to("coco/1.jpg")
    (images / "linked").symlink_to("coco")
    assert ImageFolder(images).resolve("again.jpg") == str(images / "coco" / "1.jpg")
    assert ImageFolder(images).resolve("linked/1.jpg") == str(images / "coco" / "1.jpg")


def test_the_image_folder_may_be_a_link(images, desk):
    (desk / "link").symlink_to("images")
    for path in ("coco/1.jpg", f"{desk}/link/coco/1.jpg", f"{images}/coco/1.jpg"):
        assert ImageFolder("link").resolve(path) == str(images / "coco" / "1.jpg")
        assert os.path.samefile(ImageFolder("link", follow_links=True).resolve(path), images / "coco" / "1.jpg")


@pytest.mark.parametrize(
    ("folder", "path", "message"),
    [
        (".", "1.png", "image 1.png is missing (resolved to {desk}/1.png). Mend the path, or `image_folder`."),
        ("images", "1.png", "image images/1.png is missing (resolved to {desk}/images/1.png). Mend the path"),
        ("{desk}", "1.png", "image {desk}/1.png is missing (resolved to {desk}/1.png). Mend the path"),
        ("images", "0.jpg/1.png", "image images/0.jpg/1.png is missing (resolved to"),
        ("images", "gone.jpg", "image images/gone.jpg is missing (resolved to"),
        ("images", "loop.jpg", "image images/loop.jpg is missing (resolved to"),
        ("images", "x" * 5000, "image images/xxx"),
        ("images", "data:image/png;base64,AAAA", "image images/data:image/png;base64,AAAA is missing"),
        ("nowhere", "1.png", "image nowhere/1.png is missing (resolved to {desk}/nowhere/1.png)."),
        ("images", "coco", "image images/coco is a folder and no file. Mend the path, or `image_folder`."),
        ("images", "pipe", "image images/pipe is a pipe, a socket or a device and no file."),
        ("images", "coco/", "image path 'coco/' names no file."),
        ("images", "", "image path '' names no file."),
        ("images", ".", "image path '.' names no file."),
        ("images", "..", "image path '..' names no file."),
        ("images", "a\0b", "image path 'a\\x00b' has a NUL character."),
        ("images", "\ud800.jpg", "image path '\\ud800.jpg' is no valid text."),
        ("images", "\ud800/1.jpg", "image path '\\ud800/1.jpg' is no valid text."),
    ],
)
def test_paths_that_lead_nowhere(images, desk, folder, path, message):
    (images / "gone.jpg").symlink_to("nothing.jpg")
    (images / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(images / "pipe")
    said = refusal(ImageFolder(folder.format(desk=desk)), path)
    assert said.startswith(message.format(desk=desk))
    assert len(said) < 600


@pytest.mark.skipif(os.sep != "/", reason="there a backslash is right")
def test_backslashes_get_a_hint(images):
    message = refusal(ImageFolder("images"), "coco\\1.jpg")
    assert message.startswith("image images/coco\\1.jpg is missing (resolved to ")
    assert message.endswith(" Write / between folders, not \\. Mend the path, or `image_folder`.")


def test_the_working_directory_may_change(images, desk, monkeypatch):
    folder = ImageFolder("images")
    monkeypatch.chdir(desk / "secret")
    assert folder.resolve("0.jpg") == str(images / "0.jpg")


def test_a_path_costs_microseconds(images):
    """4.3 us measured; a lookup of every folder on the way would take 30."""
    for number in range(2000):
        (images / "coco" / f"{number:012}.jpg").touch()
    paths = [f"coco/{number:012}.jpg" for number in range(2000)]

    def seconds():
        folder, started = ImageFolder(images), time.perf_counter()
        for path in paths:
            folder.resolve(path)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(5)) / len(paths) < 20e-6
