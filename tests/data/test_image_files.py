"""Hostile and odd files: each is an image or one line with a mend, without a warning, a traceback or a wait."""

import io
import os
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from mmtune.conversation import ImageSlot
from mmtune.data.image_bytes import MAX_BYTES
from mmtune.data.image_check import check_images
from mmtune.data.image_files import MAX_PIXELS, open_image
from mmtune.errors import DataError

RED = (255, 0, 0)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, *chunks, mode=2, data=b""):
    """A PNG of its header, chunks, and packed pixels."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


JPEG, PNG = encoded(noise(64, 48), "JPEG"), encoded(noise(64, 48), "PNG")
PIXELS = b"".join(b"\0" + bytes(RED) * 8 for _ in range(8))


@pytest.fixture
def refusal(tmp_path, capfd):
    """Return what is said of a file, the same by opening and by both checks, and nothing on stderr."""

    def say(source):
        slot = source if isinstance(source, ImageSlot) else ImageSlot("image.jpg", data=source)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError) as caught:
                open_image(slot, "data.json:3")
        place, message = "data.json:3: ", str(caught.value)
        assert message.startswith(f"{place}{slot.path:.200}")
        assert "\n" not in message
        assert message.endswith(".")
        assert len(message) < 700
        for decode in (False, True):
            ((index, reason),) = check_images([slot], decode=decode).items()
            assert index == 0
            assert message.endswith(f": {' '.join(reason.split())}")
        assert capfd.readouterr().err == ""
        return caught.value.message

    return say


def test_what_is_no_file_is_refused_without_waiting(tmp_path, refusal):
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        started = time.monotonic()
        for name in ("pipe.jpg", "socket.jpg"):
            message = refusal(ImageSlot(str(tmp_path / name)))
            assert message == "is a pipe, a socket or a device and no image file. Mend the path."
    assert refusal(ImageSlot("/dev/zero")).startswith("is a pipe, a socket or a device")
    assert refusal(ImageSlot(str(tmp_path))) == "is a folder and no image file. Mend the path."
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nope.jpg", "no such image (resolved to {desk}/nope.jpg). Mend the path."),
        ("link.jpg", "no such image (resolved to {desk}/link.jpg). Mend the path."),
        ("a\0b.jpg", "no such image, its path has a character that no path can have. Mend the path."),
        ("\ud800.jpg", "no such image, its path has a character that no path can have. Mend the path."),
        ("x" * 5000, "cannot be opened (File name too long). Mend the path."),
        ("file.jpg/x.jpg", "cannot be opened (Not a directory). Mend the path."),
        ("loop.jpg", "cannot be opened (Too many levels of symbolic links). Mend the path."),
        ("", "no such image (resolved to {desk}). Mend the path."),
    ],
)
def test_a_path_that_leads_nowhere(desk, refusal, path, words):
    (desk / "link.jpg").symlink_to("gone.jpg")
    (desk / "loop.jpg").symlink_to("loop.jpg")
    (desk / "file.jpg").write_bytes(JPEG)
    assert refusal(ImageSlot(path)) == words.format(desk=desk)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="every file is readable for root")
def test_a_file_that_may_not_be_read(tmp_path, refusal):
    (tmp_path / "image.jpg").write_bytes(JPEG)
    (tmp_path / "image.jpg").chmod(0)
    assert refusal(ImageSlot(str(tmp_path / "image.jpg"))) == "cannot be opened (Permission denied). Mend its rights."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty. Download or copy it again."),
        (b"not an image", "not an image that Pillow can read. Replace the file."),
        (b"\0" * 5000, "not an image that Pillow can read."),
        (b"<!DOCTYPE html><html><body>404", "an HTML page and no image: the answer of a failed download."),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "an HTML page and no image"),
        (b"<!-- cached -->\n<html>", "an HTML page and no image"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML file and no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which has no pixels. Convert it to PNG."),
        (b"<?xml version='1.0'?>\n<!-- x --><svg width='9'/>", "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, which Pillow cannot read. Convert it to JPEG."),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0", "a JPEG XL image, which Pillow cannot read."),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL image"),
        (b"\0\0\0\x20ftypisom", "a video and no image. Extract its frames."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript drawing"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\3\4\x14\0", "a ZIP archive"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"8BPS\0\1", "a Photoshop file"),
        (encoded(noise(16, 16), "ICO"), "a file of icons"),
        (JPEG[:2], "not an image that Pillow can read."),
        (JPEG[:20], "cannot be read as an image: "),
        (b"\0" * (MAX_BYTES + 1), "too large (67,108,865 bytes; at most 67,108,864). Save it smaller."),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_bytes_that_are_no_image(refusal, data, words):
    assert refusal(data).startswith(words)


def test_formats_are_known_by_content_and_not_by_name(tmp_path):
    (tmp_path / "image.jpg").write_bytes(encoded(Image.new("RGB", (8, 8), RED), "GIF"))
    assert open_image(tmp_path / "image.jpg").getcolors() == [(64, RED)]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read_where_pillow_can():
    assert open_image(ImageSlot("a", data=encoded(noise(32, 24), "AVIF"))).size == (32, 24)


@pytest.mark.parametrize("kind", ["JPEG2000", "PPM"])
def test_other_formats(kind):
    assert open_image(ImageSlot("a", data=encoded(noise(32, 24), kind))).size == (32, 24)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {})],
    ids=str,
)
def test_a_cut_off_image(refusal, kind, options, share):
    whole = encoded(noise(200, 150), kind, **options)
    assert refusal(whole[: int(len(whole) * share)]).startswith("cannot be read as an image: ")


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (1, 1, "too small (1 x 1 pixels; at least 4 on each side). Replace it or drop the record."),
        (1, 20_000, "too small (1 x 20000 pixels"),
        (3, 300, "too small (3 x 300 pixels"),
        (4, 401, "too long and thin (4 x 401 pixels; at most 100 to 1). Crop it."),
        (20_000, 199, "too long and thin (20000 x 199 pixels"),
        (2**31 - 1, 2**31 - 1, "too large (2147483647 x 2147483647 pixels; at most 178,956,970 in all)."),
        (13_378, 13_378, "too large (13378 x 13378 pixels"),
        (0, 5, "cannot be read as an image: "),
    ],
)
def test_sizes_beyond_the_limits(refusal, width, height, words):
    assert refusal(png(width, height)).startswith(words)


@pytest.mark.parametrize("size", [(4, 4), (4, 400), (400, 4)])
def test_sizes_at_the_limits(size):
    assert open_image(ImageSlot("a", data=encoded(Image.new("RGB", size, RED), "PNG"))).size == size


def test_an_image_for_which_pillow_would_warn_of_a_bomb_is_read_in_silence(capfd):
    side = int(MAX_PIXELS**0.5) - 1
    assert side * side > Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(ImageSlot("a", data=encoded(Image.new("L", (side, side)), "JPEG")), side=336).width < side
    assert capfd.readouterr().err == ""


def test_bombs_of_other_formats(refusal):
    bmp = bytearray(encoded(noise(8, 8), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    gif = bytearray(encoded(noise(8, 8), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    jpeg = bytearray(JPEG)
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    for data in (bmp, gif, jpeg, b"P6 99999 99999 255\n"):
        assert refusal(bytes(data)).startswith("too large (")
    webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + b"\0" * 8
    assert refusal(webp)


def test_a_progressive_jpeg_of_thousands_of_passes_is_not_decoded():
    data = encoded(Image.new("RGB", (4000, 3000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    slot = ImageSlot("image.jpg", data=data[:-2] + last * 2000 + b"\xff\xd9")
    started = time.monotonic()
    words = "a JPEG of 2010 passes, which would take minutes. Save it again."
    assert check_images([slot], decode=True) == {0: words}
    with pytest.raises(DataError, match=words):
        open_image(slot)
    assert time.monotonic() - started < 5


def test_slow_decoders_read_small_images_only(refusal):
    assert open_image(ImageSlot("a", data=b"P3 4 4 255\n" + b"255 0 0 " * 16)).getcolors() == [(16, RED)]
    assert refusal(b"P3 1100 1000 255\n" + b"1 " * 3_300_000).startswith(
        "too large for its coding, which is read slowly"
    )


def test_text_chunks_that_unpack_to_gigabytes(refusal):
    bomb = zlib.compress(b"x" * 200_000_000)
    data = png(8, 8, (b"zTXt", b"comment\0\0" + bomb), data=PIXELS)
    assert "too large for PngImagePlugin.MAX_TEXT_CHUNK" in refusal(data)
    many = [(b"tEXt", b"comment\0" + b"x" * 900_000)] * 75
    assert refusal(png(8, 8, *many, data=PIXELS)).startswith("too large (")


@pytest.mark.parametrize(
    "chunk", [(b"iCCP", b"x\0\0" + b"broken"), (b"tEXt", b"comment\0" + b"x" * 10_000), (b"eXIf", b"MM\0*")]
)
def test_odd_chunks_of_a_png_do_no_harm(chunk, capfd):
    assert open_image(ImageSlot("a", data=png(8, 8, chunk, data=PIXELS))).getcolors() == [(64, RED)]
    assert capfd.readouterr().err == ""


def test_a_png_with_a_wrong_checksum(refusal):
    place = PNG.index(b"IHDR") + 14
    assert refusal(PNG[:place] + b"xx" + PNG[place + 2 :]).startswith("cannot be read as an image: ")


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0" + os.urandom(200),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ],
)
def test_broken_exif_and_colour_profiles_do_no_harm(exif, capfd):
    image = noise(64, 48)
    for kind in ("JPEG", "WEBP", "PNG"):
        data = encoded(image, kind, exif=b"Exif\0\0" + exif, icc_profile=b"no profile" * 9)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_image(ImageSlot("a", data=data)).size == (64, 48)
    assert capfd.readouterr().err == ""


def test_exif_may_turn_a_png_whose_comment_says_otherwise():
    exif, info = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    info.add_text("orientation", "sideways")
    assert open_image(ImageSlot("a", data=encoded(noise(64, 48), "PNG", exif=exif, pnginfo=info))).size == (48, 64)


def test_jpeg_warnings_are_no_errors():
    """Bytes between segments and a few flipped bits are what libjpeg mends by itself."""
    place = JPEG.index(b"\xff\xda")
    assert open_image(ImageSlot("a", data=JPEG[:place] + b"\0\0\0" + JPEG[place:] + b"trailer" * 99)).size == (64, 48)


def test_a_damaged_tiff_prints_nothing(refusal):
    data = bytearray(encoded(noise(64, 48), "TIFF", compression="tiff_deflate"))
    data[60:90] = b"\xff" * 30
    assert refusal(bytes(data)).startswith("cannot be read as an image: ")


def test_an_image_may_be_a_part_of_a_file_or_bytes(tmp_path, refusal):
    path = tmp_path / "images.tar"
    path.write_bytes(b"x" * 512 + PNG + JPEG)
    expected = noise(64, 48).tobytes()
    member = ImageSlot(str(path), 512, len(PNG))
    assert open_image(member).tobytes() == open_image(ImageSlot("x", data=PNG)).tobytes() == expected
    assert open_image(ImageSlot(str(path), 512 + len(PNG), len(JPEG))).size == (64, 48)
    for decode in (True, False):
        assert check_images([member], decode=decode) == {}
    file_size = path.stat().st_size
    past_the_end = f"ends at byte {file_size + 1:,} of a file of {file_size:,}. Download or copy the file again."
    assert refusal(ImageSlot(str(path), 512 + len(PNG), len(JPEG) + 1)) == past_the_end
    with pytest.raises(DataError, match=r"images\.tar \(the image at byte 512\): cannot be read as an image"):
        open_image(ImageSlot(str(path), 512, 500))


def test_reading_and_checking_need_no_torch():
    program = "import mmtune.data.image_check, mmtune.data.image_folder, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
