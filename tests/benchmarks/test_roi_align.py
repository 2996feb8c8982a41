import importlib.util

import numpy as np
import pytest

from benchmarks import report
from benchmarks import roi_align
from benchmarks import roi_align_sides
from benchmarks import worker

SMALL = {"height": 64, "width": 96, "channels": 2}


def test_work_is_that_of_both_heads_in_both_passes():
    cases = roi_align.cases(roi_align.PYRAMID)
    names = [case.name for case in cases]
    assert len(set(names)) == 6
    assert "512 regions of 7x7, 2x2 samples, forward+backward" in names
    for case in cases:
        assert [side.name for side in case.sides] == list(roi_align.SIDES)
        assert case.tolerance and set(case.peers) == {roi_align.PEER}


def test_regions_are_inside_and_on_every_level():
    boxes = roi_align_sides.boxes(512, 800, 1344)
    assert (boxes >= 0).all() and (boxes <= [1344, 800, 1344, 800]).all()
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    counts, _ = np.histogram(sides, [0, 112, 224, 448, 1e9])
    assert counts.min() > 32


def test_our_side_gives_the_regions_and_four_gradients():
    work = roi_align_sides.our_regions(
        3, 2, 2, True, jit_compile=False, **SMALL
    )
    y, *gradients = worker.sample(work())
    assert y.shape == (3 * 2 * 2 * 2,) and np.abs(y).max() > 0
    sizes = [64 // k * (96 // k) * 2 for k in roi_align_sides.STRIDES]
    assert [x.size for x in gradients] == [min(x, 3072) for x in sizes]
    assert any(x.any() for x in gradients)


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None,
    reason="torchvision is installed",
)
def test_page_says_that_the_peer_is_missing():
    with pytest.raises(ImportError, match="torchvision") as error:
        roi_align_sides.torchvision_regions(3, 2, 2, False, **SMALL)
    side = {
        "name": roi_align.PEER,
        "status": "not installed",
        "reason": str(error.value),
        "speed_over": {},
    }
    case = {
        "name": roi_align.name_of(512, 7, 2, True),
        "about": roi_align.PYRAMID,
        "peers": [roi_align.PEER],
        "rounds": 0,
        "memory_returned_after_each_call": False,
        "sides": [side],
    }
    result = {
        "section": "roi_align",
        "date": "2026-01-02",
        "quick": False,
        "complete": True,
        "machine": {
            "processor": "Some CPU",
            "cores": 2,
            "memory_bytes": 16e9,
            "packages": {"torchvision": None},
        },
        "peaks": {},
        "cases": [case],
    }
    text = report.render({"roi_align_some-cpu": result})
    assert "torchvision: not installed." in text
    assert "| torchvision | not installed |" in text
    assert "- not installed: No module named 'torchvision'" in text
    aim = "forward+backward over torchvision | at least 1 | not measured |"
    assert aim in text
