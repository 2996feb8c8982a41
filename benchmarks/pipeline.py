"""Decoding, and the whole input pipeline, on made-up videos."""

import tempfile

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

_SETTINGS = harness.Settings(seconds=15.0, rounds=(5, 15), minutes=2.5)
_SIDES = "benchmarks.pipeline_sides"
_VIDEOS, _FRAMES, _ROUNDS = 24, 300, 3
# Frames between two keyframes: what encoders do if nobody asks for another
# number, and what `keras_nonlocal.cli.prepare` writes.
_GOPS = (250, 30)
# (frames of a clip, step between them)
_CLIP = (32, 2)
_PEERS = {
    "PyAV loop": "pyav",
    "OpenCV": "opencv",
    "decord": "decord",
    "torchcodec": "torchcodec",
}


def measure(context):
    """One clip after the other, and batches as training takes them."""
    number = 4 if context.quick else _VIDEOS
    with tempfile.TemporaryDirectory() as folder:
        folders = {gop: f"{folder}/{gop}" for gop in _GOPS}
        for gop, path in folders.items():
            videos = {"folder": path, "number": number, "frames": _FRAMES}
            harness.prepare(f"{_SIDES}:write_videos", videos | {"gop": gop})
        harness.prepare(f"{_SIDES}:write_shards", {"folder": folders[30]})
        cases = [
            _decoding(gop, path, number) for gop, path in folders.items()
        ] + [_pipeline(gop, path, number) for gop, path in folders.items()]
        yield from context.run(cases, _SETTINGS)


def _decoding(gop, folder, number):
    """One random clip after the other, on one thread."""
    names = _PEERS | {"ours": "ours"}
    return _case("decode", gop, folder, number, 1, names, tuple(_PEERS))


def _pipeline(gop, folder, number):
    """As many clips at a time as there are cores, the middle ones.

    The peers are clips in threads without any pipeline, ours among them.
    """
    names = _PEERS | {"ours, bare": "ours", "ours": "our_pipeline"}
    if gop == 30:
        names["our shards"] = "our_shards"
    peers = (*_PEERS, "ours, bare")
    threads = harness.num_cores()
    return _case("pipeline", gop, folder, number, threads, names, peers)


def _case(work, gop, folder, number, threads, names, peers):
    frames, step = _CLIP
    # Several rounds, so that starting a pipeline does not count for much.
    rounds = 1 if work == "decode" else _ROUNDS
    arguments = {
        "folder": folder,
        "frames": frames,
        "step": step,
        "threads": threads,
        "middle": work == "pipeline",
        "rounds": rounds,
    }
    about = {
        "work": work,
        "clips": number * rounds,
        "clip_frames": frames,
        "clip_step": step,
        "video_frames": _FRAMES,
        "video_size": "340x256",
        "gop": gop,
        "threads": threads,
    }
    sides = tuple(
        Side(name, f"{_SIDES}:{function}", arguments)
        for name, function in names.items()
    )
    # Scaling differs between libraries, by a few grey levels: no tolerance.
    return Case(
        f"{work} {frames}x{step}, keyframe every {gop}",
        about,
        sides,
        peers,
        memory=None,
        tolerance=None,
    )
