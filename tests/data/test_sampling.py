import numpy as np
import pytest

from keras_nonlocal.data import sampling
from keras_nonlocal.data.sampling import ClipSpec


def test_clip_spec_round_trip():
    clip = ClipSpec.parse("32x2")
    assert clip == ClipSpec(num_frames=32, sampling_rate=2)
    assert str(clip) == "32x2"
    assert ClipSpec(8).sampling_rate == 1


@pytest.mark.parametrize(("text", "span"), [("1x5", 1), ("8x8", 57)])
def test_span_is_from_first_to_last_frame(text, span):
    clip = ClipSpec.parse(text)
    indices = sampling.frame_indices(0, clip, total=1000)
    assert clip.span == span == indices[-1] - indices[0] + 1


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, None])
@pytest.mark.parametrize("name", ["num_frames", "sampling_rate"])
def test_clip_spec_refuses(name, value):
    arguments = {"num_frames": 8, "sampling_rate": 2, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be a positive"):
        ClipSpec(**arguments)


@pytest.mark.parametrize("text", ["32", "32x", "x2", "32x2x1", "-1x2", "3 x2"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="'32x2'"):
        ClipSpec.parse(text)


def test_parse_refuses_zero():
    with pytest.raises(ValueError, match="`sampling_rate`"):
        ClipSpec.parse("32x0")


def test_random_start_covers_the_papers_range_evenly():
    units = (np.arange(1000) + 0.5) / 1000
    clip = ClipSpec(4, 2)
    starts = [sampling.random_start(unit, clip, 12) for unit in units]
    values, counts = np.unique(starts, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert counts.tolist() == [200] * 5


def test_random_start_at_the_ends():
    clip = ClipSpec(4, 2)
    largest = float(np.nextafter(np.float32(1), np.float32(0)))
    assert sampling.random_start(0.0, clip, 12) == 0
    assert sampling.random_start(largest, clip, 1_000_000) == 999_992
    assert sampling.random_start(largest, clip, 7) == 0


def test_middle_start():
    assert sampling.middle_start(ClipSpec(4, 2), 13) == 2
    assert sampling.middle_start(ClipSpec(4, 2), 5) == 0


def test_uniform_starts_follow_the_formula():
    starts = sampling.uniform_starts(10, 304)
    assert starts.tolist() == [int(np.floor(j * 304 / 10)) for j in range(10)]
    assert sampling.uniform_starts(3, 1).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`num_clips`"):
        sampling.uniform_starts(0, 10)


def test_frame_indices_loop():
    indices = sampling.frame_indices(4, ClipSpec(6, 2), total=5)
    assert indices.tolist() == [4, 1, 3, 0, 2, 4]
    one = sampling.frame_indices(0, ClipSpec(3, 4), total=1)
    assert one.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`total`"):
        sampling.frame_indices(0, ClipSpec(3), total=0)
