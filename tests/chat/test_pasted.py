"""Image files in a line, as they are typed, pasted and dragged by terminals."""

from pathlib import Path

import pytest

from mmtune.chat.pasted import image_paths, split_images
from mmtune.errors import DataError


@pytest.fixture
def files(desk):
    for name in ("cat.png", "my cat.JPG", "notes.txt", "it's.png"):
        Path(name).touch()
    return desk


@pytest.mark.parametrize(
    ("line", "question", "images"),
    [
        ("What is this?", "What is this?", []),
        ("'{}/my cat.JPG' What is this?", "What is this?", ["{}/my cat.JPG"]),
        ("What is this? {}/my\\ cat.JPG ", "What is this?", ["{}/my cat.JPG"]),
        ("file://{}/my%20cat.JPG", "", ["{}/my cat.JPG"]),
        ("\"{}/cat.png\" '{}/my cat.JPG'  Which?", "Which?", ["{}/cat.png", "{}/my cat.JPG"]),
        ("What of {}/cat.png here?", "What of here?", ["{}/cat.png"]),
        ("./cat.png Is\nit red?", "Is\nit red?", ["cat.png"]),
        ("cat.png", "", ["cat.png"]),
        ("cat.png 'my cat.JPG'", "", ["cat.png", "my cat.JPG"]),
        ("'my cat.JPG' What?", "What?", ["my cat.JPG"]),
        ("it\\'s.png", "", ["it's.png"]),
        ("What is in cat.png?", "What is in cat.png?", []),
        ("Is cat.png red?", "Is cat.png red?", []),
        ("Don't read '{}/notes.txt' or notes.txt", "Don't read '{}/notes.txt' or notes.txt", []),
        ("Is 'a.png' a name?", "Is 'a.png' a name?", []),
        ("see http://example.com/cat.png", "see http://example.com/cat.png", []),
        ("1/2 or a \\ b", "1/2 or a \\ b", []),
        ("", "", []),
    ],
)
def test_images_of_a_line(files, line, question, images):
    def here(text):
        return text.replace("{}", str(files))

    assert split_images(here(line)) == (here(question), tuple(map(here, images)))


@pytest.mark.parametrize("line", ["{}/nope.png What?", "file://{}/nope.png", "~/no/such/nope.png"])
def test_a_whole_path_without_a_file_is_an_error(files, line):
    with pytest.raises(DataError, match=r"nope.png: no such image \(resolved to /"):
        split_images(line.replace("{}", str(files)))


def test_the_argument_of_a_command(files):
    assert image_paths("my cat.JPG") == ("my cat.JPG",)
    assert image_paths("cat.png 'my cat.JPG'") == ("cat.png", "my cat.JPG")
    assert image_paths("my\\ cat.JPG cat.png") == ("my cat.JPG", "cat.png")
    with pytest.raises(DataError, match=r"^nope: no such image \(resolved to "):
        image_paths("cat.png nope")
