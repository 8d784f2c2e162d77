"""Open an image and turn it into the tensor that an encoder was trained on. No torchvision."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from mmtune.errors import DataError

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def open_image(path: Path | str, place: str = "") -> Image.Image:
    """Return an image as RGB, turned as its EXIF says, with transparent parts on white.

    Args:
        path: the file.
        place: where it was named, for the message.

    Raises:
        DataError: the file is missing, unreadable or not an image.
    """
    path = Path(path)
    prefix = f"{place}: " if place else ""
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"{prefix}{path}", f"no such image (resolved to {path.resolve()}). Mend the path.") from None
    except UnidentifiedImageError:
        raise DataError(f"{prefix}{path}", "not an image that Pillow can read. Replace the file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{prefix}{path}", f"cannot be read as an image: {error}. Replace the file.") from None


def missing_image(path: str) -> str | None:
    """Say that no image file is at a path; None where one is. The file is not opened."""
    if os.path.isfile(path):  # False also for a path too long for the system, such as a data URL
        return None
    return f"image {path:.200} is missing (resolved to {os.path.abspath(path):.200})."


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):  # Pillow would clip them to black or white
        raise ValueError(f"its {'32-bit' if image.mode == 'I' else 'floating point'} pixels have no known range")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageTransform:
    """Pad to a square, resize, normalize: the same in training, chat and evaluation, and stored with the run.

    On a square image this is what `CLIPImageProcessor` computes.

    Attributes:
        image_size: the side of the result in pixels; 336 for CLIP ViT-L/14-336.
        mean: of each channel, in 0..1; also the colour of the padding.
        std: of each channel, in 0..1.
        resample: `bicubic` or `bilinear`.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: str = "bicubic"

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return pixel values as float32[3, image_size, image_size]."""
        square = pad_to_square(image, self.padding_colour)
        if square.size != (self.image_size, self.image_size):
            square = square.resize((self.image_size, self.image_size), RESAMPLING[self.resample])
        pixels: np.ndarray = np.asarray(square, dtype=np.float32) / 255.0
        pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    @property
    def padding_colour(self) -> tuple[int, int, int]:
        """The mean colour as 8-bit RGB; (122, 116, 104) for CLIP, as LLaVA pads."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return red, green, blue

    def to_dict(self) -> dict[str, object]:
        """Return the fields for `preprocessor.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "ImageTransform":
        """Return the transform that `to_dict` described."""
        return cls(values["image_size"], tuple(values["mean"]), tuple(values["std"]), values["resample"])


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Return the image centred on a square of the given colour; a square image as it is."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas
