"""What bytes are, by their first ones: a format with its reader, or what stands where an image should. No files.

Names do not count: a GIF named .jpg, as shops send them, is read as a GIF.
"""

import re
from collections.abc import Callable
from typing import Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

READERS: dict[str, Callable[[Any, str], Any]] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,  # also the first picture of an MPO file
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
"""Format -> what reads it. Left out are formats that Pillow hands to another program, such as EPS to Ghostscript."""

if "avif" in features.modules and features.check("avif"):  # Pillow can since 11.3, where it was built so
    from PIL import AvifImagePlugin

    READERS["AVIF"] = AvifImagePlugin.AvifImageFile

TEXT = rb"(?i:(\xef\xbb\xbf)?\s*"
"""Opens a mark in text: a byte order mark and spaces may stand before it, and the case of letters does not count."""

MARKS: list[tuple[str, bytes]] = [
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{10}\0\0"),
    ("TIFF", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("PPM", rb"P[1-6]\s"),
    ("JPEG 2000", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
    ("AVIF", rb"....ftyp(avif|avis)"),
    ("HEIC", rb"....ftyp(hei[cmsx]|hev[cx]|mif1|msf1)"),
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    ("PSD", rb"8BPS"),
    ("ICO", rb"\0\0[\x01\x02]\0"),
    ("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("PDF", rb"%PDF-"),
    ("video", rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI "),
    ("ZIP", rb"PK\x03\x04"),
    ("gzip", rb"\x1f\x8b"),
    ("Git LFS", rb"version https://git-lfs"),
    ("SVG", TEXT + rb"<(svg|(\?xml|!--|!DOCTYPE svg).*<svg))"),
    ("HTML", TEXT + rb"(<!--.*?-->\s*)?<(!doctype html|html|head|body))"),
    ("XML", TEXT + rb"<\?xml)"),
]
"""Kind and how its first bytes read, tried in this order."""

PATTERNS = [(kind, re.compile(mark, re.DOTALL)) for kind, mark in MARKS]

AGAIN = "Download it again."
REFUSED = {
    "HEIC": "a HEIC image, which Pillow cannot read. Convert it to JPEG.",
    "AVIF": "an AVIF image, which this build of Pillow cannot read. Upgrade Pillow, or convert it to JPEG.",
    "JPEG XL": "a JPEG XL image, which Pillow cannot read. Convert it to JPEG.",
    "SVG": "an SVG drawing, which has no pixels. Convert it to PNG.",
    "EPS": "a PostScript drawing, which has no pixels. Convert it to PNG.",
    "PDF": "a PDF document and no image. Convert its pages to PNG.",
    "PSD": "a Photoshop file. Convert it to PNG.",
    "ICO": "a file of icons. Convert it to PNG.",
    "video": "a video and no image. Extract its frames.",
    "ZIP": "a ZIP archive and no image. Unpack it.",
    "gzip": "a gzip archive and no image. Unpack it.",
    "Git LFS": "a Git LFS pointer, the image itself was not fetched. Run `git lfs pull` in its repository.",
    "HTML": f"an HTML page and no image: the answer of a failed download. {AGAIN}",
    "XML": f"an XML file and no image: the answer of a failed download. {AGAIN}",
}
"""Kind that has no reader -> "reason. mend."."""


def kind_of(data: bytes) -> str:
    """Return the format of encoded bytes, a key of `READERS`.

    Raises:
        ValueError: it has no reader; "reason. mend.".
    """
    head = data[:512]
    for kind, pattern in PATTERNS:
        if pattern.match(head):
            if kind in READERS:
                return kind
            raise ValueError(REFUSED[kind])
    raise ValueError("not an image that Pillow can read. Replace the file.")
