"""Makes `tests/golden/detector_torchvision.json.gz`; run by hand.

What a small Mask R-CNN of torchvision finds and loses on two images, with
weights of `peer_weights`. Nothing is drawn at random: all anchors and all
regions are sampled. Masks are those of Detectron: 0 or 1, where torchvision
would have shades; RoIAlign is torchvision's.

python -m tests.detection.make_golden tests/golden/detector_torchvision.json.gz
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import torch
import torchvision
from torchvision.models import resnet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection import anchor_utils
from torchvision.models.detection import backbone_utils
from torchvision.models.detection import faster_rcnn
from torchvision.models.detection import mask_rcnn
from torchvision.models.detection import roi_heads
from torchvision.models.detection import rpn
from torchvision.ops import feature_pyramid_network
from torchvision.ops import misc

from tests.detection.golden_case import BOXES
from tests.detection.golden_case import CLASSES
from tests.detection.golden_case import NETWORK
from tests.detection.golden_case import images
from tests.detection.golden_case import masks
from tests.detection.peer_weights import make_tensor

GRADIENTS = (
    "backbone.body.layer2.0.conv1.weight",
    "backbone.body.layer3.1.conv1.weight",
    "backbone.fpn.inner_blocks.2.0.bias",
    "backbone.fpn.layer_blocks.0.0.weight",
    "rpn.head.conv.0.0.weight",
    "rpn.head.bbox_pred.weight",
    "roi_heads.box_head.fc6.bias",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.weight",
)


class Narrow(resnet.ResNet):
    """ResNet-26 of a quarter or an eighth of the usual channels."""

    def _make_layer(self, block, planes, *args, **kwargs):
        if planes == 64:
            self.inplanes = NETWORK["width"]
        planes = planes * NETWORK["width"] // 64
        return super()._make_layer(block, planes, *args, **kwargs)


def make_network():
    width, channels = NETWORK["width"], NETWORK["channels"]
    body = Narrow(
        resnet.Bottleneck, [2, 2, 2, 2], norm_layer=misc.FrozenBatchNorm2d
    )
    body.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
    body.bn1 = misc.FrozenBatchNorm2d(width)
    for layer in (body.conv1, body.layer1):
        layer.requires_grad_(False)
    backbone = backbone_utils.BackboneWithFPN(
        body,
        {f"layer{i + 1}": str(i) for i in range(4)},
        [4 * width * 2**i for i in range(4)],
        channels,
        feature_pyramid_network.LastLevelMaxPool(),
    )
    classes = NETWORK["classes"] + 1
    everything = 10**6
    network = MaskRCNN(
        backbone,
        min_size=128,
        max_size=128,
        rpn_anchor_generator=anchor_utils.AnchorGenerator(
            tuple((size,) for size in NETWORK["anchor_sizes"]),
            ((0.5, 1.0, 2.0),) * 5,
        ),
        rpn_head=rpn.RPNHead(channels, 3),
        rpn_pre_nms_top_n_train=NETWORK["pre_nms"],
        rpn_pre_nms_top_n_test=NETWORK["pre_nms"],
        rpn_post_nms_top_n_train=NETWORK["post_nms"],
        rpn_post_nms_top_n_test=NETWORK["post_nms"],
        rpn_batch_size_per_image=everything,
        box_batch_size_per_image=everything,
        box_head=faster_rcnn.TwoMLPHead(channels * 49, NETWORK["units"]),
        box_predictor=faster_rcnn.FastRCNNPredictor(NETWORK["units"], classes),
        box_detections_per_img=NETWORK["detections"],
        mask_head=mask_rcnn.MaskRCNNHeads(
            channels, [NETWORK["mask_channels"]] * 4, 1
        ),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(
            NETWORK["mask_channels"], NETWORK["mask_channels"], classes
        ),
    )
    state = network.state_dict()
    network.load_state_dict(
        {
            name: torch.tensor(make_tensor(name, tuple(value.shape)))
            for name, value in state.items()
        }
    )
    return network, [(name, list(x.shape)) for name, x in state.items()]


def binary_targets(truth, boxes, matched, size):
    """Those of Detectron and detectron2, in place of torchvision's."""
    rois = torch.cat([matched[:, None].to(boxes), boxes], dim=1)
    pooled = torchvision.ops.roi_align(
        truth[:, None].to(rois), rois, (size, size), 1.0, 2, aligned=True
    )
    return (pooled[:, 0] >= 0.499).to(rois)


def targets():
    for number, (boxes, classes) in enumerate(zip(BOXES, CLASSES, strict=True)):
        height, width = images()[number].shape[:2]
        full = np.zeros((len(boxes), height, width), "uint8")
        for canvas, box, mask in zip(full, boxes, masks(number), strict=True):
            x1, y1, x2, y2 = box
            canvas[y1:y2, x1:x2] = mask
        yield {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            # The background is first here.
            "labels": torch.tensor(classes, dtype=torch.int64) + 1,
            "masks": torch.tensor(full),
        }


def rounded(x):
    return [float(f"{value:.7g}") for value in x.detach().numpy().ravel()]


def main(path):
    torch.manual_seed(0)
    network, tensors = make_network()
    roi_heads.project_masks_on_boxes = binary_targets
    batch = [torch.tensor(image).permute(2, 0, 1) / 255.0 for image in images()]
    counts = []
    sampler = network.rpn.fg_bg_sampler

    def count(labels):
        counts.append(sum(int((x >= 0).sum()) for x in labels))
        return sampler(labels)

    network.rpn.fg_bg_sampler = count
    losses = network.train()(batch, list(targets()))
    sum(losses.values()).backward()
    parameters = dict(network.named_parameters())
    # Leaves masks in their boxes.
    network.transform.postprocess = lambda found, *_: found
    with torch.no_grad():
        found = network.eval()(batch)
    golden = {
        "made_with": f"torchvision {torchvision.__version__}",
        "tensors": tensors,
        "losses": {name: loss.item() for name, loss in losses.items()},
        "sampled_anchors": counts[0],
        "gradients": {
            name: rounded(parameters[name].grad) for name in GRADIENTS
        },
        "detections": [
            {
                "boxes": rounded(image["boxes"]),
                "scores": rounded(image["scores"]),
                "classes": (image["labels"] - 1).tolist(),
                "masks": rounded(image["masks"][:, :, ::9, ::9]),
            }
            for image in found
        ],
    }
    data = json.dumps(golden).encode()
    # Without the time, so that the same numbers are the same file.
    pathlib.Path(path).write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
