"""Damaged images by the thousand: opening and checking agree, nothing hangs, nothing but our error comes out."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from mmtune.conversation import ImageSlot
from mmtune.data.image_check import check_image
from mmtune.data.images import ImageTransform
from mmtune.errors import DataError

SMALL = ImageTransform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""So small that JPEGs of 192 pixels are decoded at 1/2, of 384 at 1/4."""


def picture(width, height):
    """Smooth colours with a noisy patch, so that every coder has something to do."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([2 * x % 256, 3 * y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    patch = pixels[height // 4 : height // 2, width // 4 : width // 2]
    patch[:] = np.random.default_rng(0).integers(0, 256, patch.shape)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seed_files():
    """Sound images of each format in its modes and codings."""
    small, large, exif = picture(120, 90), picture(384, 192), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    jpegs = [
        encoded(small, "JPEG", exif=exif),
        encoded(large, "JPEG", quality=60, progressive=True),
        encoded(large, "JPEG", subsampling=2, exif=exif, icc_profile=b"x" * 500),
        encoded(large, "JPEG", subsampling=0, restart_marker_rows=1),
        encoded(small.convert("CMYK"), "JPEG"),
        encoded(large.convert("L"), "JPEG"),
    ]
    deep = Image.fromarray(np.asarray(small)[..., 0].astype(np.uint16) * 256)
    pngs = [encoded(small.convert(mode), "PNG", exif=exif) for mode in ("RGB", "RGBA", "P", "LA", "1")]
    pngs += [encoded(small.quantize(16), "PNG", transparency=b"\0\x80"), encoded(deep, "PNG")]
    frames = {"save_all": True, "append_images": [small.rotate(30)]}
    gifs = [encoded(small, "GIF"), encoded(small, "GIF", transparency=0, **frames)]
    webps = [
        encoded(small, "WEBP"),
        encoded(small.convert("RGBA"), "WEBP", lossless=True),
        encoded(small, "WEBP", **frames),
    ]
    bmps = [encoded(small.convert(mode), "BMP") for mode in ("RGB", "P", "1")]
    codings = ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    tiffs = [encoded(small, "TIFF", compression=coding, exif=exif) for coding in codings]
    tiffs += [encoded(small.convert(mode), "TIFF") for mode in ("CMYK", "RGBA")]
    tiffs += [encoded(small.convert("YCbCr"), "TIFF", compression="tiff_lzw")]  # Pillow below 13 reads it so alone
    tiffs += [encoded(small.convert("1"), "TIFF", compression="group4"), encoded(deep, "TIFF")]
    return [*jpegs, *pngs, *gifs, *webps, *bmps, *tiffs]


def damaged(files, rng):
    """Return one of the files after one to three damages."""
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(data)))
        match rng.integers(6):
            case 0:  # cut off
                del data[place:]
            case 1:  # flipped bits
                for at in rng.integers(0, len(data), rng.integers(1, 12)):
                    data[at] ^= 1 << rng.integers(8)
            case 2:  # other bytes near the beginning, where the headers are
                for at in rng.integers(0, min(len(data), rng.choice([40, 400, 4000])), 4):
                    data[at] = rng.integers(256)
            case 3:  # a piece of another file spliced in
                other = files[rng.integers(len(files))]
                start = int(rng.integers(len(other)))
                data[place:place] = other[start : start + int(rng.integers(1, 300))]
            case 4:  # a run of one byte
                data[place : place + int(rng.integers(1, 50))] = bytes([rng.choice([0, 127, 255])]) * int(
                    rng.integers(1, 50)
                )
            case 5:  # a hole
                del data[place : place + int(rng.integers(1, 60))]
        data = data or bytearray(b"x")
    return bytes(data)


def opens(slot):
    try:
        pixels = SMALL.open(slot)
    except DataError:
        return False
    assert pixels.shape == (3, 32, 32)
    assert pixels.isfinite().all()
    return True


@pytest.mark.parametrize("num_files", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_the_check_passes_opens_and_nothing_else(num_files, capfd):
    rng, files, outcomes = np.random.default_rng(num_files), seed_files(), []
    assert all(opens(ImageSlot("sound", data=data)) for data in files)
    for number in range(num_files):
        slot = ImageSlot(f"{number}.jpg", data=damaged(files, rng))
        started = time.monotonic()
        reason = check_image(slot, decode=True)
        assert opens(slot) == (reason is None), f"image {number}: {reason}"
        if reason is None:  # the check of header and end decodes where it is in doubt, so it refuses nothing more
            assert check_image(slot, decode=False) is None
        else:
            assert reason.endswith(".")
            assert "\n" not in reason
        assert time.monotonic() - started < 10
        outcomes.append(reason is None)
    assert 0.1 < np.mean(outcomes) < 0.9
    assert capfd.readouterr().err == ""
