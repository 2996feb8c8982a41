"""Notebooks are kept without outputs, and run from end to end in small."""

import os
import pathlib
import tempfile

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Each with a line that none but a cell which did its work prints.
NOTEBOOKS = {
    "export_and_serve": "served without keras_nonlocal",
    "fine_tune": "this network **begins with random weights**",
    "insert_block": "{'nonlocal_conv_b': 'conv_b'} identity: True",
    "load_weights": "recognised as: caffe2",
    "paper_table": "their scores before training: 0.0",
    "what_do_blocks_see": "attention.html: ",
}
SECONDS = 600  # Of a cell, on a machine that does much else.


def read(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cells):
    """What cells have printed or displayed."""
    outputs = [output for cell in cells for output in cell.outputs]
    printed = [o.text for o in outputs if o.output_type == "stream"]
    shown = [o.data.get("text/markdown", "") for o in outputs if "data" in o]
    return "".join([*printed, *shown])


def test_all_are_listed():
    found = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_fit_to_keep(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert not any(cell.outputs for cell in code_of(notebook))
    assert not any(cell.execution_count for cell in code_of(notebook))
    introduction = notebook.cells[0]
    assert introduction.cell_type == "markdown"
    assert introduction.source.startswith("# ")
    assert "%pip install" in code_of(notebook)[0].source
    with_settings = [c for c in code_of(notebook) if "SMOKE" in c.source]
    assert len(with_settings) == 1


def test_all_install_alike():
    assert len({code_of(read(name))[0].source for name in NOTEBOOKS}) == 1


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Runs a first cell where the package is missing; what pip was told."""
    monkeypatch.setenv("IPYTHONDIR", os.fspath(tmp_path / "ipython"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def run(folder, repository=""):
        monkeypatch.chdir(folder)
        shell = InteractiveShell()
        shell.history_manager.enabled = False
        told = []
        shell.register_magic_function(told.append, magic_name="pip")
        cell = code_of(read("fine_tune"))[0].source
        assert cell.count('REPOSITORY = ""\n') == 1
        set_to = f'REPOSITORY = "{repository}"\n'
        cell = cell.replace('REPOSITORY = ""\n', set_to)
        return told, shell.run_cell(cell)

    return run


def test_first_cell_installs_the_checkout(install):
    told, result = install(ROOT / "notebooks")
    result.raise_error()
    assert told == [f'install --quiet "{ROOT}[plot]"']


def test_first_cell_installs_a_repository(install, tmp_path):
    told, result = install(tmp_path, "https://example.org/a.git")
    result.raise_error()
    address = "git+https://example.org/a.git"
    assert told == [f'install --quiet "keras-nonlocal[plot] @ {address}"']


def test_first_cell_installs_nothing_of_an_unknown_origin(install, tmp_path):
    told, result = install(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="clone.*set REPOSITORY"):
        result.raise_error()
    assert told == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name, tmp_path):
    notebook = read(name)
    # Of this interpreter, whatever others are installed.
    write_kernel_spec(tmp_path / "kernels" / "python3")
    specs = KernelSpecManager(kernel_dirs=[os.fspath(tmp_path / "kernels")])
    folder = tmp_path / "notebook"
    folder.mkdir()
    environment = {
        **os.environ,
        "KERAS_NONLOCAL_SMOKE": "1",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": os.fspath(tmp_path / "keras"),
        "IPYTHONDIR": os.fspath(tmp_path / "ipython"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    # Sockets in files: two tests may not find one free port. Their paths have
    # to be short.
    with tempfile.TemporaryDirectory() as sockets:
        manager = AsyncKernelManager(
            kernel_spec_manager=specs,
            transport="ipc",
            ip=os.path.join(sockets, "s"),
        )
        client = NotebookClient(notebook, km=manager, timeout=SECONDS)
        client.execute(env=environment, cwd=os.fspath(folder), cleanup_kc=True)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(
        range(1, len(cells) + 1)
    )
    assert NOTEBOOKS[name] in text_of(cells)
