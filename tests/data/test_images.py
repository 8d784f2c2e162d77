import numpy as np
import pytest
import torch
from PIL import Image

from mmtune.data.images import ImageTransform, open_image, pad_to_square
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
    square = pad_to_square(noise(*size), CLIP_COLOUR)
    assert square.size == (max(size),) * 2
    assert square.crop(box).tobytes() == noise(*size).tobytes()
    square.paste(CLIP_COLOUR, box)
    assert square.getcolors() == [(max(size) ** 2, CLIP_COLOUR)]


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


def test_a_missing_image_says_where_it_was_looked_for(desk):
    with pytest.raises(DataError) as caught:
        open_image("images/1.jpg", "data.json:3")
    assert str(caught.value).startswith("data.json:3: images/1.jpg: no such image")
    assert f"resolved to {desk / 'images/1.jpg'}" in str(caught.value)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "note.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("note.jpg", "empty.jpg"):
        with pytest.raises(DataError, match=f"{name}: not an image that Pillow can read"):
            open_image(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read as an image"):
        open_image(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "bmp", "tif"])
def test_a_cut_off_image_is_refused(tmp_path, kind):
    path = tmp_path / f"image.{kind}"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "bmp"])
def test_damaged_bytes_give_an_image_or_our_error(tmp_path, kind):
    path, rng = tmp_path / f"image.{kind}", np.random.default_rng(0)
    noise(24, 24).save(path)
    sound = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    outcomes = set()
    for _ in range(60):
        damaged = sound.copy()
        damaged[rng.integers(0, min(len(sound), rng.choice([40, 400, 4000])), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            outcomes.add(open_image(path).mode)
        except DataError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"RGB", "refused"}
