from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw, ImageFont

from mmtune.data.image_files import open_image
from mmtune.data.images import RESAMPLING, ImageTransform, pad_and_resize
from mmtune.errors import DataError
from mmtune.models.vision_towers import CLIP_MEAN, CLIP_STD

CLIP_336 = ImageTransform(336, CLIP_MEAN, CLIP_STD)
CLIP_COLOUR = (122, 116, 104)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("side", [24, 200, 336, 500])
def test_square_images_come_out_as_transformers_makes_them(side):
    """The largest difference is 0 with transformers 5.23; 1e-6 leaves room for another order of the arithmetic."""
    from transformers import CLIPImageProcessorPil

    reference = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    image = noise(side, side)
    expected = reference(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(CLIP_336(image), expected, rtol=0, atol=1e-6)


def test_the_transform_is_float32_channels_first_and_normalized():
    pixels = ImageTransform(8, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))(Image.new("RGB", (8, 8), (255, 0, 255)))
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8), torch.float32)
    assert pixels[:, 3, 5].tolist() == [1.0, -1.0, 1.0]


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_resampling_is_as_named(resample):
    image = noise(50, 50)
    expected = np.asarray(image.resize((20, 20), Image.Resampling[resample.upper()]), dtype=np.float32) / 255
    pixels = ImageTransform(20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resample)(image)
    np.testing.assert_array_equal(pixels.numpy().transpose(1, 2, 0), expected)


@pytest.mark.parametrize(("size", "box"), [((8, 4), (0, 2, 8, 6)), ((4, 8), (2, 0, 6, 8)), ((5, 2), (0, 1, 5, 3))])
def test_other_images_are_centred_on_the_mean_colour(size, box):
    assert CLIP_336.padding_colour == CLIP_COLOUR
    square = pad_and_resize(noise(*size), max(size), CLIP_COLOUR, "bicubic")
    assert square.size == (max(size),) * 2
    assert square.crop(box).tobytes() == noise(*size).tobytes()
    square.paste(CLIP_COLOUR, box)
    assert square.getcolors() == [(max(size) ** 2, CLIP_COLOUR)]


@pytest.mark.parametrize(
    "size", [(60, 40), (40, 60), (60, 60), (64, 17), (17, 64), (300, 7), (7, 300), (20, 20), (1, 9)]
)
@pytest.mark.parametrize("side", [20, 64])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_padding_and_resizing_in_strips_is_the_same_to_the_bit(monkeypatch, size, side, resample):
    monkeypatch.setattr("mmtune.data.images.STRIP_PIXELS", 600)
    square = Image.new("RGB", (max(size),) * 2, CLIP_COLOUR)
    square.paste(noise(*size), ((max(size) - size[0]) // 2, (max(size) - size[1]) // 2))
    expected = square.resize((side, side), RESAMPLING[resample])
    assert pad_and_resize(noise(*size), side, CLIP_COLOUR, resample).tobytes() == expected.tobytes()


def test_a_huge_image_is_averaged_down_first():
    """Without that, the square of this strip would have 400 million pixels."""
    image = noise(500, 600).resize((500, 20_000), Image.Resampling.BICUBIC)
    expected = np.asarray(noise(500, 600).resize((500, 20_000), Image.Resampling.BICUBIC).resize((8, 336)), dtype=int)
    pixels = np.asarray(pad_and_resize(image, 336, CLIP_COLOUR, "bicubic"), dtype=int)
    assert pixels.shape == (336, 336, 3)
    assert np.abs(pixels[:, 164:172] - expected).mean() < 3
    assert (pixels[:, :150] == CLIP_COLOUR).all()


def test_padding_comes_out_near_zero():
    pixels = CLIP_336(Image.new("RGB", (672, 336), RED))
    assert pixels[:, :80].abs().max() < 0.02
    assert pixels[0, 168, 168] > 1.5


def test_a_transform_survives_its_file():
    assert ImageTransform.from_dict(CLIP_336.to_dict()) == CLIP_336


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_turns_the_image(tmp_path, kind):
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.save(tmp_path / f"turned.{kind}", exif=exif, quality=95)
    opened = open_image(tmp_path / f"turned.{kind}")
    assert opened.size == (16, 32)
    assert opened.getpixel((8, 4))[0] > 200
    assert opened.getpixel((8, 28))[2] > 200


def palette(transparent):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*BLUE, *GREEN])
    image.info |= {"transparency": 1} if transparent else {}
    return image


