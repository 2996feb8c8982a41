import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_nonlocal.data.images import ImageError
from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.images import resize_image
from keras_nonlocal.data.images import resized


@pytest.fixture
def picture(rng):
    """A Pillow picture of coarse noise, 24 wide and 16 high."""
    noise = rng.integers(256, size=(4, 6, 3), dtype="uint8")
    return Image.fromarray(noise).resize((24, 16))


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # What detectron2 makes of them.
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((640, 426), (1202, 800)),
        ((375, 1242), (402, 1333)),
        ((1, 5000), (1, 1333)),
        # Halves.
        ((11, 22), (666, 1333)),
        ((41, 82), (667, 1333)),
        ((15, 310), (64, 1333)),
    ],
)
def test_resized(size, expected):
    assert resized(*size, 800, 1333) == expected
    assert resized(*size[::-1], 800, 1333) == expected[::-1]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reads_jpegs_of_any_colours(picture, tmp_path, mode, progressive):
    content = saved(picture.convert(mode), "JPEG", progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    expected = np.asarray(Image.open(path).convert("RGB"), int)
    found = read_image(path, (16, 24))
    assert found.dtype == np.uint8
    # CMYK is a matter of taste, but for where it is dark.
    most = 3 if mode == "CMYK" else 0
    assert np.abs(found - expected).max() <= most


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_reads_pngs_of_any_depth(picture, tmp_path, mode):
    grey = np.asarray(picture.convert("L"))
    if mode == "I;16":
        picture, expected = Image.fromarray(grey.astype("uint16") << 8), grey
    else:
        picture = picture.convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    path = tmp_path / "a.png"
    path.write_bytes(saved(picture, "PNG"))
    expected = np.broadcast_to(expected.reshape(16, 24, -1), (16, 24, 3))
    np.testing.assert_array_equal(read_image(path), expected)


def test_reads_the_first_of_an_animation(picture, tmp_path):
    path = tmp_path / "a.png"
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    content = saved(picture, "PNG", save_all=True, append_images=[other])
    assert content.count(b"fcTL") == 2
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(path), np.asarray(picture))


def bomb(width, height):
    """A PNG of a few bytes that says it is large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + bytes(100)


def grown(jpeg):
    """A JPEG whose header says that it is large."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + b"\x4e\x20\x4e\x20" + jpeg[place + 4 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda jpeg, png: b"", "not a JPEG or PNG"),
        (lambda jpeg, png: b"GIF89a" + jpeg, "not a JPEG or PNG"),
        (lambda jpeg, png: jpeg[:-40], "damaged or not whole"),
        (lambda jpeg, png: png[: len(png) // 2], "damaged or not whole"),
        (lambda jpeg, png: jpeg[:20], "no usable JPEG header"),
        (lambda jpeg, png: png[:20], "Received: 0x0"),
        (lambda jpeg, png: bomb(60000, 60000), "Received: 60000x60000"),
        (lambda jpeg, png: grown(jpeg), "Received: 20000x20000"),
        (lambda jpeg, png: jpeg + 100 * b"\xff\xda", "101 scans"),
    ],
)
def test_refuses_damaged_and_hostile_files(picture, tmp_path, change, reason):
    path = tmp_path / "a.jpg"
    content = change(saved(picture, "JPEG"), saved(picture, "PNG"))
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_refuses_what_is_no_file_of_bounded_size(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(2**26 + 1)
    for name in ("pipe.jpg", "large.jpg", "missing.jpg", "."):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


def test_refuses_another_size(picture, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(picture, "PNG"))
    with pytest.raises(ImageError, match="size, 24x17. Received: 24x16$"):
        read_image(path, (17, 24))
    with pytest.raises(ImageError, match="Received: 24x16, as if turned"):
        read_image(path, (24, 16))


@pytest.mark.parametrize("size", [(37, 61), (7, 11), (9, 50)])
def test_resizes_as_pillow(rng, size):
    pixels = rng.integers(256, size=(16, 24, 3), dtype="uint8")
    expected = Image.fromarray(pixels).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    found = resize_image(pixels, *size)
    assert found.dtype == np.uint8
    differences = found - np.asarray(expected, int)
    assert np.abs(differences).max() <= 1
    assert abs(differences.mean()) < 0.1
