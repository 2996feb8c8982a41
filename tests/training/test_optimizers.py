import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal.training.optimizers import SGD
from keras_nonlocal.training.optimizers import make_optimizer
from keras_nonlocal.training.schedules import StepDecay

STEPS, DROP = 40, 20
# Sums of powers of two: Keras makes float32 of them, all else is float64 here.
FIRST, SECOND, MOMENTUM, L2 = 2**-3, 2**-6, 0.875, 2**-7
RATE = StepDecay(FIRST, drops=[DROP], factor=SECOND / FIRST)
# A kernel, a bias and a scale of a batch norm.
NAMES = ("kernel", "bias", "gamma")
DECAYED = {"kernel", "bias"}


@pytest.fixture
def gradients(rng):
    """Those of all steps, then the weights to begin with."""
    return {name: rng.normal(size=(STEPS + 1, 4, 3)) for name in NAMES}


def trained(optimizer, gradients, steps=STEPS, variables=None, first=0):
    """Variables after some steps of `optimizer`, in float64."""
    if variables is None:
        variables = [
            keras.Variable(values[-1], dtype="float64", name=name)
            for name, values in gradients.items()
        ]
    optimizer.build(variables)
    step = tf.function(lambda values: optimizer.apply(values, variables))
    for number in range(first, steps):
        step([tf.constant(gradients[name][number]) for name in NAMES])
    return variables


def by_caffe2(gradients, nesterov, l2, rescale=True):
    """The update of the paper's code: velocities that know the rate."""
    results = []
    for name in NAMES:
        weight, velocity, last = gradients[name][-1].copy(), 0.0, None
        for number in range(STEPS):
            rate = FIRST if number < DROP else SECOND
            if rescale and last is not None:
                velocity = velocity * (rate / last)
            gradient = gradients[name][number]
            gradient = gradient + l2 * (name in DECAYED) * weight
            before, velocity = velocity, MOMENTUM * velocity + rate * gradient
            step = velocity
            if nesterov:
                step = velocity + MOMENTUM * (velocity - before)
            weight, last = weight - step, rate
        results.append(weight)
    return results


def test_biases_may_be_treated_as_in_detectron(gradients):
    """At twice the rate, which is in the velocities, and without decay."""
    optimizer = SGD(
        RATE,
        MOMENTUM,
        l2=L2,
        rescale_momentum=True,
        bias_rate=2.0,
        decay_biases=False,
    )
    kernel, bias, gamma = trained(optimizer, gradients)
    expected = by_caffe2(gradients, False, L2)
    assert max(differences([kernel, gamma], expected[::2])) < 1e-12
    doubled = {**gradients, "bias": 2 * gradients["bias"]}
    # The weight to begin with is the last row; it is not doubled.
    doubled["bias"][-1] = gradients["bias"][-1]
    (difference,) = differences([bias], [by_caffe2(doubled, False, 0.0)[1]])
    assert difference < 1e-12


def by_torch(gradients, nesterov, l2, clip=None):
    torch = pytest.importorskip("torch")
    weights = [
        torch.nn.Parameter(torch.tensor(gradients[name][-1])) for name in NAMES
    ]
    groups = [
        {"params": [weight], "weight_decay": l2 if name in DECAYED else 0.0}
        for name, weight in zip(NAMES, weights, strict=True)
    ]
    optimizer = torch.optim.SGD(
        groups, FIRST, momentum=MOMENTUM, nesterov=nesterov
    )
    for number in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = FIRST if number < DROP else SECOND
        for name, weight in zip(NAMES, weights, strict=True):
            weight.grad = torch.tensor(gradients[name][number])
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
    return [weight.detach().numpy() for weight in weights]


