import keras
import numpy as np
import pytest

from keras_nonlocal.layers import convolution
from keras_nonlocal.layers.convolution import Conv3D
from tests import checks

SHAPE = (2, 5, 7, 6, 4)
# The second may be anything a convolution does, also without a 2-D view.
KERNELS = [
    ((1, 1, 1), {"strides": (1, 2, 2)}),
    ((1, 3, 3), {"padding": "same", "use_bias": False}),
    ((3, 1, 1), {"strides": (2, 1, 1), "activation": "relu"}),
    ((3, 3, 3), {"padding": "same"}),
    ((1, 3, 3), {"dilation_rate": (1, 2, 2)}),
]


def clip(rng):
    return rng.normal(size=SHAPE).astype("float32")


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize(("kernel", "arguments"), KERNELS)
def test_is_the_convolution_of_keras(kernel, arguments, lowering, rng):
    x = clip(rng)
    theirs = keras.layers.Conv3D(3, kernel, **arguments)
    ours = Conv3D(3, kernel, **arguments, lowering=lowering)
    theirs.build(SHAPE)
    ours.build(SHAPE)
    checks.randomize(theirs)
    ours.set_weights(theirs.get_weights())
    expected = checks.numpy(theirs(x))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(checks.numpy(ours(x)), expected, atol=1e-5)
    assert [v.path.split("/")[-1] for v in ours.weights] == [
        v.path.split("/")[-1] for v in theirs.weights
    ]


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 1), (1, 1, 1)])
def test_basics(kernel, rng, tmp_path):
    checks.run_layer_test(
        Conv3D,
        init_kwargs={
            "filters": 3,
            "kernel_size": kernel,
            "padding": "same",
            "lowering": "conv2d",
        },
        inputs=clip(rng),
        expected_output_shape=(*SHAPE[:-1], 3),
        expected_num_weights=2,
        expected_num_trainable_weights=2,
        tmp_path=tmp_path,
    )


def test_the_2d_form_is_taken(rng, monkeypatch):
    """Both forms give the same numbers: that alone would show nothing."""
    taken = []
    convolve = convolution.convolution.convolve

    def spy(*args):
        taken.append(args[1].shape[:3])
        return convolve(*args)

    monkeypatch.setattr(convolution.convolution, "convolve", spy)
    x = clip(rng)
    for lowering in ("conv3d", "conv2d"):
        Conv3D(3, (1, 3, 3), lowering=lowering)(x)
    assert [tuple(size) for size in taken] == [(1, 3, 3)]
    Conv3D(3, (2, 3, 3), lowering="conv2d")(x)
    Conv3D(3, (1, 3, 3), dilation_rate=2, lowering="conv2d")(x)
    assert len(taken) == 1


def test_files_of_the_convolution_of_keras(rng, tmp_path):
    """Keras numbers weights in a file by the names of classes."""

    def network(cls):
        entry = keras.Input((None, None, None, 4))
        x = cls(3, (1, 3, 3), name="a")(entry)
        return keras.Model(entry, cls(3, (3, 1, 1), name="b")(x))

    theirs, ours = network(keras.layers.Conv3D), network(Conv3D)
    checks.randomize(theirs)
    path = str(tmp_path / "theirs.weights.h5")
    theirs.save_weights(path)
    ours.load_weights(path)
    x = clip(rng)
    np.testing.assert_allclose(
        checks.numpy(ours(x)), checks.numpy(theirs(x)), atol=1e-5
    )


def test_refuses_an_unknown_lowering():
    with pytest.raises(ValueError, match="`lowering` must be one of.*'fast'"):
        Conv3D(3, 1, lowering="fast")


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch has no XLA"
)
def test_training_compiled_and_rematerialised(rng):
    """Gradients of both forms agree, under XLA and under RematScope."""
    x, y = clip(rng), rng.normal(size=(2, 3, 5, 4, 3))
    results = []
    for lowering in ("conv3d", "conv2d"):
        entry = keras.Input((None, None, None, 4))
        with keras.RematScope(mode="full"):
            hidden = Conv3D(3, (1, 3, 3), lowering=lowering)(entry)
            outputs = Conv3D(3, (3, 1, 1), lowering=lowering)(hidden)
        model = keras.Model(entry, outputs)
        checks.randomize(model)
        before = model.get_weights()
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        model.fit(x, y, batch_size=2, verbose=0)
        results.append(model.get_weights())
        for old, new in zip(before, results[-1], strict=True):
            assert np.max(np.abs(new - old)) > 1e-3
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 1)])
def test_keras_own_image_format_does_not_matter(kernel, rng):
    clip = rng.normal(size=(1, 4, 4, 4, 4)).astype("float32")
    layer = Conv3D(
        6,
        kernel,
        padding="same",
        lowering="conv2d",
        data_format="channels_last",
    )
    expected = checks.numpy(layer(clip))
    keras.config.set_image_data_format("channels_first")
    try:
        actual = checks.numpy(layer(clip))
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(actual, expected)
