"""What is taken as an uploaded image, and that it is refused before it is decoded."""

import io

import numpy as np
import pytest
from data_uris import png_head
from PIL import Image

from mmtune.data.images import ImageTransform
from mmtune.errors import DataError
from mmtune.serve.uploads import FORMATS, UploadLimits, checked_upload

TRANSFORM = ImageTransform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def encoded(image_format="PNG", size=(40, 30), **options):
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(stream, image_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_upload_is_seen_as_a_file_is(image_format, tmp_path):
    data = encoded(image_format)
    path = tmp_path / "a file.gif"  # names count for nothing
    path.write_bytes(data)
    slot = checked_upload(data, "a file.gif")
    assert np.array_equal(TRANSFORM.open(slot), TRANSFORM.open(path))


def test_an_upload_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = TRANSFORM.open(checked_upload(encoded("JPEG", quality=95, exif=exif), "x"))
    plain = TRANSFORM.open(checked_upload(encoded("JPEG", quality=95), "x"))
    assert np.allclose(turned, np.rot90(plain, -1, (1, 2)), atol=0.05)
    assert not np.allclose(turned, plain, atol=0.5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty. Send an image."),
        (b"hello", "not an image that Pillow can read. Replace the file."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which has no pixels. Convert it to PNG."),
        (b"<html><script>alert(1)</script>", "an HTML page and no image"),
        (b"%PDF-1.7", "a PDF document and no image. Convert its pages to PNG."),
        (encoded("TIFF"), "a TIFF image, which is not taken here. Send PNG, JPEG, WebP, GIF or BMP."),
        (png_head(60_000, 60_000), "too large (60000 x 60000 pixels; at most 178,956,970 in all). Save it smaller."),
        (png_head(9_000, 9_000), "too large (9000 x 9000 pixels; at most 50,000,000 in all). Save it smaller."),
        (png_head(2, 2), "too small (2 x 2 pixels; at least 4 on each side)."),
        (encoded()[:20], "cannot be read as an image"),
        (
            b"\x89PNG\r\n\x1a\n" + bytes(20 * 2**20),
            "too large (20,971,528 bytes; at most 20,971,520). Save it smaller.",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(DataError) as caught:
        checked_upload(data, "cat.png")
    assert str(caught.value).startswith(f"cat.png: {reason}")


def test_limits_can_be_set():
    limits = UploadLimits(max_bytes=5_000, max_pixels=1_200)
    checked_upload(encoded(), "x", limits)
    with pytest.raises(DataError, match="at most 1,200 in all"):
        checked_upload(encoded(size=(41, 30)), "x", limits)
    with pytest.raises(DataError, match="at most 5,000"):
        checked_upload(encoded(size=(900, 900)) + bytes(5_000), "x", limits)


def test_broken_pixels_are_found_when_it_is_decoded():
    slot = checked_upload(encoded("JPEG", size=(400, 300))[:1500], "cat.jpg")
    with pytest.raises(DataError, match=r"cat\.jpg: cannot be read as an image"):
        TRANSFORM.open(slot)


def test_a_name_is_shown_as_a_short_line_of_text():
    with pytest.raises(DataError) as caught:
        checked_upload(b"x", "<script>alert('a')</script>\n\x1b[31m../../etc/passwd" + "x" * 99)
    assert caught.value.place.startswith("_script_alert(_a_)__script___")
    assert not {"<", "\n", "\x1b", "/"} & set(caught.value.place)
    assert len(caught.value.place) <= 83


def test_a_name_of_other_letters_stays():
    with pytest.raises(DataError, match=r"猫 é\.png: not an image"):
        checked_upload(b"x", "猫 é.png")
