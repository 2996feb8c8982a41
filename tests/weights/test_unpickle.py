import collections
import io
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from keras_nonlocal.weights import opcodes
from keras_nonlocal.weights.unpickle import ReadError
from keras_nonlocal.weights.unpickle import read_pickle
from tests.parity import weights_module

PROTOCOLS = range(6)
DTYPES = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 >f4 >i8 >c16".split()
HUGE = 10 * 2**30
MEBIBYTE = 2**20


def body(value):
    """The opcodes that push a value."""
    return pickle.dumps(value, 2)[2:-1]


def called(module, name, *arguments):
    """The opcodes of a call, the arguments being opcodes."""
    target = f"c{module}\n{name}\n".encode()
    return target + b"(" + b"".join(arguments) + b"tR"


def dtype(name="f4", byte_order="<"):
    state = (3, byte_order, None, None, None, -1, -1, 0)
    made = called("numpy", "dtype", body(name), body(False), body(True))
    return made + body(state) + b"b"


def array(shape, data, kind=None, fortran=False):
    """The opcodes of an array, the data being opcodes."""
    made = called(
        "numpy.core.multiarray",
        "_reconstruct",
        b"cnumpy\nndarray\n",
        body((0,)),
        body(b"b"),
    )
    state = body(1) + body(shape) + (kind or dtype()) + body(fortran) + data
    return made + b"(" + state + b"tb"


def refused(read, path, match, memory=4 * MEBIBYTE):
    """Checks that a file fails soon, names itself and takes little memory."""
    start = time.process_time()
    with pytest.raises(ReadError, match=match) as caught:
        read(path)
    assert time.process_time() - start < 2
    assert type(caught.value) is ReadError
    assert str(caught.value).startswith(f"{path}: ")
    # Tracing takes time, hence the second run.
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match=match):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()


