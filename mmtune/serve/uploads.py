"""Images that strangers send, checked before a pixel is decoded. Decoding itself is that of training: `data/`."""

import re
from dataclasses import dataclass

from mmtune.conversation import ImageSlot
from mmtune.data.image_files import prepare_image
from mmtune.data.image_kinds import kind_of
from mmtune.errors import DataError

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP")
"""What is taken. What else training reads is rare in uploads, and its decoders are large."""

SHOWN_NAME = 80
"""Characters of a file name that an error shows."""


@dataclass(frozen=True)
class UploadLimits:
    """How large an image may be.

    Attributes:
        max_bytes: encoded.
        max_pixels: in all. A telephone takes 12 to 50 million; decoded that is 150 MB.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


def checked_upload(data: bytes, name: str, limits: UploadLimits | None = None) -> ImageSlot:
    """Return an image as what `ChatSession.ask` and `ImageTransform.open` take, which decode it as training does.

    Its format is that of its bytes; what it is called counts for nothing. Broken pixels are found when it is decoded.

    Args:
        data: the file.
        name: what it is called in errors, such as its file name. Shown as text, and never opened.
        limits: None takes those of `UploadLimits`.

    Raises:
        DataError: it is no image of `FORMATS`, beyond a limit, or its head is broken.
    """
    limits, name = limits or UploadLimits(), _shown(name)
    if not data:
        raise DataError(name, "it is empty. Send an image.")
    if len(data) > limits.max_bytes:
        raise DataError(name, f"too large ({len(data):,} bytes; at most {limits.max_bytes:,}). Save it smaller.")
    try:
        kind = kind_of(data)
        if kind not in FORMATS:
            raise ValueError(
                f"a {kind} image, which is not taken here. Send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
            )
        image = prepare_image(data)
    except ValueError as error:
        raise DataError(name, str(error)) from None
    if image.width * image.height > limits.max_pixels:
        shown = f"{image.width} x {image.height} pixels; at most {limits.max_pixels:,} in all"
        raise DataError(name, f"too large ({shown}). Save it smaller.")
    return ImageSlot(name, data=data)


def _shown(name: str) -> str:
    """A name in one short line of characters that print."""
    line = re.sub(r"[^\w .,()\[\]+@=-]", "_", name)
    return line if len(line) <= SHOWN_NAME else f"{line[:SHOWN_NAME]}..."
