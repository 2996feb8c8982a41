import pytest

from keras_nonlocal.data.auditing.matroska import promised_size
from tests.data import files

HEADER = b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67"


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_whole_files(tmp_path, name):
    codec = {"a.mkv": "libx264", "a.webm": "libvpx"}[name]
    path = files.write(tmp_path / name, files.moving(0, 4), codec)
    size = path.stat().st_size
    assert promised_size(str(path)) == size
    files.cut(path, tmp_path / "cut", 0.5)
    assert promised_size(str(tmp_path / "cut")) == size


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + b"\x83", len(HEADER) + 1 + 3),
        (HEADER + b"\x41\x00rest", len(HEADER) + 2 + 256),
        # A stream, of unknown length.
        (HEADER + b"\xff", 0),
        (HEADER + b"\x01" + b"\xff" * 7, 0),
        # Damaged ones.
        (HEADER + b"\x00\x00", 0),
        (HEADER + b"\x41", 0),
        (HEADER, 0),
        (HEADER[:7], 0),
        (HEADER[:4], 0),
        (HEADER[:4] + b"\x01" + b"\xfe" * 7, 0),
        (b"RIFF\x04\x00\x00\x00", 0),
        (b"", 0),
    ],
)
def test_sizes(tmp_path, content, expected):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert promised_size(str(path)) == expected
