import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.training.optimizers import SGD


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
    assert _ready_products(SGD) == 0
    # What it is there for.
    assert _ready_products(keras.optimizers.SGD) > 0


def _ready_products(cls):
    """Products of an update's graph that do not depend on the gradient."""
    optimizer = cls(0.1, momentum=0.9)
    variable = keras.Variable(np.zeros((3, 2), "float32"))
    optimizer.build([variable])

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [variable])

    graph = step.get_concrete_function(tf.zeros((3, 2))).graph
    source = graph.inputs[0].op

    def depends(op):
        before = [*(x.op for x in op.inputs), *op.control_inputs]
        return op is source or any(depends(other) for other in before)

    products = [op for op in graph.get_operations() if op.type == "Mul"]
    assert products
    return sum(not depends(op) for op in products)


def test_is_in_files(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(reloaded.optimizer) is SGD
    assert reloaded.optimizer.momentum == 0.9
