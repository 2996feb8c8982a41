import io
import os

import av
import numpy as np
import pytest
from PIL import Image

from keras_nonlocal.data import decode
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decoders import frame_folder


def frames_of(number, height=24, width=32):
    """Smooth pictures, each unlike the others."""
    rng = np.random.default_rng(0)
    corners = rng.integers(256, size=(number, 3, 3, 3), dtype="uint8")
    return np.stack(
        [
            np.asarray(Image.fromarray(c).resize((width, height)))
            for c in corners
        ]
    )


def save(folder, names, frames=None):
    frames = frames_of(len(names)) if frames is None else frames
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / name, "PNG")
    return frames


@pytest.mark.parametrize(
    "names",
    [
        [f"frame-{n}.png" for n in range(8, 12)],
        [f"{n:05}.png" for n in range(4)],
        [f"img_{n:02}.PNG" for n in range(98, 102)],
        [f"S003_12%d_{n}_x.png" for n in range(1, 5)],
        [f"{n} (2).png" for n in ()] or ["clip 7 00001.png"],
    ],
)
def test_frames_are_in_the_order_of_their_numbers(tmp_path, names):
    frames = save(tmp_path, names)
    (tmp_path / "labels.txt").write_text("not a picture")
    (tmp_path / ".frame-3.png").write_text("hidden")
    assert frame_folder.scan(tmp_path).num_frames == len(names)
    read = frame_folder.read_frames(tmp_path, range(len(names)))
    np.testing.assert_array_equal(read, frames)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png", "4.png"], "here 3.png. Received: 4.png"),
        (["img_1.png", "flow_x_1.png"], "here flow_x_2.png. .*: img_1.png"),
        (["1.png", "01.png"], "here 02.png. Received: 1.png"),
        (["1.png", "2.webp"], "here 2.png. Received: 2.webp"),
        (["1.png", "cover.png"], "cover.png must have a number"),
        (["1.txt", "2.txt"], "no pictures, .jpg, .jpeg, .png, .webp"),
        ([], "no pictures"),
    ],
)
def test_anything_but_one_sequence(tmp_path, names, message):
    save(tmp_path, names, frames_of(3)[: len(names)])
    with pytest.raises(VideoError, match=f"{tmp_path.name}: .*{message}"):
        frame_folder.scan(tmp_path)


def encoded(picture, suffix, **options):
    file = io.BytesIO()
    picture.save(file, suffix, **options)
    return file.getvalue()


PICTURE = Image.fromarray(frames_of(1, 61, 97)[0])
SIDEWAYS = Image.Exif()
SIDEWAYS[0x112] = 6  # The camera was turned.


@pytest.mark.parametrize(
    ("mode", "suffix", "options", "tolerance"),
    [
        ("RGB", "JPEG", {"quality": 95}, 5),
        ("RGB", "JPEG", {"quality": 95, "progressive": True}, 5),
        ("RGB", "JPEG", {"quality": 95, "subsampling": 0}, 1.5),
        ("L", "JPEG", {"quality": 95}, 1),
        ("CMYK", "JPEG", {"quality": 95, "subsampling": 0}, 1.5),
        ("RGB", "PNG", {}, 0),
        ("L", "PNG", {}, 0),
        ("P", "PNG", {}, 0),
        ("RGBA", "PNG", {}, 0),
        ("RGB", "WEBP", {"quality": 95}, 5),
        ("RGB", "WEBP", {"lossless": True}, 0),
    ],
)
def test_pictures_of_all_kinds(tmp_path, mode, suffix, options, tolerance):
    """As Pillow reads them, but for the smoothing of colours."""
    content = encoded(PICTURE.convert(mode), suffix, **options)
    (tmp_path / "1.png").write_bytes(content)  # Names are often wrong.
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    read = frame_folder.read_frames(tmp_path, [0])[0].astype(int)
    assert np.abs(read - np.asarray(expected)).mean() <= tolerance


