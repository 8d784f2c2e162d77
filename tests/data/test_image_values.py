import base64

import pytest

from mmtune.conversation import ImageSlot
from mmtune.data.image_values import image_slot, images_of

BASE64 = base64.b64encode(b"\x89PNG image").decode()


@pytest.mark.parametrize(
    ("value", "slot"),
    [
        ("a/b.jpg", ImageSlot("a/b.jpg")),
        ("C:\\a.jpg", ImageSlot("C:\\a.jpg")),
        ("a:b.jpg", ImageSlot("a:b.jpg")),
        ("file:///a/b%20c.jpg", ImageSlot("/a/b c.jpg")),
        ("file://localhost/a.jpg", ImageSlot("/a.jpg")),
        (f"data:image/png;base64,{BASE64}", ImageSlot("image 3 of the record", data=b"\x89PNG image")),
        (f"DATA:;BASE64,{BASE64[:5]}\n{BASE64[5:]}", ImageSlot("image 3 of the record", data=b"\x89PNG image")),
        (b"\x89PNG", ImageSlot("image 3 of the record", data=b"\x89PNG")),
        ({"bytes": b"x", "path": "a.jpg"}, ImageSlot("a.jpg", data=b"x")),
        ({"bytes": b"x", "path": None}, ImageSlot("image 3 of the record", data=b"x")),
        ({"bytes": b"x"}, ImageSlot("image 3 of the record", data=b"x")),
        ({"bytes": None, "path": "file:///a.jpg"}, ImageSlot("/a.jpg")),
        ({"path": "a.jpg"}, ImageSlot("a.jpg")),
        (ImageSlot("a.tar", 512, 9), ImageSlot("a.tar", 512, 9)),
    ],
)
def test_an_image_has_many_spellings(value, slot):
    assert image_slot(value, 3) == slot
    assert images_of({"image": value}) == images_of({"images": [value]})
    assert [each.path for each in images_of({"image": [value, "z.jpg"]})][1] == "z.jpg"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://a.org/b.png", "image 2 of the record is on the web (https://a.org/b.png). Download it first"),
        ("HTTP://a.org/b.png", "is on the web"),
        ("s3://bucket/b.png", "is on the web"),
        ("file://a/b.png", "image 2 of the record is no file URI (file://a/b.png)"),
        ("data:image/svg+xml,<svg/>", "image 2 of the record is a data URI without base64"),
        ("data:image/png;base64,@@@", "image 2 of the record is a data URI whose base64 is broken"),
        ("data:image/png;base64,", "whose base64 is broken"),
        ("data:image/png;base64,é", "whose base64 is broken"),
        (b"", "image 2 of the record has no bytes"),
        ({"bytes": b"", "path": "a.jpg"}, "image 2 of the record has no bytes"),
        ({"bytes": None, "path": None}, "(got an object without bytes or path)"),
        ({"bytes": "iVBOR", "path": None}, "(got an object without bytes or path)"),
        ({"url": "a.jpg"}, "(got an object without bytes or path)"),
        ({"path": ["a.jpg"]}, "(got an object without bytes or path)"),
        ("", "must be a path or a list of paths (got a text)"),
        (["a.jpg"], "must be a path or a list of paths (got a list)"),
        (5, "(got a number)"),
        (None, "(got nothing)"),
    ],
)
def test_other_values_are_refused_with_their_number(value, words):
    with pytest.raises(ValueError, match=r"\.$") as caught:
        images_of({"images": ["1.jpg", value]})
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_long_uri_does_not_fill_the_message():
    with pytest.raises(ValueError, match="on the web") as caught:
        image_slot("https://a.org/" + "x" * 100_000, 1)
    assert len(str(caught.value)) < 200