def differences(found, expected):
    return [
        np.max(np.abs(ours.numpy() - theirs))
        for ours, theirs in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_the_update_of_the_paper(nesterov, gradients):
    optimizer = SGD(
        RATE, MOMENTUM, nesterov=nesterov, l2=L2, rescale_momentum=True
    )
    found = trained(optimizer, gradients)
    expected = by_caffe2(gradients, nesterov, L2)
    assert max(differences(found, expected)) < 1e-12
    # Each part of it matters.
    kept = by_caffe2(gradients, nesterov, L2, rescale=False)
    assert min(differences(found, kept)) > 1e-2
    bare = by_caffe2(gradients, nesterov, 0.0)
    kernel, bias, gamma = differences(found, bare)
    assert min(kernel, bias) > 1e-2 and gamma < 1e-12


@pytest.mark.parametrize("clip", [None, 0.2])
def test_is_the_update_of_torch(clip, gradients):
    """Which clips before it decays."""
    optimizer = SGD(
        RATE,
        MOMENTUM,
        nesterov=True,
        l2=L2,
        rescale_momentum=True,
        global_clipnorm=clip,
    )
    found = trained(optimizer, gradients)
    expected = by_torch(gradients, True, L2, clip)
    # To clip, torch adds a millionth to the norm.
    assert max(differences(found, expected)) < (1e-6 if clip else 1e-12)


def test_without_rescaling_velocities_stay(gradients):
    found = trained(SGD(RATE, momentum=MOMENTUM, l2=L2), gradients)
    kept = by_caffe2(gradients, False, L2, rescale=False)
    assert max(differences(found, kept)) < 1e-12


def test_only_drops_rescale(gradients):
    """A warm-up and a cosine fall or rise by less than a tenth a step."""
    rate = keras.optimizers.schedules.CosineDecay(
        0.001, 1000, warmup_target=0.1, warmup_steps=20
    )
    rescaled = SGD(rate, momentum=MOMENTUM, rescale_momentum=True)
    plain = keras.optimizers.SGD(rate, momentum=MOMENTUM)
    for ours, theirs in zip(
        trained(rescaled, gradients), trained(plain, gradients), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_goes_on_from_its_state(gradients):
    """Broken off just before the drop: the last rate is part of the state."""
    options = {"momentum": MOMENTUM, "l2": L2, "rescale_momentum": True}
    whole = trained(SGD(RATE, **options), gradients)
    first = SGD(RATE, **options)
    variables = trained(first, gradients, steps=DROP)
    second = SGD.from_config(first.get_config())
    second.build(variables)
    store = {}
    first.save_own_variables(store)
    second.load_own_variables(store)
    trained(second, gradients, variables=variables, first=DROP)
    for ours, theirs in zip(variables, whole, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_as_keras(nesterov, rng):
    gradients = rng.normal(size=(4, 3, 2)).astype("float32")
    start, *gradients = gradients

    def trained(cls):
        optimizer = cls(0.1, momentum=0.9, nesterov=nesterov)
        variable = keras.Variable(start)
        optimizer.build([variable])
        step = tf.function(lambda x: optimizer.apply([x], [variable]))
        for gradient in gradients:
            step(tf.constant(gradient))
        return variable.numpy()

    found = trained(SGD)
    np.testing.assert_array_equal(found, trained(keras.optimizers.SGD))
    assert np.max(np.abs(found - start)) > 0.1


def test_nothing_of_an_update_comes_before_the_gradient():
    assert _ready_products(SGD(0.1, momentum=0.9)) == 0
    all_of_it = SGD(0.1, momentum=0.9, l2=0.1, rescale_momentum=True)
    assert _ready_products(all_of_it) == 0
    # What it is there for.
    assert _ready_products(keras.optimizers.SGD(0.1, momentum=0.9)) > 0


def _ready_products(optimizer):
    """Products of weights in an update that do not depend on the gradient."""
    variable = keras.Variable(np.zeros((3, 2), "float32"), name="kernel")
    optimizer.build([variable])

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [variable])

    graph = step.get_concrete_function(tf.zeros((3, 2))).graph
    source = graph.inputs[0].op

    def depends(op):
        before = [*(x.op for x in op.inputs), *op.control_inputs]
        return op is source or any(depends(other) for other in before)

    products = [
        op
        for op in graph.get_operations()
        if op.type == "Mul" and op.outputs[0].shape.rank
    ]
    assert products
    return sum(not depends(op) for op in products)


def test_is_in_files(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(
        SGD(RATE, momentum=0.9, l2=1e-4, rescale_momentum=True), "mse"
    )
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([tf.ones((3, 2)), tf.ones((2,))])
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert type(reloaded) is SGD
    assert reloaded.get_config() == model.optimizer.get_config()
    assert reloaded.l2 == 1e-4 and reloaded.rescale_momentum
    for ours, theirs in zip(
        reloaded.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_in_fit_with_half_precision_and_xla(rng):
    """Loss scaling and compilation leave the updates as they are."""
    x = rng.normal(size=(16, 3)).astype("float32")
    y = x[:, :2] * 0.5  # Larger losses overflow when scaled.

    def weights(policy, **how):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        rate = StepDecay(0.1, drops=[4])
        optimizer = SGD(rate, momentum=0.9, l2=0.01, rescale_momentum=True)
        model.compile(optimizer, "mse", **how)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    for half, full in zip(
        weights("mixed_float16", jit_compile=True),
        weights("float32", run_eagerly=True),
        strict=True,
    ):
        np.testing.assert_allclose(half, full, atol=5e-3)
        assert np.max(np.abs(full)) > 0.02


def test_the_optimizer_of_a_configuration():
    config = TrainConfig(
        ClipSpec(8, 8),
        schedule="steps",
        drops=(0.5,),
        warmup=0.0,
        weight_decay=0.02,
        momentum=0.8,
        nesterov=False,
        clip_norm=40.0,
        ema=0.999,
    )
    optimizer = make_optimizer(config, 10)
    assert (optimizer.momentum, optimizer.nesterov) == (0.8, False)
    assert (optimizer.l2, optimizer.global_clipnorm) == (0.02, 40.0)
    assert optimizer.use_ema and optimizer.ema_momentum == 0.999
    assert optimizer.rescale_momentum
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    # The last steps of a cosine are no drops.
    cosine = dataclasses.replace(config, schedule="cosine", drops=(), ema=None)
    optimizer = make_optimizer(cosine, 10)
    assert not optimizer.rescale_momentum and not optimizer.use_ema
    kept = dataclasses.replace(config, rescale_momentum=False)
    assert not make_optimizer(kept, 10).rescale_momentum


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`l2` must be 0 or pos.*: -0.1"):
        SGD(0.1, l2=-0.1)
    with pytest.raises(ValueError, match="`bias_rate` must be 0 or.*: -2"):
        SGD(0.1, bias_rate=-2)
    with pytest.raises(ValueError, match="does not go with.*: 2"):
        SGD(0.1, rescale_momentum=True, gradient_accumulation_steps=2)
