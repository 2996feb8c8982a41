"""Sides in the runtimes that exported networks are for."""

import numpy as np

from benchmarks import harness
from benchmarks import inputs


def onnxruntime(path, frames, size, layout, precision):
    """ONNX Runtime, float32."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = harness.num_cores()
    # Its threads would wait for the next call by spinning.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: _clips(frames, size, layout)}
    return lambda: session.run(None, feed)[0]


def openvino(path, frames, size, layout, precision):
    """OpenVINO; `precision` is what it may compute in."""
    from openvino import Core

    model = Core().compile_model(
        path,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {
                "float32": "f32",
                "bfloat16": "bf16",
            }[precision],
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = model.create_infer_request()
    clips = _clips(frames, size, layout)
    return lambda: np.array(next(iter(request.infer([clips]).values())))


def _clips(frames, size, layout):
    clips = inputs.clips(1, frames, size)
    if layout == "first":
        clips = np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))
    return clips
