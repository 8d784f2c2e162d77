"""Read an image file, a part of one or bytes as RGB, or say in one line why not. No torch, no folders.

Which file a path of a record means: `image_folder.py`. Many files at once: `image_check.py`. Tensors: `images.py`.
"""

import ctypes
import io
import logging
import re
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from mmtune.conversation import ImageSlot
from mmtune.data.image_bytes import read_bytes
from mmtune.data.image_kinds import READERS, kind_of
from mmtune.errors import DataError

MAX_PIXELS = 178_956_970
"""The largest image, where Pillow too stops: 716 MB once decoded. Beyond are decompression bombs."""

MIN_SIDE = 4
"""The smallest side in pixels. Shops answer for a missing book cover (OCR-VQA) with a GIF of 1 x 1."""

MAX_RATIO = 100
"""The longest side over the shortest. Padded to 336 pixels, the short side of a longer one has under 4 left."""

MAX_SCANNED_PIXELS = 12 * MAX_PIXELS
"""Pixels times passes of a progressive JPEG. Cameras and tools write about 10 passes; a hostile file has thousands."""

MAX_SLOW_PIXELS = 2**20
"""The largest image whose decoder Pillow runs in Python, at up to 3 microseconds a pixel."""

SLOW_CODECS = ("bmp_rle", "ppm", "ppm_plain")

REDUCED_SIDES = 3
"""A reduced JPEG has at least so many times the encoder's side on its longest side."""

ImageSource = ImageSlot | Path | str | Image.Image

PILLOW_MODULES = re.compile(r"PIL\.")

ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's number for how the camera was held -> what makes the image upright."""


def open_image(source: ImageSource, place: str = "", side: int | None = None) -> Image.Image:
    """Return an image as RGB, turned as its EXIF says, with transparent parts on white; of several frames the first.

    With `side`, a JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves at least 3 times `side` pixels on its longest
    side and divides its sides and its padding, so that nothing shifts. Against the full decode, after padding and
    resizing to 336 pixels, in 8-bit levels: photographs differ by 0.3 on average at most and in no pixel by more than
    6; pages of tiny text, noise and fine patterns by 2.5 and 20. All other images are the same to the bit.

    Args:
        source: a file; or a slot, which may be a part of a file or hold the encoded bytes; or an image that Pillow has
            opened, all of whose pixels are taken.
        place: where it was named, for the message.
        side: of the square that the encoder gets, in pixels; None decodes every pixel.

    Raises:
        DataError: the file is missing, unreadable, beyond a limit of this module or not an image.
    """
    slot = source if isinstance(source, ImageSlot) else ImageSlot(_name_of(source))
    try:
        if isinstance(source, Image.Image):
            _check_pixels(source)
            return decode_image(source)
        return read_image(slot, None if side is None else REDUCED_SIDES * side)
    except ValueError as error:
        within = f" (the image at byte {slot.offset})" if slot.size is not None else ""
        raise DataError(f"{f'{place}: ' if place else ''}{slot.path:.200}{within}", str(error)) from None


def _name_of(source: Path | str | Image.Image) -> str:
    return "image" if isinstance(source, Image.Image) else str(source)


def read_image(slot: ImageSlot, min_longest: int | None = None) -> Image.Image:
    """Return an image as `open_image` does.

    Args:
        slot: where it is.
        min_longest: as `prepare_image` takes it.

    Raises:
        ValueError: "reason. mend."
    """
    return decode_image(prepare_image(read_bytes(slot), min_longest))


def decode_image(image: Image.Image) -> Image.Image:
    """Return the pixels of a checked image: RGB, upright, on white.

    Raises:
        ValueError: "reason. mend."
    """
    try:
        image.load()
        return _to_rgb(_turned(image))
    except Exception as error:  # bytes that someone else wrote make Pillow raise nearly anything
        raise _unreadable(error) from None


