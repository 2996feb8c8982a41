import functools

import keras
import numpy as np
import pytest

from keras_nonlocal.detection import anchors as module
from tests.checks import numpy
from tests.detection import runs


def test_anchors_of_detectron2():
    anchors = numpy(module.make_anchors(1, 2, 4, (32, 64), ratios=(0.25, 1, 4)))
    first = np.array(
        [
            [-32, -8, 32, 8],
            [-16, -16, 16, 16],
            [-8, -32, 8, 32],
            [-64, -16, 64, 16],
            [-32, -32, 32, 32],
            [-16, -64, 16, 64],
        ]
    )
    np.testing.assert_array_equal(
        anchors, np.concatenate([first, first + [4, 0, 4, 0]])
    )


def test_half_as_high_as_wide():
    anchor = module.base_anchors(4, 32)[0]
    np.testing.assert_allclose(
        anchor, [-22.6274, -11.3137, 22.6274, 11.3137], atol=1e-4
    )
    assert anchor.dtype == "float32"


def test_torchvision_rounds():
    # Of its AnchorGenerator, read off torchvision 0.28.
    of_one = module.base_anchors(4, 32, style="rounded")
    np.testing.assert_array_equal(
        of_one, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    )
    of_two = module.base_anchors(4, (32, 64), (0.5, 1.0), style="rounded")
    np.testing.assert_array_equal(
        of_two,
        [
            [-23, -11, 23, 11],
            [-45, -23, 45, 23],
            [-16, -16, 16, 16],
            [-32, -32, 32, 32],
        ],
    )


def test_detectron_enlarges_the_smallest():
    # The table in its generate_anchors.py, there counted from 1.
    anchors = module.base_anchors(16, (128, 256, 512), style="detectron")
    np.testing.assert_array_equal(
        anchors + 1,
        [
            [-83, -39, 100, 56],
            [-175, -87, 192, 104],
            [-359, -183, 376, 200],
            [-55, -55, 72, 72],
            [-119, -119, 136, 136],
            [-247, -247, 264, 264],
            [-35, -79, 52, 96],
            [-79, -167, 96, 184],
            [-167, -343, 184, 360],
        ],
    )
    # At stride 4, 3 pixels are an eighth of 24.
    np.testing.assert_array_equal(
        module.base_anchors(4, 32, style="detectron")[0], [-22, -10, 25, 13]
    )


def test_a_pyramid_of_256_pixels():
    levels = runs.result(
        lambda: [
            module.make_anchors(
                256 // stride, 256 // stride, stride, 8 * stride
            )
            for stride in (4, 8, 16, 32, 64)
        ]
    )
    counts = [len(anchors) for anchors in levels]
    assert counts == [12288, 3072, 768, 192, 48]
    assert sum(counts) == 16368


def test_goes_by_rows_then_columns_then_anchors():
    anchors = numpy(module.make_anchors(3, 5, 8, 16))
    base = module.base_anchors(8, 16)
    by_place = anchors.reshape(3, 5, 3, 4)
    np.testing.assert_allclose(
        by_place[2, 3, 1], base[1] + [24, 16, 24, 16], rtol=1e-6
    )


def test_two_strides_of_torchvision():
    anchors = numpy(module.make_anchors(13, 21, (61, 64), 512, style="rounded"))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_array_equal(centres[-1], [20 * 64, 12 * 61])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other sizes are known"
)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("style", module.STYLES)
def test_sizes_known_in_the_run_only(style, jit):
    import tensorflow as tf

    make = functools.partial(module.make_anchors, size=32, style=style)

    @functools.partial(
        tf.function,
        input_signature=[tf.TensorSpec((None, None, None, 1))],
        jit_compile=jit,
    )
    def of_map(x):
        height, width = keras.ops.shape(x)[1:3]
        return make(height, width, stride=8)

    np.testing.assert_array_equal(
        of_map(np.zeros((1, 2, 3, 1), "float32")), numpy(make(2, 3, stride=8))
    )
    if style == "rounded" and not jit:
        steps = tf.constant(8), tf.constant(9)
        np.testing.assert_array_equal(
            make(2, 3, stride=steps), make(2, 3, stride=(8, 9))
        )


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="must be one of.*Received: caffe"):
        module.base_anchors(4, 32, style="caffe")
    with pytest.raises(ValueError, match=r"`size` must be pos.*\[-32.0\]"):
        module.base_anchors(4, -32)
    with pytest.raises(ValueError, match=r"`ratios` must be pos.*\[1.0, 0.0\]"):
        module.base_anchors(4, 32, ratios=(1, 0))
    with pytest.raises(ValueError, match=r"one integer.*Received: \(4, 5\)"):
        module.make_anchors(2, 2, (4, 5), 32, style="detectron")
