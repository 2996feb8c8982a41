"""Makes `tests/golden/roi_align_torchvision.npz`; run by hand.

What torchvision's `roi_align` gives on the levels of a small pyramid, its
gradients, and the levels that its `LevelMapper` chooses.

python -m tests.detection.make_roi_align_golden FILE
"""

import sys

import numpy as np

from tests.detection import roi_align_case as case


def main(path):
    import torch
    from torchvision.ops.poolers import LevelMapper

    boxes, levels = case.regions()
    found = {}
    for size, ratio, aligned, has_gradient in case.CASES:
        maps = [
            torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
            for x in case.maps()
        ]
        result = _align(maps, boxes, levels, size, ratio, aligned)
        name = case.key(size, ratio, aligned)
        found[name] = result.detach().numpy().transpose(0, 1, 3, 4, 2)
        if has_gradient:
            dy = torch.tensor(case.cotangent(size).transpose(0, 1, 4, 2, 3))
            gradients = torch.autograd.grad(result, maps, dy)
            for level, gradient in enumerate(gradients):
                found[f"{name}_gradient_{level}"] = gradient.numpy().transpose(
                    0, 2, 3, 1
                )
    sides = torch.tensor(case.sides())
    squares = torch.stack([torch.zeros_like(sides)] * 2 + [sides, sides], dim=1)
    found["levels"] = LevelMapper(2, 5)([squares]).numpy().astype("int8") + 2
    np.savez_compressed(path, **found)


def _align(maps, boxes, levels, size, ratio, aligned):
    import torch
    from torchvision.ops import roi_align

    rows = []
    for image, (some, places) in enumerate(zip(boxes, levels, strict=True)):
        for box, level in zip(some, places, strict=True):
            scale = 1 / case.STRIDES[level]
            region = torch.tensor([[image, *box]], dtype=torch.float32)
            rows.append(
                roi_align(maps[level], region, size, scale, ratio, aligned)[0]
            )
    shape = (len(boxes), case.REGIONS, 1, size, size)
    return torch.stack(rows).reshape(shape)


if __name__ == "__main__":
    main(sys.argv[1])
