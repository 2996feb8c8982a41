"""Packages import downwards only, and heavy imports stand where they may."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent / "keras_nonlocal"
_JOINING = {
    "ops",
    "layers",
    "models",
    "weights",
    "data",
    "metrics",
    "detection",
}
_SIDE = {"training", "evaluation", "prediction", "visualization", "export"}
MAY_IMPORT = {
    "ops": set(),
    "layers": {"ops"},
    "models": {"ops", "layers"},
    "weights": {"ops", "layers", "models"},
    "data": {"ops"},
    "metrics": {"ops"},
    "detection": {"ops", "layers", "models", "weights"},
    "training": _JOINING | _SIDE,
    "evaluation": _JOINING | _SIDE,
    "prediction": _JOINING | _SIDE,
    "visualization": _JOINING | _SIDE,
    "export": _JOINING | _SIDE,
    "cli": _JOINING | _SIDE,
}
# What keras.ops has no equal for: a fused kernel, a loop of one step at a time,
# sums over replicas.
TENSORFLOW_BELOW_DATA = {
    "detection/replicas.py",
    "ops/chunks.py",
    "ops/normalization.py",
}
ONLY_IN = {
    "apache_beam": {"data/beam.py"},
    "av": {
        "data/auditing/video.py",
        "data/decode.py",
        "data/decoders/frame_folder.py",
        "data/frame_stream.py",
        "data/synthetic.py",
        "data/transcode.py",
        "visualization/media.py",
    },
    "gradio": {"cli/app.py"},
    "jax": {"training/distribution.py", "training/precise_bn.py"},
    "keras_cv": {"data/keras_cv_layers.py"},
    "matplotlib": {
        "visualization/attention_figures.py",
        "visualization/detection_figures.py",
        "visualization/figures.py",
        "visualization/frame_strip.py",
    },
    "PIL": {"visualization/media.py"},
    "pyarrow": {"data/readers/table.py"},
    "pycocotools": {"data/coco_masks.py", "evaluation/coco.py"},
    "tensorflow_io": {"data/decoders/tensorflow_io.py"},
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in ("__init__.py", "version.py"):
            yield name, imported(path)


def imported(path):
    """Full names of all that a file imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def package(name):
    return name.split("/")[0].removesuffix(".py")


def test_imports_point_down():
    offenders = [
        f"{name}: {target}"
        for name, targets in modules()
        for target in targets
        if target.startswith("keras_nonlocal.")
        and target.split(".")[1]
        not in MAY_IMPORT[package(name)] | {package(name)}
    ]
    assert offenders == []


def test_networks_run_on_every_backend():
    offenders = [
        f"{name}: {target}"
        for name, targets in modules()
        if package(name) in ("ops", "layers", "models", "detection")
        and name not in TENSORFLOW_BELOW_DATA
        for target in targets
        if target.split(".")[0] in ("tensorflow", "jax", "torch")
    ]
    assert offenders == []


def test_each_optional_package_has_one_door():
    offenders = [
        f"{name}: {target}"
        for name, targets in modules()
        for target in targets
        if name not in ONLY_IN.get(target.split(".")[0], {name})
    ]
    assert offenders == []


def test_only_public_keras():
    offenders = [
        f"{name}: {target}"
        for name, targets in modules()
        for target in targets
        if target.startswith("keras.src")
    ]
    assert offenders == []