WHITE = (255, 255, 255)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (4, 4), GREEN), GREEN),
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), WHITE),
        (palette(transparent=False), GREEN),
        (palette(transparent=True), WHITE),
        (Image.new("RGBA", (4, 4), (*GREEN, 255)), GREEN),
        (Image.new("RGBA", (4, 4), (*GREEN, 0)), WHITE),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (4, 4), (0, 0)), WHITE),
        (Image.fromarray(np.full((4, 4), 77 * 256 + 200, dtype=np.uint16)), (77, 77, 77)),
    ],
)
def test_every_png_mode_becomes_rgb(tmp_path, image, expected):
    image.save(tmp_path / "image.png")
    opened = open_image(tmp_path / "image.png")
    assert (opened.mode, opened.size) == ("RGB", (4, 4))
    assert opened.getcolors() == [(16, expected)]


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_colour_spaces_of_tiff_become_rgb(tmp_path, mode):
    colour = (200, 60, 40)
    image = Image.new("RGB", (16, 16), colour)
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.tif", compression="tiff_lzw")  # Pillow below 13 reads YCbCr compressed alone
    opened = open_image(tmp_path / "image.tif")
    assert np.abs(np.array(opened.getpixel((8, 8))) - colour).max() <= 4


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"image.{kind}", save_all=True, append_images=frames[1:], **options)
    assert open_image(tmp_path / f"image.{kind}").getcolors() == [(256, RED)]


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, kind):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / f"image.{kind}", quality=95)
    opened = open_image(tmp_path / f"image.{kind}")
    assert opened.mode == "RGB"
    assert np.abs(np.array(opened.getpixel((8, 8))) - np.array(RED)).max() <= 3


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused_and_not_clipped(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype=dtype)).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match="no known range"):
        open_image(tmp_path / "image.tif")


def page_of_text(width, height, size):
    page, font = Image.new("RGB", (width, height), "white"), ImageFont.load_default(size)
    words = np.random.default_rng(0).integers(97, 123, (height // size, 400), dtype=np.uint8)
    for number, row in enumerate(words):
        row[::6] = 32
        ImageDraw.Draw(page).text((4, number * size * 1.3), row.tobytes().decode(), "black", font)
    return page


def difference(path, image, **options):
    """Mean and largest difference in 8-bit levels between an image opened for CLIP and in full, both padded."""
    image.save(path, **options)
    reduced, full = (
        np.asarray(pad_and_resize(opened, 336, CLIP_COLOUR, "bicubic"), dtype=int)
        for opened in (open_image(path, side=336), open_image(path))
    )
    return np.abs(reduced - full).mean(), np.abs(reduced - full).max()


def photograph(width, height):
    return noise(90, 70).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("size", "subsampling"), [((2016, 1508), 0), ((1200, 2020), 2), ((4032, 3024), 2)])
@pytest.mark.parametrize(
    ("draw", "mean_difference", "max_difference"),
    [
        (partial(page_of_text, size=12), 2.5, 20),
        (partial(page_of_text, size=40), 2.5, 20),
        (noise, 2.5, 20),
        (photograph, 0.3, 6),
    ],
)
def test_a_reduced_jpeg_is_within_the_tolerance(tmp_path, draw, mean_difference, max_difference, size, subsampling):
    """The tolerances that `open_image` and the docs state."""
    mean, largest = difference(tmp_path / "image.jpg", draw(*size), subsampling=subsampling, quality=90)
    assert 0 < largest <= max_difference
    assert mean <= mean_difference


@pytest.mark.parametrize(
    ("name", "size", "scale"),
    [
        ("a.jpg", (2014, 1510), 1),  # half of it would be less than 3 x 336 pixels
        ("a.jpg", (2016, 1512), 2),
        ("a.jpg", (1512, 2016), 2),
        ("a.jpg", (2016, 1511), 1),  # an odd side
        ("a.jpg", (2016, 1510), 1),  # a padding of 253 rows
        ("a.jpg", (2017, 1513), 1),
        ("a.jpg", (4032, 3024), 4),
        ("a.jpg", (4032, 3028), 2),
        ("a.jpg", (8064, 128), 8),
        ("a.jpg", (4032, 4032), 4),
        ("a.png", (2016, 1512), 1),
        ("a.webp", (2016, 1512), 1),
    ],
)
def test_which_images_are_reduced(tmp_path, name, size, scale):
    Image.new("RGB", size).save(tmp_path / name)
    assert open_image(tmp_path / name, side=336).size == (size[0] / scale, size[1] / scale)
    assert open_image(tmp_path / name).size == size


def test_an_image_turned_by_exif_is_reduced_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (2688, 100)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg", side=336).size == (50, 1344)


def test_the_transform_opens_for_its_own_side(tmp_path):
    noise(300, 200).save(tmp_path / "a.jpg")
    small = ImageTransform(32, CLIP_MEAN, CLIP_STD)
    assert torch.equal(small.open(tmp_path / "a.jpg"), small(open_image(tmp_path / "a.jpg", side=32)))
    assert not torch.equal(small.open(tmp_path / "a.jpg"), small(open_image(tmp_path / "a.jpg")))
    assert torch.equal(CLIP_336.open(str(tmp_path / "a.jpg")), CLIP_336(open_image(tmp_path / "a.jpg")))
