"""Convolutions of clips `(batch, T, H, W, channels)`, through 2-D views.

A kernel that reaches over space alone is a 2-D kernel on frames; one that
reaches over time alone is a 2-D kernel on pictures of T rows and H * W columns.
Kernels keep the numbers and the shape of the 3-D form.
"""

from keras import backend
from keras import config
from keras import distribution
from keras import ops


def choose_lowering(kernel_size, x):
    """The faster form of a convolution of `x`, here and now.

    Kernels that reach over space and time, such as (5, 7, 7), stay 3-D. The
    others:

    | backend    | device | dtype    | form                      |
    | ---------- | ------ | -------- | ------------------------- |
    | TensorFlow | CPU    | bfloat16 | 2-D                       |
    | JAX        | CPU    | float32  | 2-D                       |
    | PyTorch    | CPU    | float32  | 2-D                       |
    | these      | CPU    | others   | 3-D                       |
    | any        | others | any      | 3-D; 2-D was not measured |

    How many times faster the 2-D form of the whole non-local I3D ResNet-50 is,
    8 x 224 x 224, batch 1, by the median of CPU time on two cores without AMX
    that did other work too (PyTorch on one of them):

    | backend, dtype       | inference | training |
    | -------------------- | --------- | -------- |
    | TensorFlow, float32  | 1.00      | 0.91     |
    | TensorFlow, bfloat16 | 1.02      | 1.03     |
    | the same, frozen     | 0.93      |          |
    | JAX, float32         | 1.31      | 1.27     |
    | JAX, bfloat16        | 0.99      | -        |
    | PyTorch, float32     | 1.27      | 1.39     |
    | PyTorch, bfloat16    | 0.98      | -        |

    "Frozen": as `export_saved_model(frozen=True)` writes it; TensorFlow then
    fuses the 3-D form, and not the 2-D one, with the sum that follows it. On a
    CPU with AMX, TensorFlow's inference gave 0.94 in float32, 1.07 in bfloat16
    and 1.14 in bfloat16 with folded norms. Other dtypes were not measured.

    Args:
        kernel_size: `(t, h, w)`.
        x: What is to be convolved, in the dtype of the computation.

    Returns:
        `"conv3d"` or `"conv2d"`.

    Example:

    >>> choose_lowering((5, 7, 7), keras.ops.zeros((1, 8, 14, 14, 3)))
    'conv3d'
    """
    pays = "bfloat16" if config.backend() == "tensorflow" else "float32"
    is_2d = (
        has_2d_view(kernel_size)
        and backend.standardize_dtype(x.dtype) == pays
        and _is_on_cpu(x)
    )
    return "conv2d" if is_2d else "conv3d"


def _is_on_cpu(x):
    # In a graph a tensor has no device yet: the machine must be without others.
    if config.backend() == "torch":
        return x.device.type == "cpu"
    return all(name.startswith("cpu") for name in distribution.list_devices())


def has_2d_view(kernel_size):
    """Whether a kernel `(t, h, w)` reaches over space or time alone.

    Example:

    >>> has_2d_view((3, 1, 1)), has_2d_view((5, 7, 7))
    (True, False)
    """
    frames, height, width = kernel_size
    return frames == 1 or height == width == 1


def convolve(
    x, kernel, strides=(1, 1, 1), padding="valid", bias=None, activation=None
):
    """A 3-D convolution whose kernel has a 2-D view, as a 2-D one.

    Bias and activation are applied inside the view, where TensorFlow fuses
    them with the convolution.

    Args:
        x: `(batch, T, H, W, channels)`; any size but the channels may be
            unknown.
        kernel: `(t, h, w, channels, filters)`, with t = 1 or h = w = 1.
        strides: `(t, h, w)`.
        padding: `"valid"`, none, or `"same"`, TensorFlow's rule.
        bias: `(filters,)` or `None`.
        activation: A function of a tensor, or `None`.

    Returns:
        `(batch, T', H', W', filters)`.

    Raises:
        ValueError: If the kernel reaches over space and time.

    Example:

    >>> clip = np.ones((1, 8, 14, 14, 4), "float32")
    >>> kernel = np.ones((3, 1, 1, 4, 6), "float32")
    >>> convolve(clip, kernel, padding="same").shape
    TensorShape([1, 8, 14, 14, 6])
    """
    if not has_2d_view(kernel.shape[:3]):
        raise ValueError(
            "`kernel` must reach over space or time alone, (1, h, w, ...) or "
            f"(t, 1, 1, ...). Received: shape {tuple(kernel.shape)}"
        )
    if kernel.shape[0] == 1:
        # Positions that a kernel of extent 1 strides over go unseen.
        x = x[:, :: strides[0]] if strides[0] > 1 else x
        batch, frames, height, width, channels = ops.shape(x)
        x = ops.reshape(x, (batch * frames, height, width, channels))
        y = _conv(x, kernel[0], tuple(strides[1:]), padding)
        y = _finish(y, bias, activation)
        return ops.reshape(y, (batch, frames, *ops.shape(y)[1:]))
    if max(strides[1:]) > 1:
        x = x[:, :, :: strides[1], :: strides[2]]
    batch, frames, height, width, channels = ops.shape(x)
    x = ops.reshape(x, (batch, frames, height * width, channels))
    y = _conv(x, kernel[:, 0], (strides[0], 1), padding)
    y = _finish(y, bias, activation)
    _, frames, _, filters = ops.shape(y)
    return ops.reshape(y, (batch, frames, height, width, filters))


def _conv(x, kernel, strides, padding):
    return ops.conv(x, kernel, strides, padding, data_format="channels_last")


def _finish(y, bias, activation):
    if bias is not None:
        y = ops.add(y, bias)
    return y if activation is None else activation(y)
