"""Decoding, and the whole input pipeline, on made-up videos."""

import tempfile

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

_SETTINGS = harness.Settings(seconds=15.0, rounds=(5, 15), minutes=1.5)
_VIDEOS, _FRAMES, _SIZE = 32, 120, 320
# (frames of a clip, step between them)
_CLIPS = ((8, 8), (32, 2))


def measure(context):
    """One clip after the other, and batches as training takes them."""
    number = 4 if context.quick else _VIDEOS
    with tempfile.TemporaryDirectory() as folder:
        harness.prepare(
            "benchmarks.pipeline_sides:write_videos",
            {
                "folder": folder,
                "number": number,
                "frames": _FRAMES,
                "size": _SIZE,
            },
        )
        cases = [
            _case(work, clip, folder, number)
            for work in ("decode", "pipeline")
            for clip in _CLIPS
        ]
        yield from context.run(cases, _SETTINGS)


def _case(work, clip, folder, number):
    arguments = {
        "folder": folder,
        "frames": clip[0],
        "step": clip[1],
        "threads": 1 if work == "decode" else harness.num_cores(),
    }
    names = {
        "PyAV loop": "pyav",
        "OpenCV": "opencv",
        "decord": "decord",
        "ours": "ours" if work == "decode" else "our_pipeline",
    }
    sides = [
        Side(name, f"benchmarks.pipeline_sides:{function}", arguments)
        for name, function in names.items()
    ]
    return Case(
        f"{work} {clip[0]}x{clip[1]}",
        {
            "work": work,
            "clips": number,
            "clip_frames": clip[0],
            "clip_step": clip[1],
            "video_frames": _FRAMES,
            "video_size": _SIZE,
            "threads": arguments["threads"],
        },
        tuple(sides),
        tuple(name for name in names if name != "ours"),
        memory=None,
        # Scaling differs between libraries, by a few grey levels.
        tolerance=None,
    )
