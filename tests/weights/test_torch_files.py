import argparse
import collections
import io
import pathlib
import pickle
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_nonlocal.weights.opcodes import Unreadable
from keras_nonlocal.weights.torch_files import is_torch
from keras_nonlocal.weights.torch_files import read_torch
from keras_nonlocal.weights.unpickle import ReadError
from keras_nonlocal.weights.unpickle import read_pickle
from tests.parity import weights_module
from tests.weights.test_unpickle import HUGE
from tests.weights.test_unpickle import MEBIBYTE
from tests.weights.test_unpickle import body
from tests.weights.test_unpickle import called
from tests.weights.test_unpickle import doubled
from tests.weights.test_unpickle import equal
from tests.weights.test_unpickle import refused

torch = pytest.importorskip("torch")

START = b"\x80\x02"
MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = (
    "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool "
    "complex64 complex128"
).split()


@pytest.fixture(autouse=True)
def _fresh_state():
    """Nothing here leaves state in Keras, and clearing that takes long."""


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, tmp_path):
    """Writes an object with torch, in both layouts."""

    def save(content):
        path = tmp_path / "file.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


def numpy_of(content):
    """What we should make of torch's content."""
    if isinstance(content, dict):
        return {key: numpy_of(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(map(numpy_of, content))
    if not isinstance(content, torch.Tensor):
        return content
    content = content.detach()
    if content.dtype == torch.bfloat16:
        return content.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return content.numpy()


def storage(kind="FloatStorage", key="0", length=4, more=b""):
    """The opcodes of a storage."""
    named = f"ctorch\n{kind}\n".encode()
    parts = body("storage"), named, body(key), body("cpu"), body(length), more
    return b"(" + b"".join(parts) + b"tQ"


def tensor(stored=None, offset=0, shape=(4,), strides=(1,), more=b"\x89}"):
    """The opcodes of a tensor."""
    return called(
        "torch._utils",
        "_rebuild_tensor_v2",
        stored or storage(),
        body(offset),
        body(shape),
        body(strides),
        more,
    )


@pytest.fixture
def write_zip(tmp_path):
    """Writes opcodes in the zip layout, with one storage of 16 bytes."""

    def write(program, members=None, drop=(), **settings):
        path = tmp_path / "file.pth"
        content = {
            "any name/data.pkl": START + program + b".",
            "any name/byteorder": b"little",
            "any name/data/0": np.arange(4, dtype="float32").tobytes(),
            **(members or {}),
        }
        with zipfile.ZipFile(path, "w", **settings) as archive:
            for name, data in content.items():
                if name not in drop:
                    archive.writestr(name, data)
        return path

    return write


@pytest.fixture
def write_legacy(tmp_path):
    """Writes opcodes in the legacy layout, with one storage of 16 bytes."""

    def write(program, system=None, keys=("0",), length=4, data=bytes(16)):
        path = tmp_path / "file.pth"
        pickles = [
            body(MAGIC),
            body(1001),
            body(system or {"little_endian": True}),
            program,
            body(list(keys)),
        ]
        path.write_bytes(
            b"".join(START + part + b"." for part in pickles)
            + length.to_bytes(8, "little", signed=True)
            + data
        )
        return path

    return write


@pytest.mark.parametrize("name", DTYPES)
def test_tensors(name, saved):
    dtype = getattr(torch, name)
    base = (torch.arange(-60, 60) * 0.75).reshape(4, 5, 6).to(dtype)
    content = {
        "whole": base,
        "view": base[1:3, ::2],
        "transposed": base.permute(2, 0, 1),
        "same": base,
        "scalar": base[1, 2, 3],
        "empty": base[:0],
        "nothing": torch.empty(0, dtype=dtype),
        "own": torch.ones(3, 2, dtype=dtype),
        "one": torch.full((), 1, dtype=dtype),
    }
    path = saved(content)
    assert is_torch(path)
    ours = read_torch(path)
    equal(ours, numpy_of(content))
    assert ours["view"].base is not None
    assert np.shares_memory(ours["view"], ours["whole"])
    assert not any(array.flags.writeable for array in ours.values())


def test_modules(saved):
    module = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, (1, 3, 3)), torch.nn.BatchNorm3d(4)
    )
    state = module.state_dict()
    assert isinstance(state, collections.OrderedDict) and state._metadata
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(2, 3, 4, 5, 5)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "model_state": state,
        "optimizer_state": optimizer.state_dict(),
        "cfg": "TRAIN:\n  ENABLE: true\n",
    }
    equal(read_torch(saved(content)), numpy_of(content))


def test_parameters(saved):
    plain = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    marked = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    marked.note = "state"
    content = [plain, marked, torch.ones(3, requires_grad=True)]
    equal(read_torch(saved(content)), numpy_of(content))


