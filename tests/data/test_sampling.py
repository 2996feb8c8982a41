import numpy as np
import pytest
import tensorflow as tf

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
    clip = ClipSpec(32, 2)
    starts = sampling.uniform_starts(10, clip, 304)
    assert starts.tolist() == [int(np.floor(j * 304 / 10)) for j in range(10)]
    assert sampling.uniform_starts(3, clip, 1).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`num_clips`"):
        sampling.uniform_starts(0, clip, 10)


def test_uniform_starts_of_other_code_bases():
    clip = ClipSpec(32, 2, rule="mmaction2")
    starts = sampling.uniform_starts(10, clip, 300)
    # 236 / 9 = 26.2...
    expected = [0, 26, 52, 79, 105, 131, 157, 184, 210, 236]
    assert starts.tolist() == expected
    assert sampling.uniform_starts(1, clip, 300).tolist() == [118]
    assert sampling.uniform_starts(2, clip, 10).tolist() == [0, 0]
    clip = ClipSpec(32, 2, rule="slowfast")
    starts = sampling.uniform_starts(10, clip, 300, fps=30.0)
    np.testing.assert_allclose(starts, np.arange(10) * 23.6)
    # At 15 frames a second the clip is 32 frames long.
    starts = sampling.uniform_starts(10, clip, 300, fps=15.0)
    np.testing.assert_allclose(starts, np.arange(10) * 26.8)


def test_slowfast_counts_as_torch_linspace(rng):
    torch = pytest.importorskip("torch")
    for _ in range(300):
        number, rate = int(rng.integers(1, 65)), int(rng.integers(1, 9))
        total = int(rng.integers(1, 900))
        fps = float(rng.choice([0, 15, 23.976, 25, 29.97, 30, 60]))
        clip = ClipSpec(number, rate, rule="slowfast")
        start = sampling.random_start(rng.random(), clip, total, fps)
        end = start + number * rate * (fps or 30) / 30 - 1
        expected = torch.linspace(float(start), float(end), number)
        expected = expected.clamp(0, total - 1).long().tolist()
        places = sampling.frame_indices(start, clip, total, fps)
        assert places.tolist() == expected, (clip, total, fps, start)


@pytest.mark.parametrize("rule", sampling.RULES)
def test_rules_are_the_same_in_a_graph(rule, rng):
    clip = ClipSpec(8, 3, rule=rule)
    tnp = tf.experimental.numpy

    @tf.function(
        input_signature=[
            tf.TensorSpec([], dtype)
            for dtype in ("float64", "int64", "float64")
        ]
    )
    def places(unit, total, fps):
        starts = (
            sampling.random_start(unit, clip, total, fps, tnp),
            sampling.middle_start(clip, total, fps, tnp),
        )
        return [
            sampling.frame_indices(start, clip, total, fps, tnp)
            for start in starts
        ]

    for _ in range(50):
        unit, total = float(rng.random()), int(rng.integers(1, 100))
        fps = float(rng.choice([0, 25, 29.97]))
        starts = (
            sampling.random_start(unit, clip, total, fps),
            sampling.middle_start(clip, total, fps),
        )
        for start, found in zip(starts, places(unit, total, fps), strict=True):
            expected = sampling.frame_indices(start, clip, total, fps)
            assert found.numpy().tolist() == expected.tolist()
            assert found.dtype == tf.int64


def test_all_rules_stay_in_the_video(rng):
    for rule in sampling.RULES:
        for short in ("loop", "clamp"):
            clip = ClipSpec(8, 4, rule=rule, short=short)
            for total in (1, 2, 5, 31, 32, 33, 200):
                starts = sampling.uniform_starts(4, clip, total, 25.0)
                for start in starts:
                    places = sampling.frame_indices(start, clip, total, 25.0)
                    assert places.shape == (8,)
                    assert 0 <= places.min() <= places.max() < total


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "other"}, "`rule` must be one of .*rule='other'"),
        ({"short": "repeat"}, "`short` must be one of"),
        ({"rule": ["paper"]}, "`rule` must be one of"),
        ({"fps": 0}, "`fps` must be positive"),
        ({"fps": "30"}, "`fps` must be positive"),
        ({"fps": float("inf")}, "`fps` must be positive"),
    ],
)
def test_clip_spec_refuses_other_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipSpec(8, **arguments)


