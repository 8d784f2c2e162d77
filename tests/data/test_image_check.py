"""Many images at once: every bad one is found and named by its index, in threads that stop at once."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mmtune.conversation import ImageSlot
from mmtune.data import image_check
from mmtune.data.image_check import check_image, check_images


def encoded(kind, size=(64, 48), **options):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
WHOLE = {kind: encoded(kind) for kind in KINDS}


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("num_threads", [None, 1, 3, 50])
def test_the_bad_ones_are_named_by_their_index(tmp_path, decode, num_threads):
    slots, bad = [], []
    for number in range(300):
        kind = KINDS[number % len(KINDS)]
        is_bad = number % 7 == 3
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(WHOLE[kind][:-40] if is_bad else WHOLE[kind])
        slots.append(ImageSlot(str(path)))
        bad += [number] if is_bad else []
    slots.append(ImageSlot(str(tmp_path / "nope.jpg")))
    found = check_images(slots, decode=decode, num_threads=num_threads)
    assert list(found) == [*bad, 300]
    assert found[300].startswith("no such image (resolved to ")
    assert all(found[index].startswith("cannot be read as an image: ") for index in bad)


def test_nothing_to_check():
    done = []
    assert check_images([], decode=True, progress=done.append) == {}
    assert done == []


def test_an_image_that_is_named_often_is_looked_at_once(monkeypatch):
    looked_at = []
    check = image_check.check_image

    def recorded(slot, **options):
        looked_at.append(slot.path)
        return check(slot, **options)

    monkeypatch.setattr(image_check, "check_image", recorded)
    slots = [ImageSlot(f"{number % 3}.jpg", data=WHOLE["PNG"][: 3000 * (number % 3)]) for number in range(30)]
    found = check_images(slots, decode=True)
    assert sorted(looked_at) == ["0.jpg", "1.jpg", "2.jpg"]
    assert list(found) == list(range(30))
    assert found[0] == found[27] != found[28]


def test_progress_counts_to_the_end_in_this_thread():
    slots = [ImageSlot(f"{number % 200}", data=WHOLE["PNG"]) for number in range(250)]
    done, threads = [], set()

    def progress(count):
        done.append(count)
        threads.add(threading.current_thread())

    assert check_images(slots, decode=False, num_threads=2, progress=progress) == {}
    assert done == sorted(done)
    assert done[-1] == len(slots)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_bytes", [1, 2, 20, 200])
def test_a_cut_off_end_is_found_without_decoding_where_decoding_finds_it(kind, num_bytes):
    """Where Pillow opens a file all the same, such as a JPEG that lacks only its end mark, it is not called bad."""
    slot = ImageSlot("x", data=WHOLE[kind][:-num_bytes])
    assert (check_image(slot, decode=False) is None) == (check_image(slot, decode=True) is None)
    assert num_bytes < 200 or check_image(slot, decode=False) is not None


def test_bytes_behind_the_end_are_no_mistake():
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        for decode in (False, True):
            assert check_image(ImageSlot("x", data=WHOLE[kind] + b"\0" * 100), decode=decode) is None


def test_a_header_longer_than_what_is_read_of_it():
    data = encoded("JPEG", icc_profile=bytes(200_000))
    assert check_image(ImageSlot("x", data=data), decode=False) is None
    assert check_image(ImageSlot("x", data=data[:-500]), decode=False) is not None


def test_damage_inside_is_found_by_decoding_alone():
    data = bytearray(WHOLE["PNG"])
    data[len(data) // 2] ^= 255
    assert check_image(ImageSlot("x", data=bytes(data)), decode=False) is None
    assert check_image(ImageSlot("x", data=bytes(data)), decode=True).startswith("cannot be read as an image: ")


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_jpeg_is_read_to_its_end_though_decoded_small(options):
    data = encoded("JPEG", (800, 600), **options)
    for share in (0.3, 0.6, 0.9, 0.99):
        assert "truncated" in check_image(ImageSlot("x", data=data[: int(share * len(data))]), decode=True)


def test_a_mistake_of_ours_is_not_swallowed(monkeypatch):
    def broken(slot, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(image_check, "check_image", broken)
    with pytest.raises(ZeroDivisionError):
        check_images([ImageSlot("x")], decode=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_many_threads_need_the_memory_of_one_large_image(tmp_path):
    """Three of 48 million pixels take 200 MB each once decoded."""
    path = tmp_path / "large.png"
    Image.new("RGB", (8_000, 6_000)).save(path, compress_level=1)
    program = (
        "import re, sys\n"
        "from mmtune.conversation import ImageSlot\n"
        "from mmtune.data.image_check import check_images\n"
        "slots = [ImageSlot(sys.argv[1] + '/' * n + sys.argv[2]) for n in (1, 2, 3)]\n"
        "assert check_images(slots, decode=True, num_threads=3) == {}\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path), "large.png"], capture_output=True, text=True)
    assert 190_000 < int(result.stdout) < 350_000, result.stderr  # 215,000 measured, in kB


def test_ctrl_c_works_at_once(tmp_path):
    """Of 40 images that take about a second each, those being decoded are not waited for."""
    path = tmp_path / "slow.png"
    Image.new("RGB", (12_000, 12_000)).save(path, compress_level=1)
    for number in range(40):
        os.link(path, tmp_path / f"{number}.png")
    program = (
        "import sys\n"
        "from mmtune.conversation import ImageSlot\n"
        "from mmtune.data.image_check import check_images\n"
        "slots = [ImageSlot(f'{sys.argv[1]}/{number}.png') for number in range(40)]\n"
        "print('begun', flush=True)\n"
        "check_images(slots, decode=True, num_threads=2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - started < 10  # 0.1 measured; all of them would take minutes
    assert process.stderr.read().strip().endswith("KeyboardInterrupt")
