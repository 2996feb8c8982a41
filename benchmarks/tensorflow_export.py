"""This package's network for other runtimes."""

import os
import tempfile

import tensorflow as tf

from benchmarks import tensorflow_sides
from keras_nonlocal.models.folding import fold_batch_norm


def to_onnx(path, weights, frames, size, form):
    """Writes an ONNX file."""
    import onnx
    import tf2onnx

    model = _network(weights, frames, size, form)
    proto, _ = tf2onnx.convert.from_keras(
        model, [_signature(frames, size)], opset=18
    )
    onnx.save(proto, path)


def to_openvino(path, weights, frames, size, form):
    """Writes OpenVINO's own format."""
    import openvino

    model = _network(weights, frames, size, form)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        model.export(folder, input_signature=[_signature(frames, size)])
        converted = openvino.convert_model(folder)
    openvino.save_model(converted, path, compress_to_fp16=False)


def _network(weights, frames, size, form):
    model = tensorflow_sides.load(weights, {}, frames, size)
    return fold_batch_norm(model) if form == "folded" else model


def _signature(frames, size):
    return tf.TensorSpec((1, frames, size, size, 3), tf.float32, name="clip")
