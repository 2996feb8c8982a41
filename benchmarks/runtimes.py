"""The exported network in other runtimes, against PyTorch's export there."""

import pathlib
import tempfile

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

_SETTINGS = harness.Settings(seconds=10.0, rounds=(3, 15), minutes=2)
_OURS = ("plain", "folded")
_FRAMES = 8


def measure(context):
    """ONNX Runtime in float32, OpenVINO also in bfloat16."""
    size = 64 if context.quick else 224
    shape = {"frames": _FRAMES, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights = str(folder / "weights.npz")
        macs = harness.prepare(
            "benchmarks.tensorflow_sides:write_weights",
            {"path": weights, "variant": {}, "clips": [(_FRAMES, size)]},
        )
        files = _export(folder, weights, shape)
        flops = 2.0 * macs[_FRAMES, size]
        cases = [
            _case(runtime, precision, files, shape, flops)
            for runtime, precision in (
                ("onnxruntime", "float32"),
                ("openvino", "float32"),
                ("openvino", "bfloat16"),
            )
        ]
        yield from context.run(cases, _SETTINGS)


def _export(folder, weights, shape):
    """(file, why there is none) by (who, format)."""
    files = {}
    for format_ in ("onnx", "openvino"):
        suffix = {"onnx": "onnx", "openvino": "xml"}[format_]
        for who in ("PyTorch", *(f"ours {form}" for form in _OURS)):
            path = str(folder / f"{who.replace(' ', '_')}.{suffix}")
            library, _, form = who.partition(" ")
            module = "torch" if library == "PyTorch" else "tensorflow"
            arguments = {"path": path, "weights": weights, **shape}
            if form:
                arguments["form"] = form
            print(f"export {who} to {format_}", flush=True)
            try:
                harness.prepare(
                    f"benchmarks.{module}_export:to_{format_}", arguments
                )
                files[who, format_] = path, None
            except harness.SideError as error:
                files[who, format_] = path, (error.status, str(error))
    return files


def _case(runtime, precision, files, shape, flops):
    format_ = "onnx" if runtime == "onnxruntime" else "openvino"
    sides = []
    for (who, kind), (path, skip) in files.items():
        if kind == format_:
            sides.append(
                Side(
                    f"{who}, {runtime}",
                    f"benchmarks.runtime_sides:{runtime}",
                    {
                        "path": path,
                        "layout": "first" if who == "PyTorch" else "last",
                        "precision": precision,
                        **shape,
                    },
                    flops=flops,
                    dtype=precision,
                    skip=skip or _unable(precision),
                )
            )
    return Case(
        f"{runtime} {precision}",
        {"runtime": runtime, "precision": precision, "batch": 1, **shape},
        tuple(sides),
        (sides[0].name,),
        memory=None,
        tolerance=1e-4 if precision == "float32" else 0.1,
    )


def _unable(precision):
    able = harness.processor_flags() & {"avx512_bf16", "amx_bf16"}
    if precision == "bfloat16" and not able:
        return "not run", "the processor has no bfloat16 instructions"
    return None