def test_pictures_of_a_turned_camera_are_upright(tmp_path):
    content = encoded(PICTURE, "JPEG", quality=95, exif=SIDEWAYS)
    (tmp_path / "1.jpg").write_bytes(content)
    index = frame_folder.scan(tmp_path)
    assert (index.height, index.width, index.rotation) == (97, 61, 3)
    read = frame_folder.read_frames(tmp_path, [0])[0].astype(int)
    assert np.abs(read - np.rot90(np.asarray(PICTURE), 3)).mean() < 3


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
    ],
)
def test_a_picture_that_is_cut_off_is_an_error(tmp_path, suffix, options):
    content = encoded(PICTURE, suffix, **options)
    path = tmp_path / "1.jpg"
    for length in {0, 1, len(content) - 2, *range(10, len(content) - 2, 97)}:
        path.write_bytes(content[:length])
        with pytest.raises(VideoError, match=r"1\.jpg: "):
            frame_folder.scan(tmp_path)


def test_errors_name_the_picture(tmp_path):
    save(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    save(tmp_path, ["3.png"], frames_of(1, 24, 30))
    (tmp_path / "4.png").write_bytes(b"GIF89a")
    assert len(frame_folder.read_frames(tmp_path, [0, 1])) == 2
    message = r"3\.png: all frames must be as the first, 32x24 .*: 30x24"
    with pytest.raises(VideoError, match=message):
        frame_folder.read_frames(tmp_path, [0, 2])
    with pytest.raises(VideoError, match=r"4\.png: not a whole JPEG, PNG"):
        frame_folder.read_frames(tmp_path, [3])
    os.remove(tmp_path / "2.png")
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(VideoError, match=r"2\.png: not a regular file"):
        frame_folder.read_frames(tmp_path, [1])


def test_only_the_pictures_of_the_clip_are_read(tmp_path, monkeypatch):
    frames = save(tmp_path, ["1.png", "2.png", "3.png"])
    frame_folder.scan(tmp_path)
    original, read = frame_folder._decode, []

    def spy(picture):
        read.append(os.path.basename(picture))
        return original(picture)

    monkeypatch.setattr(frame_folder, "_decode", spy)
    clip = frame_folder.read_frames(tmp_path, [2, 1, 2, 2])
    assert read == ["2.png", "3.png"]
    np.testing.assert_array_equal(clip, frames[[2, 1, 2, 2]])


def test_a_changed_folder_is_scanned_again(tmp_path):
    save(tmp_path, ["1.png"])
    assert frame_folder.scan(tmp_path).num_frames == 1
    save(tmp_path, ["2.png"])
    os.utime(tmp_path, ns=(1, 1))  # Clocks of file systems are coarse.
    assert frame_folder.scan(tmp_path).num_frames == 2


def test_limits(tmp_path, monkeypatch):
    save(tmp_path, ["1.png", "2.png"], frames_of(2, 24, 64))
    size = os.path.getsize(tmp_path / "1.png")
    for module, name, least, message in [
        (decode, "MAX_PACKETS", 2, "more than 1 pictures"),
        (decode, "MAX_PIXELS", 24 * 64, r"1\.png"),
        (frame_folder, "_MAX_BYTES", size, rf"1\.png: {size} bytes, at most"),
    ]:
        with monkeypatch.context() as patch:
            frame_folder._scan.cache_clear()
            patch.setattr(module, name, least)
            assert frame_folder.read_frames(tmp_path, [0]).shape[1] == 24
            frame_folder._scan.cache_clear()
            patch.setattr(module, name, least - 1)
            with pytest.raises(VideoError, match=message):
                frame_folder.scan(tmp_path)


def test_damage_gives_frames_or_a_video_error(tmp_path):
    av.logging.set_level(av.logging.PANIC)
    rng = np.random.default_rng(0)
    outcomes = set()
    for suffix in ("JPEG", "PNG", "WEBP"):
        content = encoded(PICTURE, suffix)
        for _ in range(60):
            changed = bytearray(content)
            for position in rng.integers(len(content), size=4):
                changed[position] = rng.integers(256)
            (tmp_path / "1.jpg").write_bytes(changed)
            frame_folder._scan.cache_clear()
            try:
                frame_folder.read_frames(tmp_path, [0])
                outcomes.add("read")
            except VideoError as error:
                assert "1.jpg: " in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
