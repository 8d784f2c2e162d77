"""From what a record says of its images to image slots, and their places in texts. Opens no image."""

import base64
import binascii
import re
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mmtune.conversation import ImageSlot
from mmtune.data.dialogue import kind_of

IMAGE_MARK = "<image>"
OTHER_MEDIA = ("video", "videos", "audio", "audios")
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]*)*?;base64,", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def images_of(record: dict[str, Any]) -> list[ImageSlot]:
    """Return the images that a record names under `image` or `images`, in order; none where the key is empty.

    Each is a path, a file:// or data URI, bytes, `{"bytes": ..., "path": ...}` or an image slot, or a list of these.

    Raises:
        ValueError: both keys name images, one is of another kind, or the record has videos or sounds.
    """
    for key in OTHER_MEDIA:
        if record.get(key):
            raise ValueError(f"has '{key}', which are not read. Drop the key, or the record.")
    value, more = record.get("image"), record.get("images")
    if _is_given(more):
        if _is_given(value):
            raise ValueError("both 'image' and 'images' name images. Keep one of the two keys.")
        value = more
    elif not _is_given(value):
        return []
    values = value if isinstance(value, list) else [value]
    return [image_slot(each, number) for number, each in enumerate(values, 1)]


def _is_given(value: Any) -> bool:
    return value is not None and value != "" and value != []


def image_slot(value: Any, number: int) -> ImageSlot:
    """Return the slot of one image.

    Args:
        value: a path, a file:// or data URI, bytes, `{"bytes": ..., "path": ...}` or a slot.
        number: which image of the record it is, counted from 1, for messages.

    Raises:
        ValueError: it is something else, or on the web.
    """
    if isinstance(value, str) and value:
        return _slot_of_text(value, number) if ":" in value else ImageSlot(value)
    if isinstance(value, ImageSlot):
        return value
    data, path = value, None
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        data, path = value.get("bytes"), value.get("path")
        if data is None and isinstance(path, str):
            return image_slot(path, number)
    if isinstance(data, bytes) and data:
        return ImageSlot(path or _name(number), data=data)
    if isinstance(data, bytes):
        raise ValueError(f"{_name(number)} has no bytes. Write the image again, or drop the record.")
    found = "an object without bytes or path" if isinstance(value, dict) else kind_of(value)
    raise ValueError(f"'image' must be a path or a list of paths (got {found}).")


def _slot_of_text(text: str, number: int) -> ImageSlot:
    if text[:5].lower() == "data:":
        return ImageSlot(_name(number), data=_decoded(text, number))
    scheme = _SCHEME.match(text)
    if scheme is None:
        return ImageSlot(text)
    if scheme[1].lower() != "file":
        raise ValueError(f"{_name(number)} is on the web ({text:.60}). Download it first, and name the file.")
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(
            f"{_name(number)} is no file URI ({text:.60}). Write file:/// and the whole path, or the path."
        )
    return ImageSlot(url2pathname(parts.path))


def _decoded(uri: str, number: int) -> bytes:
    head = _DATA_URI.match(uri[:200])
    if head is None:
        raise ValueError(
            f"{_name(number)} is a data URI without base64 (got {uri:.30}). Write data:image/png;base64,..."
        )
    try:
        data = base64.b64decode("".join(uri[head.end() :].split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ValueError(f"{_name(number)} is a data URI whose base64 is broken. Write the image again.")
    return data


def _name(number: int) -> str:
    return f"image {number} of the record"


class ImageQueue:
    """The images of a record, taken one by one as marks are met.

    Args:
        slots: the images, in the order of their marks.
    """

    def __init__(self, slots: list[ImageSlot]):
        self.slots = slots
        self.num_taken = 0

    def take(self) -> ImageSlot:
        """Return the next image; where none is left any slot, since `check` will refuse the record."""
        self.num_taken += 1
        return self.slots[self.num_taken - 1] if self.num_taken <= len(self.slots) else ImageSlot("")

    def split_marks(self, text: str) -> tuple[str | ImageSlot, ...]:
        """Return a text with an image at each of its marks."""
        if IMAGE_MARK not in text:
            return (text,) if text else ()
        first, *rest = text.split(IMAGE_MARK)
        content: list[str | ImageSlot] = [first]
        for piece in rest:
            content += (self.take(), piece)
        return tuple(part for part in content if part != "")

    def check(self, where: str) -> None:
        """Hold that each image had one mark.

        Args:
            where: which texts were searched, for the message.

        Raises:
            ValueError: there are more or fewer marks than images.
        """
        if self.num_taken != len(self.slots):
            num_images = f"{len(self.slots)} image{'' if len(self.slots) == 1 else 's'}"
            num_marks = f"{self.num_taken} '{IMAGE_MARK}' mark{'' if self.num_taken == 1 else 's'}"
            raise ValueError(f"{num_images} but {num_marks} in the {where}. Each image needs one mark.")