def test_what_comes_beside_the_weights(saved):
    counter = collections.Counter("abca")
    content = {
        "size": torch.Size([1, 2]),
        "arrays": [np.arange(3.0), np.float32(0.5)],
        "values": [None, True, 1, 2**70, 0.5, "text", b"\xff", (1, (2,))],
        "args": argparse.Namespace(run=print is None, tensor=torch.ones(2)),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "version": torch.__version__,
        "counter": counter,
        "default": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1, 2]),
        "set": {1, 2},
        "frozen": frozenset("a"),
        "path": pathlib.PurePosixPath("a/b"),
        "weight": torch.ones(2),
    }
    ours = read_torch(saved(content))
    for name in ("arrays", "values", "weight"):
        equal(ours[name], numpy_of(content[name]))
    assert ours["size"] == (1, 2)
    assert {
        name: f"{value.module}.{value.name}"
        for name, value in ours.items()
        if isinstance(value, Unreadable)
    } == {
        "args": "argparse.Namespace",
        "dtype": "torch.float32",
        "device": "torch.device",
        "version": "torch.torch_version.TorchVersion",
        "counter": "collections.Counter",
        "default": "collections.defaultdict",
        "deque": "collections.deque",
        "set": "__builtin__.set",
        "frozen": "__builtin__.frozenset",
        "path": "pathlib.PurePosixPath",
    }


def test_mmengine_history(write_zip):
    """Its state is left out: instance, attributes and all."""
    program = (
        b"}"
        + body("loss")
        + b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}"
        + body("_count")
        + tensor()
        + b"sbs"
        + body("weight")
        + tensor()
        + b"s"
    )
    ours = read_torch(write_zip(program))
    expected = Unreadable("mmengine.logging.history_buffer", "HistoryBuffer")
    assert ours["loss"] == expected
    equal(ours["weight"], np.arange(4, dtype="float32"))