def equal(ours, theirs):
    """Same types, values, shapes, byte orders and order of keys."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            equal(ours[key], value)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            equal(our, their)
    elif isinstance(theirs, (np.ndarray, np.generic)):
        assert ours.dtype == theirs.dtype
        assert ours.dtype.byteorder == theirs.dtype.byteorder
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


@pytest.fixture(autouse=True)
def _fresh_state():
    """Nothing here leaves state in Keras, and clearing that takes long."""


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "file"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def read(write):
    return lambda content: read_pickle(write(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_content(protocol, read, rng):
    shared = rng.standard_normal((2, 3))
    content = {
        "text": ["", "a'\"\\\n\t", "\xe9\u4e2d\U0001f600", "x" * 300],
        "bytes": [b"", bytes(range(256)), b"\xe9" * 300],
        "numbers": [0, 1, -1, 255, 256, 65536, 2**31, -(2**63), 2**77],
        "others": (None, True, False, 0.1, -1e300, float("inf")),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "empty": [[], {}, ()],
        b"key": {0: 1, -(2**62): 2},
        "array": rng.standard_normal((3, 4, 5)).astype("float32"),
        "again": [shared, shared],
        "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True)],
        "long list": list(range(3000)),
    }
    ours = read(pickle.dumps(content, protocol))
    equal(ours, content)
    assert ours["again"][0] is ours["again"][1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dict_becomes_a_dict(protocol, read):
    content = collections.OrderedDict(b=1, a=collections.OrderedDict(c=2))
    equal(read(pickle.dumps(content, protocol)), {"b": 1, "a": {"c": 2}})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", DTYPES)
def test_arrays(protocol, name, read, rng):
    values = rng.integers(0, 100, (2, 3, 4)).astype(name)
    content = [
        values,
        values.T,
        values.transpose(1, 0, 2),
        values[:, ::2],
        values[0, 0, 0].reshape(()).astype(name),
        values[:0],
        np.zeros((0, 3), name),
        values.ravel(),
    ]
    ours = read(pickle.dumps(content, protocol))
    equal(ours, content)
    assert not any(array.flags.writeable for array in ours)


def test_bytearray(read):
    equal(read(pickle.dumps(bytearray(b"abc"), 5)), bytearray(b"abc"))


def test_python_2_protocol_2(shared, tmp_path, rng):
    params = {
        "conv1_w": rng.standard_normal((4, 3, 1, 2, 2), "float32"),
        "res_conv1_bn_s": rng.standard_normal(300, "float32"),
        "half": rng.standard_normal((3, 2)).astype("float16").T,
    }
    path = tmp_path / "caffe2.pkl"
    writer = weights_module(shared / "parity").write_caffe2_pkl
    writer(path, params, model_iter=np.int64(5), momentum=True)
    blobs = read_pickle(path)["blobs"]
    assert set(params) < set(blobs)
    equal({name: blobs[name] for name in params}, params)
    equal(blobs["lr"], np.array(0.01, "float32"))
    equal(blobs["model_iter"], np.int64(5))
    writer(path, params, wrap=False, python2=False)
    equal(read_pickle(path), {"lr": np.array(0.01, "float32"), **params})


def test_python_2_protocol_0(read):
    """As written by Python 2.7, with numpy 1.16."""
    content = (
        b"(dp0\nS'w'\np1\n"
        b"cnumpy.core.multiarray\n_reconstruct\np2\n"
        b"(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        b"(I1\n(I1\nL2L\ntp8\ncnumpy\ndtype\np9\n"
        b"(S'f4'\np10\nI0\nI1\ntp11\nRp12\n"
        b"(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
        rb"S'\x00\x00\x80?\'\n\xff\\'"
        b"\np15\ntp16\nbs"
        rb"""S"it's \xe9" """.rstrip()
        + b"\np17\nI01\ns."
    )
    values = np.frombuffer(b"\x00\x00\x80?'\n\xff\\", "float32")
    equal(read(content), {"w": values.reshape(1, 2), "it's \xe9": True})


def test_python_2_ordered_dict(read):
    items = [["a", 1], ["b", 2]]
    equal(
        read(called("collections", "OrderedDict", body(items)) + b"."),
        {"a": 1, "b": 2},
    )


def test_a_repeated_array_refers_to_what_became_of_it(read):
    one = array((1,), body("\x00\x00\x80?"))
    # Memoised as numpy's pickles do, before BUILD.
    one = one.replace(b"tR(", b"tRq\x63(", 1)
    ours = read(b"(" + one + b"h\x63t.")
    assert ours[0] is ours[1]
    equal(ours[0], np.ones(1, "float32"))


def test_no_file(tmp_path):
    with pytest.raises(ReadError, match="absent: there is no such file"):
        read_pickle(tmp_path / "absent")
    with pytest.raises(ReadError, match="not a regular file"):
        read_pickle(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="not a regular file"):
        read_pickle(tmp_path / "pipe")
    with pytest.raises(ReadError, match="null byte"):
        read_pickle("a\0b")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cut_off_anywhere(protocol, write):
    content = pickle.dumps(
        {"a": np.arange(3.0), "b": ["text", 2**40, b"\xff", 1.5, (None,)]},
        protocol,
    )
    read_pickle(write(content))
    for length in range(len(content)):
        refused(read_pickle, write(content[:length]), "cannot be read")


def test_more_after_the_end(write):
    refused(read_pickle, write(pickle.dumps(1) + b"x"), "more after its end")


def test_damage_is_one_type_of_error(write, rng):
    content = bytearray(
        pickle.dumps({"a": np.arange(3.0), "b": ["text", 2**40, b"\xff"]}, 2)
    )
    failures = 0
    for _ in range(1000):
        damaged = content.copy()
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path = write(damaged)
        try:
            read_pickle(path)
        except ReadError:
            failures += 1
    assert failures > 500


def _programs(command):
    """Pickles that run a command."""
    line = body(command)
    stack_global = b"\x80\x04\x8c\x02os\x8c\x06system\x93"
    system = b"cos\nsystem\n"
    run = f"__import__('os').system({command!r})"
    return {
        "os": called("os", "system", line),
        "posix": called("posix", "system", line),
        "subprocess": called("subprocess", "check_call", body(command.split())),
        "eval": called("builtins", "eval", body(run)),
        "exec": called("builtins", "exec", body(run)),
        "__builtin__": called("__builtin__", "eval", body(run)),
        "getattr": called(
            "builtins",
            "getattr",
            called("importlib", "import_module", body("os")),
            body("system"),
        )
        + line
        + b"\x85R",
        "stack global": stack_global + line + b"\x85R",
        "dotted": b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93"
        + line
        + b"\x85R",
        "inst": b"(" + line + b"ios\nsystem\n",
        "obj": b"(" + system + line + b"o",
        "newobj_ex": b"cbuiltins\nmap\n"
        + b"("
        + system
        + b"]"
        + line
        + b"at}\x92"
        + b"q\x00cbuiltins\nlist\nh\x00\x85R",
        "newobj": b"cbuiltins\nmap\n("
        + system
        + b"]"
        + line
        + b"at\x81q\x00cbuiltins\nlist\nh\x00\x85R",
        "reduce of numpy": called(
            "numpy.testing._private.utils", "runstring", body(run), b"}"
        ),
        "key": b"}" + called("os", "system", line) + b"Ns",
        "popped": called("os", "system", line) + b"0N",
        "array": array((1,), called("os", "system", line) + b"U\x04abcd"),
    }


@pytest.mark.parametrize("name", sorted(_programs("")))
def test_nothing_runs(name, write, tmp_path):
    marker = tmp_path / "marker"
    program = _programs(f"touch {marker}")[name] + b"."
    path = write(program)
    refused(read_pickle, path, "not allowed|unfinished|cannot be called")
    assert not marker.exists()
    # Python's own does run it, so that the above is of worth.
    try:
        pickle.load(io.BytesIO(program))  # noqa: S301
    except (pickle.UnpicklingError, ValueError, TypeError):
        pass
    assert marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "numpy load",
        "numpy memmap",
        "numpy.core.multiarray fromfile",
        "numpy ndarray.tofile",
        "numpy.core.multiarray",
        "collections defaultdict",
        "collections.abc OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "argparse Namespace",
        "keras_nonlocal.weights.unpickle read_pickle",
        "_codecs decode",
        "builtins bytearray",
        "copyreg _reconstructor",
    ],
)
def test_other_globals(name, write):
    module, _, attribute = name.partition(" ")
    program = called(module, attribute, body("file")) + b"."
    refused(read_pickle, write(program), "is not allowed in a checkpoint")


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (body("id") + b"Q", "refers to objects outside"),
        (b"Pid\n", "PERSID is not allowed"),
        (b"\x82\x01", "EXT1 is not allowed"),
        (b"\x83\x01\x00", "EXT2 is not allowed"),
        (b"\x84\x01\x00\x00\x00", "EXT4 is not allowed"),
        (b"\x97", "NEXT_BUFFER is not allowed"),
        (b"]\x98", "READONLY_BUFFER is not allowed"),
        (b"]2\x86", "DUP is not allowed"),
        (b"N0N", "POP is not allowed"),
        (b"(1N", "POP_MARK is not allowed"),
        (b"\x8f", "EMPTY_SET is not allowed"),
        (b"(\x91", "FROZENSET is not allowed"),
        (b"\x80\x06N", "protocol 6"),
        (b"\xff", "no opcode"),
        (b"]}b", "a list has no state"),
        (b"])\x81", "a list has no instances"),
        (b"])R", "a list cannot be called"),
        (b"cnumpy\nndarray\n)R", "ndarray is called"),
        (b"cnumpy\nndarray\n", "unfinished function"),
        (called("numpy", "dtype", body("f4"), b"\x89\x88"), "unfinished Begun"),
        (b"]q\x00h\x00a", "contains itself"),
        (b"}q\x00Nh\x00s", "a key has|contains itself|keys must be"),
        (b"}q\x00U\x01ah\x00s", "contains itself"),
        (b"}Ns", "too short"),
        (b"}(Nu", "a key has no value"),
        (b"(\x88d", "a key has no value"),
        (b"NNa", "items for a NoneType"),
        (b"NNNs", "keys for a NoneType"),
        (b"h\x07", "memo entry 7 is not there"),
        (b"Nr\xff\xff\xff\xff", "out of range"),
        (b"Np-1\n", "out of range"),
        (b"Ng99999999999999999999\n", "is not there"),
        (b"t", "IndexError"),
        (b"", "IndexError"),
        (b"NNR", "arguments are not a tuple"),
        (b"\x80\x04NN\x93", "not a string"),
        (b"I" + b"9" * 5000 + b"\n", "digits"),
        (
            b"\x8b" + (10**9).to_bytes(4, "little") + b"\1",
            "not enough data",
        ),
        (b"\x8b\x20\x00\x00\x00" + b"\x7f" * 32, "integer of 255 bits"),
        (b"\x8e" + HUGE.to_bytes(8, "little") + b"x", "expected 10737418240"),
        (b"\x8e" + b"\xff" * 8 + b"x", "sys.maxsize"),
        (b"\x8d" + HUGE.to_bytes(8, "little") + b"x", "expected 10737418240"),
        (b"\x96" + HUGE.to_bytes(8, "little") + b"x", "expected 10737418240"),
        (b"T\xff\xff\xff\x7fx", "expected 2147483647"),
        (b"T\xff\xff\xff\xffx", "count < 0"),
        (b"X\x02\x00\x00\x00\xff\xfe", "can't decode"),
        (b"S'abc\n", "does not end"),
        (b"Sabc\n", "does not end"),
        (b"S'\n", "does not end"),
        (b"S'abc'", "does not end"),
        (called("_codecs", "encode", body("\u4e2d"), body("latin1")), "encode"),
        (
            called("_codecs", "encode", body("a"), body("rot13")),
            "something else",
        ),
        (called("_codecs", "encode", body("a"), dtype()), "something else"),
        (called("collections", "OrderedDict", body(["abc"])), "not a pair"),
        (called("collections", "OrderedDict", body([[(), 1]])), "keys must be"),
    ],
)
def test_other_opcodes(program, match, write):
    refused(read_pickle, write(program + b"."), match)


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (array((HUGE // 4,), body("abcd")), "comes with 4 bytes"),
        (array((2**40, 2**40), body("")), "comes with 0 bytes"),
        (array((2,), body("abcd")), "comes with 4 bytes"),
        (array((1,), body("abcdefgh")), "comes with 8 bytes"),
        (array((-1,), body("abcd")), "not a natural number"),
        (array((-1, -1), body("abcd")), "not a natural number"),
        (array((True,), body("abcd")), "not a natural number"),
        (array([1], body("abcd")), "not a tuple"),
        (array((1,) * 33, body("abcd")), "tuple of at most 32"),
        (array((0, 2**62, 2**62), body("")), "too big|maximum"),
        (array((1,), body([1])), "data is a list"),
        (array((1,), body("\u4e2dbcd")), "latin-1"),
        (array((1,), body("abcd"), body("f4")), "no dtype"),
        (array((1,), body(["a"]), dtype("O8", "|")), "not of numbers"),
        (array((1,), body("a"), dtype("S1", "|")), "not of numbers"),
        (array((1,), body("a"), dtype("V1", "|")), "not of numbers"),
        (array((1,), body("a" * 8), dtype("M8")), "not of numbers"),
        (array((1,), body("abcd"), dtype([("f", "f4")])), "not of numbers"),
        (array((1,), body("abcd"), dtype("f4,f4")), "not of numbers"),
        (array((1,), body("abcd"), dtype("f4", "x")), "byte order"),
        (array((1,), body("abcd"), dtype("f4", None)), "byte order"),
        (
            called("numpy._core.multiarray", "scalar", dtype(), body("abc")),
            "comes with 3 bytes",
        ),
        (
            called("numpy._core.multiarray", "scalar", dtype("O8"), body("a")),
            "not of numbers",
        ),
        (
            called(
                "numpy._core.numeric",
                "_frombuffer",
                body("abcd"),
                dtype(),
                body((HUGE,)),
                body("C"),
            ),
            "comes with 4 bytes",
        ),
        (
            called(
                "numpy._core.numeric",
                "_frombuffer",
                body("abcd"),
                dtype(),
                body((1,)),
                dtype(),
            ),
            "order of an array",
        ),
        (
            called(
                "numpy.core.multiarray",
                "_reconstruct",
                b"cnumpy\ndtype\n",
                body((0,)),
                body("b"),
            ),
            "not a numpy.ndarray",
        ),
    ],
)
def test_arrays_that_are_not_there(program, match, write):
    refused(read_pickle, write(program + b"."), match)


def doubled(times):
    """Opcodes of a tuple of `2 ** times` leaves."""
    return b")q\x00" + b"h\x00\x86q\x00" * times


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (doubled(30), "nested deeper"),
        (b"]" + doubled(18) + b"a" + b"h\x00a" * 5, "nested deeper"),
        (b"}" + doubled(30) + b"Ns", "keys must be .* tuple"),
        (b"(" + doubled(30) + b"\x88d", "keys must be .* tuple"),
        (b"}\x8a\x08" + b"\x00" * 7 + b"\x80" + b"Ns", "64 bits"),
        (b"}" + dtype() + b"Ns", "keys must be"),
        (b")" + b"\x85" * opcodes.MAX_DEPTH, "nested deeper"),
        (b")" + b"\x85" * 100_000, "nested deeper"),
        (b"]" * 100_000 + b"a" * 99_999, "nested deeper"),
        (b"(" * 100_000, "IndexError|nested"),
        (b"N" * opcodes.MAX_OPCODES, "more than 524288 opcodes"),
        # A dictionary of integers with one hash takes quadratic time.
        (
            b"}("
            + b"".join(body(k * (2**61 - 1)) + b"N" for k in range(20_000))
            + b"u",
            "64 bits",
        ),
        (
            b"}("
            + b"".join(body(k << 40) + b"N" for k in range(20_000))
            + b"u",
            "more than 10000 keys are integers",
        ),
    ],
)
def test_bombs(program, match, write):
    refused(read_pickle, write(program + b"."), match, 128 * MEBIBYTE)


def test_bytes_made_again_and_again(write):
    text = body("x" * MEBIBYTE)
    again = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
    made = read_pickle(write(b"(" + text + again + b"t."))
    assert made == ("x" * MEBIBYTE, b"x" * MEBIBYTE)
    program = b"(" + text + again * 100 + b"t."
    refused(read_pickle, write(program), "repeated too", 16 * MEBIBYTE)


def test_dictionaries_made_again_and_again(write):
    pairs = body([["x", 1]] * 2_000)
    again = b"ccollections\nOrderedDict\nh\x00\x85R"
    made = read_pickle(write(b"(" + pairs + again + b"t."))
    assert made[1] == {"x": 1}
    program = b"(" + pairs + again * 5_000 + b"t."
    refused(read_pickle, write(program), "repeated too", 64 * MEBIBYTE)


def test_a_legal_depth(read):
    ours = read(b")" + b"\x85" * (opcodes.MAX_DEPTH - 1) + b".")
    depth = 1
    while ours:
        ours = ours[0]
        depth += 1
    assert depth == opcodes.MAX_DEPTH


def test_errors_are_short(write):
    path = write(b"c" + b"x" * MEBIBYTE + b"\ny\n.")
    with pytest.raises(ReadError) as caught:
        read_pickle(path)
    assert len(str(caught.value)) < 1000 + len(str(path))