def test_short_videos():
    indices = {}
    for short in ("loop", "clamp"):
        clip = ClipSpec(4, 2, short=short)
        indices[short] = sampling.frame_indices(0, clip, total=5).tolist()
    assert indices == {"loop": [0, 2, 4, 1], "clamp": [0, 2, 4, 4]}
    clip = ClipSpec(4, 2, short="error")
    assert sampling.frame_indices(0, clip, total=7).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="needs 7 frames or more.*of 6"):
        sampling.frame_indices(0, clip, total=6)
    # A clip of SlowFast's is as long as at 30 frames a second.
    clip = ClipSpec(8, 8, rule="slowfast", short="error")
    assert sampling.needed_frames(clip, 60.0) == 128
    assert sampling.needed_frames(clip, 15.0) == 32
    with pytest.raises(ValueError, match="needs 128 frames"):
        sampling.frame_indices(0.0, clip, 70, 60.0)
    assert sampling.frame_indices(0.0, clip, 40, 15.0).max() == 31
    clip = ClipSpec(4, 2, short="error")
    # Only short videos: the paper's last test clips begin near the end.
    assert sampling.frame_indices(8, clip, total=10).tolist() == [8, 0, 2, 4]


def test_timeline_is_every_frame():
    assert sampling.timeline(3).tolist() == [0, 1, 2]


def test_timeline_of_a_segment():
    times = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    assert sampling.timeline(5, 2.0, times, segment=(0.5, 2.0)).tolist() == [
        1,
        2,
    ]
    assert sampling.timeline(5, 2.0, times, segment=(1.0, np.nan)).tolist() == [
        2,
        3,
        4,
    ]
    # Stored in milliseconds, 1/3 s is 0.333.
    times = np.array([0.0, 0.333, 0.667])
    assert sampling.timeline(
        3, 3.0, times, segment=(1 / 3, 2 / 3)
    ).tolist() == [1]
    # The frame that is on the screen when it starts.
    times = np.array([0.0, 1.0, 3.0])
    for segment in ((1.2, 1.8), (1.2, 3.0)):
        assert sampling.timeline(3, 1.0, times, segment=segment).tolist() == [1]
    # Two milliseconds at 2,000 frames a second.
    line = sampling.timeline(20, 2000.0, segment=(0.004, 0.006))
    assert line.tolist() == [8, 9, 10, 11]
    # Without times frames are evenly spaced.
    assert sampling.timeline(6, 2.0, segment=(1.0, 2.0)).tolist() == [2, 3]


def test_timeline_of_variable_frame_rate():
    """One second at 2 frames, one at 10: each second is half of the clip."""
    times = np.r_[0.0, 0.5, 1 + np.arange(10) / 10]
    line = sampling.timeline(12, 6.0, times, target_fps=10.0)
    assert line.tolist() == [0] * 5 + [1] * 5 + list(range(2, 12)) + [11]
    line = sampling.timeline(12, 6.0, times, target_fps=2.0)
    assert line.tolist() == [0, 1, 2, 7]


def test_timeline_at_another_rate():
    line = sampling.timeline(60, 60.0, target_fps=30.0)
    assert line.tolist() == list(range(0, 60, 2))
    line = sampling.timeline(25, 25.0, target_fps=30.0)
    assert len(line) == 30
    assert np.diff(line).min() == 0
    assert np.diff(line).max() == 1


def test_timeline_of_one_frame():
    for times in (None, np.array([0.0])):
        line = sampling.timeline(1, times=times, target_fps=30.0)
        assert line.tolist() == [0]


def test_timeline_of_years():
    """As the header of a damaged file may have it."""
    with pytest.raises(ValueError, match="at most 8640000 frames.*3e.09 sec"):
        sampling.timeline(3, 1e-9, target_fps=30.0)


def test_timeline_refuses():
    with pytest.raises(ValueError, match="from 5 to 6 s must have a frame"):
        sampling.timeline(4, 2.0, segment=(5.0, 6.0))
    with pytest.raises(ValueError, match="frame rate must be known"):
        sampling.timeline(4, segment=(0.0, 1.0))
    with pytest.raises(ValueError, match="frame rate must be known"):
        sampling.timeline(4, target_fps=30.0)


def test_frame_indices_loop():
    indices = sampling.frame_indices(4, ClipSpec(6, 2), total=5)
    assert indices.tolist() == [4, 1, 3, 0, 2, 4]
    one = sampling.frame_indices(0, ClipSpec(3, 4), total=1)
    assert one.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`total`"):
        sampling.frame_indices(0, ClipSpec(3), total=0)