def test_storages(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TypedStorage is deprecated.
        content = [torch.arange(3.0).storage(), torch.arange(3)]
        path = saved(content)
    ours = read_torch(path)
    equal(ours, [np.arange(3, dtype="float32"), np.arange(3)])
    assert not any(array.flags.writeable for array in ours)


def test_the_writer_without_torch(shared, tmp_path, rng):
    params = {
        "conv.weight": rng.standard_normal((2, 3, 1, 2, 2), "float32"),
        "bn.num_batches_tracked": np.zeros((), "int64"),
    }
    path = tmp_path / "peer.pth"
    write = weights_module(shared / "parity").write_pth
    write(path, params, wrap="slowfast")
    assert is_torch(path)
    equal(read_torch(path), {"epoch": 0, "model_state": params, "cfg": ""})
    write(path, params, wrap="mmaction2")
    equal(read_torch(path), {"meta": {}, "state_dict": params})


def test_first_rebuild_function(write_zip, write_legacy):
    program = called(
        "torch._utils",
        "_rebuild_tensor",
        storage(),
        body(1),
        body((1, 2)),
        body((2, 2)),
    )
    ours = read_torch(write_zip(program))
    equal(ours, np.array([[1, 3]], "float32"))
    # Before torch 0.4 an id has a sixth part, for views of storages.
    program = tensor(storage(more=b"N"))
    data = np.arange(4, dtype="float32")
    equal(read_torch(write_legacy(program, data=data.tobytes())), data)


def test_recognition(tmp_path, saved):
    assert is_torch(saved(1))
    path = tmp_path / "other"
    for content in (b"", b"text", pickle.dumps({"a": 1}), b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(content)
        assert not is_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("data.pkl", "")
        archive.writestr("a/b/data.pkl", "")
    assert not is_torch(path)
    refused(read_torch, path, "has 0 members")
    refused(is_torch, tmp_path / "absent", "there is no such file")
    refused(read_torch, tmp_path / "absent", "there is no such file")
    path.write_bytes(b"PK\3\4 and no more")
    refused(is_torch, path, "BadZipFile")


def test_a_torch_file_is_no_plain_pickle(saved):
    with pytest.raises(ReadError, match="cannot be read as a pickle"):
        read_pickle(saved({"a": torch.ones(2)}))


def test_cut_off_anywhere(saved):
    path = saved({"a": torch.ones(3), "b": [torch.zeros(0), "text"]})
    content = path.read_bytes()
    for length in range(0, len(content), 1 if len(content) < 1000 else 7):
        path.write_bytes(content[:length])
        with pytest.raises(ReadError, match="cannot be read"):
            read_torch(path)


def test_damage_is_one_type_of_error(saved, rng):
    path = saved({"a": torch.ones(3), "b": [torch.zeros(0), "text"]})
    content = bytearray(path.read_bytes())
    failures = 0
    for _ in range(500):
        damaged = content.copy()
        for place in rng.integers(0, len(content), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_torch(path)
        except ReadError:
            failures += 1
    assert failures > 200


class Touch:
    """Its pickle makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


class System(Touch):
    def __reduce__(self):
        return __import__("os").system, (f"touch {self.path}",)


class Evaluated(Touch):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("kind", [Touch, System, Evaluated])
def test_nothing_runs(kind, saved, tmp_path):
    marker = tmp_path / "marker"
    path = saved({"a": torch.ones(3), "b": kind(marker)})
    refused(read_torch, path, "not allowed in a checkpoint")
    assert not marker.exists()
    # Torch itself does run it, so that the above is of worth.
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_nothing_runs_beside_the_weights(write_zip, tmp_path):
    """Not even as the state of something that is not read."""
    marker = tmp_path / "marker"
    command = called("os", "system", body(f"touch {marker}"))
    namespace = b"cargparse\nNamespace\n"
    for program in (
        namespace + b")\x81" + command + b"b",
        namespace + command + b"\x85R",
        namespace + b")\x81(" + body("a") + command + b"u",
        namespace + b")\x81(" + command + b"e",
        b"(" + body("storage") + command + b"tQ",
        tensor(more=command),
    ):
        refused(read_torch, write_zip(program), "'os.system', which is not")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (tensor(shape=(HUGE,)), "does not fit"),
        (tensor(shape=(HUGE,), strides=(0,)), "does not fit"),
        (tensor(shape=(5,), strides=(0,)), "does not fit"),
        (tensor(shape=(2, 2), strides=(3, 1)), "does not fit"),
        (tensor(shape=(2,), strides=(2**62,)), "does not fit"),
        (tensor(shape=(1,), strides=(2**62,)), "cannot be read"),
        (tensor(offset=1), "does not fit"),
        (tensor(offset=4, shape=(1,)), "does not fit"),
        (tensor(offset=2**70, shape=(1,)), "does not fit"),
        (tensor(offset=-1), "offset of a tensor"),
        (tensor(offset=0.0), "offset of a tensor"),
        (tensor(strides=(-1,)), "not a natural number"),
        (tensor(shape=(-4,)), "not a natural number"),
        (tensor(shape=(-2, -2), strides=(1, 1)), "not a natural number"),
        (tensor(shape=(4, 1)), "a stride per axis"),
        (tensor(shape=(1,) * 33, strides=(1,) * 33), "at most 32"),
        (tensor(shape=(0, 2**62, 2**62), strides=(1, 1, 1)), "maximum|too big"),
        (tensor(shape=[4]), "not a tuple"),
        (tensor(stored=b"N"), "has no storage"),
        (tensor(more=b"\x89}" + body({"conj": True})), "conjugated"),
        (tensor(more=b"NNNNN"), "TypeError"),
        (tensor(storage(length=HUGE)), "bytes, but its|larger than the file"),
        (tensor(storage(length=-4)), "length of a storage"),
        (tensor(storage(length=4.0)), "length of a storage"),
        (tensor(storage(key=0)), "key or the length"),
        (tensor(storage("DoubleStorage")), "has 16 bytes|ends in a"),
        (b"(" + tensor() + tensor(storage("LongStorage")) + b"t", "16 bytes"),
        (tensor(storage("FloatTensor")), "is not allowed"),
        (tensor(storage(more=body(("1", 0, 4)))), "view of another"),
        (tensor(storage(more=b"NN")), "not that of a storage"),
        (body(("module", "x", "y", "z", 1)) + b"Q", "not that of a storage"),
        (body("0") + b"Q", "not that of a storage"),
        (called("torch._utils", "_rebuild_tensor_v3"), "is not allowed"),
        (called("torch", "load", body("x")), "is not allowed"),
        (called("__builtin__", "getattr", body("x")), "is not allowed"),
        (called("torch.storage", "_load_from_bytes", b"C\0"), "is not allowed"),
        (called("torch", "Size", body((-1,))), "not a natural number"),
        (called("torch", "FloatStorage", body(HUGE)), "cannot be called"),
        (b"ctorch\nSize\n", "unfinished function"),
        (doubled(30), "nested deeper"),
        (b"}" + doubled(30) + b"Ns", "keys must be"),
        (b"}" + tensor() + b"Ns", "keys must be"),
        (b"}cargparse\nNamespace\nNs", "keys must be"),
    ],
)
def test_hostile_programs(program, match, write_zip, write_legacy):
    refused(read_torch, write_zip(program), match)
    refused(read_torch, write_legacy(program), match)


def test_programs_are_otherwise_read(write_zip, write_legacy):
    program = tensor(shape=(2, 2), strides=(1, 2))
    values = np.arange(4, dtype="float32")
    equal(read_torch(write_zip(program)), values.reshape(2, 2).T)
    path = write_legacy(program, data=values.tobytes())
    equal(read_torch(path), values.reshape(2, 2).T)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"members": {"any name/byteorder": b"big"}}, "not little-endian"),
        ({"members": {"../evil": b"x"}}, "'../evil' is outside"),
        ({"members": {"any name/../../evil": b"x"}}, "is outside"),
        ({"members": {"/etc/evil": b"x"}}, "is outside"),
        ({"members": {"a\\..\\evil": b"x"}}, "is outside"),
        ({"members": {"other/data.pkl": b"x"}}, "has 2 members"),
        ({"members": {"any name/data/0": b"x" * 15}}, "has 15 bytes"),
        ({"members": {"any name/data/0": b""}}, "has 0 bytes"),
        ({"drop": ["any name/data/0"]}, "there is no member"),
        ({"drop": ["any name/data.pkl"]}, "has 0 members"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
        ({"compression": zipfile.ZIP_LZMA}, "is compressed"),
    ],
)
def test_hostile_archives(settings, match, write_zip):
    refused(read_torch, write_zip(tensor(), **settings), match)


def test_storage_names_do_not_leave_the_folder(write_zip):
    program = tensor(storage(key="../byteorder", length=0))
    refused(read_torch, write_zip(program), "no member .*byteorder")


def test_zip_bomb(write_zip):
    bomb = {"any name/data/0": bytes(512 * MEBIBYTE)}
    program = tensor(storage(length=128 * MEBIBYTE))
    path = write_zip(program, bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MEBIBYTE
    refused(read_torch, path, "is compressed")


def test_duplicate_members(write_zip):
    path = write_zip(tensor())
    with zipfile.ZipFile(path, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("any name/data/0", bytes(16))
    refused(read_torch, path, "several members of one name")


def _patched(path, offset, value):
    """Changes a field of the directory's entry of the storage."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"any name/data/0") - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    content[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(content)
    return path


def test_forged_directories(write_zip):
    encrypted = _patched(write_zip(tensor()), 8, b"\1\0")
    refused(read_torch, encrypted, "is encrypted")
    size = (2**31).to_bytes(4, "little")
    large = _patched(write_zip(tensor()), 20, size + size)
    refused(read_torch, large, "larger than the file")
    other = _patched(write_zip(tensor()), 42, bytes(4))
    refused(read_torch, other, "BadZipFile")
    checksum = _patched(write_zip(tensor()), 16, b"abcd")
    refused(read_torch, checksum, "BadZipFile|CRC")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"system": {"little_endian": False}}, "not little-endian"),
        ({"system": [1]}, "not little-endian"),
        ({"length": 5}, "not as long as its tensors say"),
        ({"length": -1}, "not as long as its tensors say"),
        ({"length": 2**62}, "not as long as its tensors say"),
        ({"data": bytes(15)}, "ends in a storage"),
        ({"data": bytes(17)}, "more after its end"),
        ({"keys": []}, "not that of its tensors"),
        ({"keys": ["0", "0"]}, "not that of its tensors"),
        ({"keys": ["1"]}, "not that of its tensors"),
        ({"keys": [0]}, "list of storages is damaged"),
    ],
)
def test_damaged_legacy_files(settings, match, write_legacy):
    refused(read_torch, write_legacy(tensor(), **settings), match)


def test_a_legacy_file_without_its_last_and_empty_storage(write_legacy):
    program = tensor(storage(length=0), shape=(0,))
    path = write_legacy(program, length=0, data=b"")
    equal(read_torch(path), np.zeros(0, "float32"))
    path.write_bytes(path.read_bytes()[:-8])
    refused(read_torch, path, "ends before a storage")


def test_a_legacy_file_that_claims_much(write_legacy):
    many = [tensor(storage(key=str(key), length=100)) for key in range(100)]
    path = write_legacy(b"(" + b"".join(many) + b"t")
    assert path.stat().st_size < 100 * 400
    refused(read_torch, path, "larger than the file")


def test_other_starts(tmp_path):
    path = tmp_path / "file.pth"
    for start in (1, "x", (MAGIC,)):
        content = io.BytesIO()
        for part in (start, 1001, {"little_endian": True}, {}, []):
            pickle.dump(part, content, 2)
        path.write_bytes(content.getvalue())
        refused(read_torch, path, "does not start as one")
    path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1002, 2))
    refused(read_torch, path, "does not start as one")