def prepare_image(data: bytes, min_longest: int | None = None) -> ImageFile.ImageFile:
    """Return an image whose header is read and whose pixels are not, after the checks that need no pixels.

    Args:
        data: the encoded image.
        min_longest: a JPEG is decoded at the lowest scale that leaves its longest side so many pixels; None: in full.

    Raises:
        ValueError: "reason. mend."
    """
    _keep_pillow_quiet()
    kind = kind_of(data)
    try:
        image = READERS[kind](io.BytesIO(data), "")  # Image.open would guess formats, and warn of bombs on stderr
    except Exception as error:  # as above
        raise _unreadable(error) from None
    _check_pixels(image)
    if image.width * image.height > MAX_SLOW_PIXELS and any(tile[0] in SLOW_CODECS for tile in image.tile):
        shown = f"{image.width} x {image.height} pixels; at most {MAX_SLOW_PIXELS:,} in all"
        raise ValueError(f"too large for its coding, which is read slowly ({shown}). Save it as PNG.")
    num_passes = data.count(b"\xff\xda") if kind == "JPEG" else 1
    if num_passes * image.width * image.height > MAX_SCANNED_PIXELS:
        raise ValueError(f"a JPEG of {num_passes} passes, which would take minutes. Save it again.")
    if min_longest is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        _reduce(image, min_longest)
    return image


def _check_pixels(image: Image.Image) -> None:
    shown, pixels = f"{image.width} x {image.height} pixels", image.width * image.height
    short, long = sorted(image.size)
    if short < MIN_SIDE:
        raise ValueError(f"too small ({shown}; at least {MIN_SIDE} on each side). Replace it or drop the record.")
    if pixels > MAX_PIXELS:
        raise ValueError(f"too large ({shown}; at most {MAX_PIXELS:,} in all). Save it smaller.")
    if long > MAX_RATIO * short:
        raise ValueError(f"too long and thin ({shown}; at most {MAX_RATIO} to 1). Crop it.")
    if image.mode in ("I", "F"):  # Pillow would clip them to black or white
        numbers = "32-bit" if image.mode == "I" else "floating point"
        raise ValueError(
            f"cannot be read as an image: its {numbers} pixels have no known range. Save it with 8 or 16 bits."
        )


def _reduce(image: JpegImagePlugin.JpegImageFile, min_longest: int) -> None:
    short, long = sorted(image.size)
    for scale in (8, 4, 2):
        is_aligned = long % scale == 0 and (long - short) % (2 * scale) == 0  # or it would shift by a part of a pixel
        if long >= scale * min_longest and is_aligned:
            image.draft(None, (image.width // scale, image.height // scale))
            return


def _turned(image: Image.Image) -> Image.Image:
    try:
        method = ORIENTATIONS.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF says nothing of how the camera was held
        return image
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _unreadable(error: Exception) -> ValueError:
    if isinstance(error, MemoryError):
        return ValueError("cannot be read as an image: it needs more memory than there is. Save it smaller.")
    words = " ".join(str(error).split()).rstrip(".")[:160]
    if not re.search("[a-z]{3}", words):  # such as the number that a KeyError has
        words = "its data is broken"
    mend = "Download or copy it again." if "truncated" in words.lower() else "Replace the file."
    return ValueError(f"cannot be read as an image: {words}. {mend}")


def _keep_pillow_quiet() -> None:
    """What Pillow warns of is either an error here or harmless; it must not fill the terminal of a run."""
    for category in (UserWarning, Image.DecompressionBombWarning):
        if ("ignore", None, category, PILLOW_MODULES, 0) not in warnings.filters:  # a test or a notebook may reset them
            warnings.filterwarnings("ignore", category=category, module=PILLOW_MODULES.pattern)
    _keep_libraries_quiet()


@cache
def _keep_libraries_quiet() -> None:
    """Once a process: Pillow's log and libtiff, which report each error of a TIFF although Pillow raises it, too."""
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
    if sys.platform == "linux":  # elsewhere a damaged TIFF prints its lines
        mapped = re.findall(
            r"/\S*libtiff\S*\.so\S*$", Path("/proc/self/maps").read_text(encoding="utf-8"), re.MULTILINE
        )
        for path in set(mapped):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(path).TIFFSetErrorHandler(None)
                ctypes.CDLL(path).TIFFSetWarningHandler(None)
