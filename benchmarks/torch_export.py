"""The PyTorch network for other runtimes."""

import openvino
import torch

from benchmarks import torch_sides


def to_onnx(path, weights, frames, size):
    """Writes an ONNX file."""
    network, clips = _network(weights, frames, size)
    torch.onnx.export(network, (clips,), path, dynamo=True, external_data=False)


def to_openvino(path, weights, frames, size):
    """Writes OpenVINO's own format."""
    network, clips = _network(weights, frames, size)
    model = openvino.convert_model(
        network, example_input=clips, input=list(clips.shape)
    )
    openvino.save_model(model, path, compress_to_fp16=False)


def _network(weights, frames, size):
    network = torch_sides.load(weights, {}).eval()
    return network, torch_sides.load_clips(1, frames, size)
