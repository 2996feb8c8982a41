"""The non-local block (paper, section 3.3)."""

import collections
import math

import keras
import numpy as np
from keras import ops

from keras_nonlocal.layers.batch_norm import NORMS
from keras_nonlocal.layers.batch_norm import make_norm
from keras_nonlocal.ops import algorithms
from keras_nonlocal.ops import pairwise
from keras_nonlocal.ops import pooling
from keras_nonlocal.ops import windows

SUB_SAMPLES = ("input", "projection", None)

# Queries and keys of a clip, keys that a query sees, windows of a clip.
_Geometry = collections.namedtuple(
    "_Geometry", "channels depth width queries keys num_windows seen"
)


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class NonLocal(keras.layers.Layer):
    """Non-local block, `z_i = norm(W_z y_i) + x_i` (equation 6).

    `y_i = sum_j f(x_i, x_j) g(x_j) / C(x)` (equation 1) looks at all positions
    of its window at once. A fresh block returns its input exactly, so that it
    can be put into a trained network (section 4.1).

    The defaults are what the paper's code and its released weights use; where
    the text differs, the argument says so.

    Args:
        mode: The pairwise function: `"gaussian"`, `"embedded_gaussian"`,
            `"dot_product"` or `"concatenation"` (section 3.2).
        inter_channels: Width of theta, phi and g. Default: half the input's
            channels, at least 1.
        attention_axes: Which positions a query sees: `"spacetime"` all,
            `"space"` those of its frame, `"time"` the same place in all
            frames (table 2d). Images have no `"time"`, sequences no
            `"space"`.
        sub_sample: Max pooling of the keys: `"input"`, before phi and g (the
            code); `"projection"`, after phi and g (the text); or `None`.
            `"time"` attention never pools: it would separate i from j.
        pool_size: Window of that pooling, one number for each axis of the
            input but batch and channels. Default: `(1, 2, 2)` for clips,
            `(2, 2)` for images, `(2,)` for sequences.
        use_scale: Whether the embedded Gaussian divides the affinities by
            `sqrt(inter_channels)` (the code) or not (the text). The other
            modes have no scale.
        temporal_group: With `"spacetime"` on clips: the number of consecutive
            frames that see each other. The number of frames must be a
            multiple of it. Default: all.
        norm: What follows W_z: `"batch"`, a batch norm whose gamma starts at
            0; `"sync_batch"`, the same with statistics over all replicas;
            `"affine"`, a frozen scale and shift; `None`, nothing. In the last
            two cases W_z starts at 0.
        out_bias: Whether W_z has a bias. theta, phi and g always have one.
        kernel_initializer: Of theta, phi, g, w_f and W_z. Default: normal
            with standard deviation 0.01, as the code. One with a fixed seed
            makes theta, phi and g start equal.
        data_format: `"channels_last"` or `"channels_first"`, the layout of the
            input and the output. Default: `"channels_last"`.
        algorithm: How the operation is computed, see
            `keras_nonlocal.ops.pairwise.pairwise_sums`: `"plain"`, or without
            storing all pairs `"chunked"` and `"fused"` (both Gaussians),
            `"reassociated"` (dot product) or `"sorted"` (concatenation). The
            results are the same up to rounding. `"auto"` takes what is least
            work.
        chunk_size: Queries of a chunk, with `"chunked"`. Default: as many as
            caches hold.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        Clips `(batch, T, H, W, C)`, images `(batch, H, W, C)` or sequences
        `(batch, L, C)`. Any size but C may be unknown.

    Output shape:
        That of the input.

    Under a half precision policy, affinities, softmax and sums are float32. The
    weights of all pairs, `(N, M)`, are stored only where that is the fastest
    way.

    Example:

    >>> clip = np.random.rand(2, 4, 14, 14, 64).astype("float32")
    >>> block = NonLocal(mode="dot_product")
    >>> bool(np.all(block(clip) == clip))
    True
    """

    def __init__(
        self,
        mode="embedded_gaussian",
        inter_channels=None,
        attention_axes="spacetime",
        sub_sample="input",
        pool_size=None,
        use_scale=True,
        temporal_group=None,
        norm="batch",
        out_bias=True,
        kernel_initializer=None,
        data_format="channels_last",
        algorithm="auto",
        chunk_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _check("mode", mode, pairwise.MODES)
        _check("attention_axes", attention_axes, windows.AXES)
        _check("sub_sample", sub_sample, SUB_SAMPLES)
        _check("norm", norm, (*NORMS, None))
        _check("data_format", data_format, ("channels_last", "channels_first"))
        _check_positive("inter_channels", inter_channels)
        _check_positive("temporal_group", temporal_group)
        algorithms.check_algorithm(mode, algorithm, chunk_size)
        for size in pool_size or ():
            _check_positive("pool_size", size)
        if temporal_group is not None and attention_axes != "spacetime":
            raise ValueError(
                '`temporal_group` goes with attention_axes="spacetime". '
                f"Received: attention_axes={attention_axes!r}, "
                f"temporal_group={temporal_group}"
            )
        self.mode = mode
        self.inter_channels = inter_channels
        self.attention_axes = attention_axes
        self.sub_sample = sub_sample
        self.pool_size = None if pool_size is None else tuple(pool_size)
        self.use_scale = use_scale
        self.temporal_group = temporal_group
        self.norm = norm
        self.out_bias = out_bias
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.RandomNormal(stddev=0.01)
        )
        self.data_format = data_format
        self.algorithm = algorithm
        self.chunk_size = None if chunk_size is None else int(chunk_size)

    def build(self, input_shape):
        sizes, channels = self._split(input_shape)
        self._check_input(input_shape, sizes, channels)
        width = self.inter_channels or max(channels // 2, 1)
        is_fused = (self.mode, self.algorithm) == ("gaussian", "fused")
        if is_fused and width != channels:
            raise ValueError(
                'algorithm="fused" takes phi and g of one width: pass '
                f"inter_channels={channels}. Received: {width}"
            )
        # Its own layers are computed again with the block, or not at all.
        with keras.RematScope(mode=None):
            self._build_parts(channels, width)

    def call(self, inputs, training=None):
        return self._add(inputs, self._response(inputs), training)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """What Keras runs within `keras.RematScope`.

        All is computed again but the norm: a second run of it would move its
        statistics twice.
        """
        rematerialized = super().rematerialized_call

        def call(inputs, training=None):
            response = rematerialized(self._response, inputs)
            return self._add(inputs, response(inputs), training)

        return call

    def attention(self, inputs, query):
        """The weights `f(x_i, x_j) / C(x)` of chosen queries.

        Only the asked rows of the affinity are computed.

        Args:
            inputs: As for a call.
            query: Integers `(Q, rank - 2)`, a list or an array: a position of
                the input for each query, for clips (t, y, x).

        Returns:
            `(batch, Q, T', H', W')` for clips, `(batch, Q, H', W')` for images
            and `(batch, Q, L')` for sequences: the weight of every key, 0
            outside the query's window. The primed sizes are those after
            sub-sampling. The softmax modes sum to 1 for each query; the dot
            product is signed; dot product and concatenation do not sum to 1.

        Raises:
            ValueError: If a query is not a position of the input.

        Example:

        >>> image = np.random.rand(1, 8, 8, 16).astype("float32")
        >>> NonLocal().attention(image, [[0, 0], [3, 5]]).shape
        TensorShape([1, 2, 4, 4])
        """
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        if not self.built:
            self.build(inputs.shape)
        clip = self._as_clip(inputs)
        rank = len(inputs.shape)
        query = self._as_positions(query, self._split(inputs.shape)[0])
        _, height, width = ops.shape(clip)[1:4]
        flat = (query[:, 0] * height + query[:, 1]) * width + query[:, 2]
        theta = ops.take(windows.fold(clip), flat, axis=1)
        if self.mode != "gaussian":
            theta = _apply(self.theta, theta)
        phi, _ = self._keys(clip, rank)
        grid = ops.shape(phi)[1:4]
        mask = windows.same_window(
            query, grid, self.attention_axes, self.temporal_group
        )
        weights = pairwise.pairwise_weights(
            theta=theta,
            phi=windows.fold(phi),
            mask=mask[None],
            **self._pairwise(theta.shape[-1]),
        )
        sizes = {5: grid, 4: grid[1:], 3: grid[:1]}[rank]
        return ops.reshape(weights, (*ops.shape(weights)[:2], *sizes))

    def pool_window(self, rank):
        """The window in which keys are pooled.

        Args:
            rank: Of the input: 3, 4 or 5.

        Returns:
            A number for each axis of the input but batch and channels, or
            `None` if keys are not pooled.

        >>> NonLocal().pool_window(5)
        (1, 2, 2)
        """
        if self.sub_sample is None or self.attention_axes == "time":
            return None
        return self.pool_size or {3: (2,), 4: (2, 2), 5: (1, 2, 2)}[rank]

    def count_macs(self, input_shape):
        """Multiply-adds of one call: projections and the two products.

        Args:
            input_shape: With the batch size, all known; the batch may be
                `None` and then counts as 1.

        Returns:
            An int.
        """
        size = self._geometry(input_shape)
        embedded = 0 if self.mode == "gaussian" else 1
        is_late = self.sub_sample == "projection"
        projected = size.queries if is_late else size.keys
        projections = (
            (size.queries + projected)
            * (embedded + 1)
            * size.channels
            * size.width
        )
        pairs = size.queries * size.seen
        if self.mode == "concatenation":
            products = (size.queries + size.keys + pairs) * size.width
        else:
            products = pairs * (size.depth + size.width)
        return (input_shape[0] or 1) * (projections + products)

    def count_memory(self, input_shape, itemsize):
        """Bytes of tensors inside the block, for `memory_plan`.

        Args:
            input_shape: With the batch size, all known.
            itemsize: Bytes of a number in the dtype of the computation.

        Returns:
            Three ints: what the block keeps for its gradient beside its input,
            what a call takes at its largest moment, and what the gradient
            takes.
        """
        size, batch = self._geometry(input_shape), input_shape[0]
        wide = max(itemsize, 4)  # The operation itself is float32.
        queries, keys = batch * size.queries, batch * size.keys
        x, y = queries * size.channels * itemsize, queries * size.width * wide
        operands = (queries + keys) * size.depth * wide
        operands += keys * size.width * wide
        pooled = 0
        if self.pool_window(len(input_shape)) is not None:
            pooled = keys * size.channels * itemsize
            if self.sub_sample == "projection":
                pooled = queries * (size.depth + size.width) * itemsize
        kept, work, change = self._count_algorithm(size, batch, wide)
        has_norm = self.norm in ("batch", "sync_batch")
        y_out = queries * size.width * itemsize
        return (
            pooled + operands + kept + y_out + has_norm * x,
            max(
                pooled + operands,
                operands + work + y,
                y_out + x * (1 + has_norm),
            ),
            max(x + y, operands + y + change * work, operands + 2 * x),
        )

    def compute_output_shape(self, input_shape):
        sizes, channels = self._split(input_shape)
        self._check_input(input_shape, sizes, channels)
        pool = self.pool_window(len(input_shape))
        if pool is not None:
            pooling.check_fits(sizes, pool)
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mode": self.mode,
            "inter_channels": self.inter_channels,
            "attention_axes": self.attention_axes,
            "sub_sample": self.sub_sample,
            "pool_size": self.pool_size,
            "use_scale": self.use_scale,
            "temporal_group": self.temporal_group,
            "norm": self.norm,
            "out_bias": self.out_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "data_format": self.data_format,
            "algorithm": self.algorithm,
            "chunk_size": self.chunk_size,
        }

    def _build_parts(self, channels, width):
        if self.mode != "gaussian":
            self.theta = self._projection("theta", channels, width)
            self.phi = self._projection("phi", channels, width)
        self.g = self._projection("g", channels, width)
        if self.mode == "concatenation":
            self.w_f = self.add_weight(
                name="w_f",
                autocast=False,  # It multiplies in float32.
                shape=(2 * width, 1),
                initializer=self._initializer(),
            )
        starts_at_zero = self.norm in ("affine", None)
        self.out = self._projection(
            "out",
            width,
            channels,
            use_bias=self.out_bias,
            kernel_initializer="zeros" if starts_at_zero else None,
        )
        if self.norm is not None:
            self.out_norm = make_norm(
                self.norm,
                gamma_initializer="zeros",
                name="norm",
                dtype=self.dtype_policy,
            )
            self.out_norm.build((None, None, None, None, channels))

    def _response(self, inputs):
        """`W_z y`, `(batch, T, H, W, C)`."""
        clip = self._as_clip(inputs)
        phi, g = self._keys(clip, len(inputs.shape))
        theta = clip if self.mode == "gaussian" else _apply(self.theta, clip)
        y = pairwise.pairwise_sums(
            theta=self._fold(theta),
            phi=self._fold(phi),
            g=self._fold(g),
            algorithm=self.algorithm,
            chunk_size=self.chunk_size,
            **self._pairwise(theta.shape[-1]),
        )
        y = windows.unfold(y, ops.shape(clip)[:-1], self.attention_axes)
        return _apply(self.out, ops.cast(y, self.compute_dtype))

    def _add(self, inputs, z, training):
        if self.norm is not None:
            z = self.out_norm(z, training=training)
        return inputs + self._from_clip(z, len(inputs.shape))

    def _split(self, shape):
        """Sizes of the positions and the number of channels of an input."""
        if len(shape) not in (3, 4, 5):
            raise ValueError(
                "NonLocal takes sequences (rank 3), images (rank 4) or clips "
                f"(rank 5). Received: input shape {tuple(shape)}"
            )
        if self.data_format == "channels_first":
            return tuple(shape[2:]), shape[1]
        return tuple(shape[1:-1]), shape[-1]

    def _check_input(self, shape, sizes, channels):
        rank = len(shape)
        axis = {3: "time", 4: "space"}.get(rank, self.attention_axes)
        problem = None
        if channels is None:
            problem = "the number of channels must be known"
        elif self.attention_axes not in ("spacetime", axis):
            problem = f"attention_axes={self.attention_axes!r} has no such axis"
        elif self.temporal_group and rank != 5:
            problem = "`temporal_group` is for clips"
        elif self.temporal_group and (sizes[0] or 0) % self.temporal_group:
            problem = (
                f"{sizes[0]} frames are not a multiple of "
                f"temporal_group={self.temporal_group}"
            )
        elif self.pool_size and len(self.pool_size) != rank - 2:
            problem = f"pool_size={self.pool_size} must have {rank - 2} numbers"
        elif self._pools_across_windows(rank):
            problem = (
                f"pool_size={self.pool_size} pools over frames that do not see "
                "each other"
            )
        if problem:
            raise ValueError(
                f"NonLocal on input shape {tuple(shape)}: {problem}"
            )

    def _pools_across_windows(self, rank):
        pool = self.pool_window(rank)
        is_limited = self.attention_axes == "space" or self.temporal_group
        return rank == 5 and pool and pool[0] > 1 and bool(is_limited)

    def _geometry(self, input_shape):
        """Numbers of positions and channels of a clip."""
        sizes, channels = self._split(input_shape)
        width = self.inter_channels or max(channels // 2, 1)
        pool = self.pool_window(len(input_shape)) or (1,) * len(sizes)
        keys = math.prod(
            size // factor for size, factor in zip(sizes, pool, strict=True)
        )
        num_windows = self._num_windows(sizes)
        return _Geometry(
            channels=channels,
            depth=channels if self.mode == "gaussian" else width,
            width=width,
            queries=math.prod(sizes),
            keys=keys,
            num_windows=num_windows,
            seen=keys // num_windows,
        )

    def _count_algorithm(self, size, batch, itemsize):
        """Bytes kept, bytes of work, and how often the gradient takes these."""
        num_windows = batch * size.num_windows
        in_window = size.queries // size.num_windows
        algorithm = self.algorithm
        if algorithm == "auto":
            algorithm, _ = algorithms.choose(
                self.mode, in_window, size.seen, size.depth, size.width
            )
        if algorithm == "chunked":
            chunk = self.chunk_size or algorithms.default_chunk(
                in_window, size.seen
            )
            return 0, num_windows * chunk * size.seen * itemsize, 3
        if algorithm == "reassociated":
            work = num_windows * size.depth * size.width * itemsize
            return work, work, 1
        if algorithm == "sorted":
            rows = batch * (size.queries + size.keys)
            return 0, 2 * rows * size.width * itemsize, 2
        pairs = batch * size.queries * size.seen * itemsize
        return pairs * (1 + (self.mode == "concatenation")), pairs, 2

    def _num_windows(self, sizes):
        if self.attention_axes == "time" and len(sizes) == 3:
            return sizes[1] * sizes[2]
        if self.attention_axes == "space" and len(sizes) == 3:
            return sizes[0]
        return sizes[0] // self.temporal_group if self.temporal_group else 1

    def _initializer(self):
        # One instance gives the same values at every use: theta and phi would
        # start equal. A plain function has no state to copy.
        clone = getattr(self.kernel_initializer, "clone", None)
        return clone() if clone else self.kernel_initializer

    def _projection(
        self, name, channels, width, use_bias=True, kernel_initializer=None
    ):
        """A 1x1x1 convolution; on channels-last positions that is a Dense."""
        layer = keras.layers.Dense(
            width,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer or self._initializer(),
            name=name,
            dtype=self.dtype_policy,
        )
        layer.build((None, channels))
        return layer

    def _as_clip(self, x):
        """`(batch, T, H, W, C)` from an input of any rank and layout."""
        if self.data_format == "channels_first":
            x = ops.moveaxis(x, 1, -1)
        rank = len(x.shape)
        if rank == 4:
            return ops.expand_dims(x, 1)
        return ops.expand_dims(x, (2, 3)) if rank == 3 else x

    def _from_clip(self, z, rank):
        if rank == 4:
            z = z[:, 0]
        elif rank == 3:
            z = z[:, :, 0, 0]
        if self.data_format == "channels_first":
            z = ops.moveaxis(z, -1, 1)
        return z

    def _as_positions(self, query, sizes):
        """Integers `(Q, 3)` from positions of an input of any rank."""
        query = np.asarray(query)
        if (
            query.ndim != 2
            or query.shape[1] != len(sizes)
            or not np.issubdtype(query.dtype, np.integer)
        ):
            raise ValueError(
                f"`query` must be (Q, {len(sizes)}) integers. Received: "
                f"shape {query.shape}, dtype {query.dtype}"
            )
        ends = [np.inf if size is None else size for size in sizes]
        outside = np.any((query < 0) | (query >= ends), axis=1)
        if np.any(outside):
            raise ValueError(
                f"`query` must be positions of an input of size {sizes}. "
                f"Received: {query[outside].tolist()}"
            )
        before, after = {3: (0, 0), 2: (1, 0), 1: (0, 2)}[len(sizes)]
        query = np.pad(query, ((0, 0), (before, after)))
        return ops.convert_to_tensor(query, "int32")

    def _keys(self, clip, rank):
        """Phi and g of the keys; in Gaussian mode phi is the clip itself."""
        pool = self.pool_window(rank)
        if pool is not None:
            pool = {3: (*pool, 1, 1), 4: (1, *pool), 5: pool}[rank]
        if pool is not None and self.sub_sample == "input":
            clip, pool = pooling.max_pool(clip, pool), None
        g = _apply(self.g, clip)
        phi = clip if self.mode == "gaussian" else _apply(self.phi, clip)
        if pool is not None:
            phi, g = pooling.max_pool(phi, pool), pooling.max_pool(g, pool)
        return phi, g

    def _pairwise(self, depth):
        """What the pairwise function takes beside its tensors."""
        is_scaled = self.use_scale and self.mode == "embedded_gaussian"
        return {
            "mode": self.mode,
            "scale": depth**-0.5 if is_scaled else 1.0,
            "w_f": self.w_f if self.mode == "concatenation" else None,
        }

    def _fold(self, x):
        return windows.fold(x, self.attention_axes, self.temporal_group)


def _apply(dense, x):
    """A Dense on `(..., channels)` as one matrix product."""
    shape = ops.shape(x)
    y = dense(ops.reshape(x, (-1, shape[-1])))
    return ops.reshape(y, (*shape[:-1], y.shape[-1]))


def _check(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {allowed}. Received: {value!r}"
        )


def _check_positive(name, value):
    if value is not None and (int(value) != value or value < 1):
        raise ValueError(
            f"`{name}` must be a positive integer or None. Received: {value!r}"
        )
