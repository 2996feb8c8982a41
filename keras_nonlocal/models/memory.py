"""Predicting the memory that a network takes on TensorFlow."""

import dataclasses
import numbers

import keras

from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.liveness import Step
from keras_nonlocal.models.liveness import weight_bytes
from keras_nonlocal.models.rematerialization import Recomputed

# Beyond this, a budget holds any batch one could want.
_MOST_CLIPS = 2**20


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Predicted memory of a network at the largest moment of a step.

    All figures are bytes.

    Attributes:
        title: What was planned.
        batch: Number of clips.
        weights: Of the network, with moving statistics.
        optimizer: What the optimizer keeps, for each weight, between steps.
        gradients: Of the weights, those that exist at the largest moment.
        kept: Activations kept for the backward pass, at the largest moment.
        transient: All else at that moment: activations about to be used,
            gradients of activations, half precision copies of weights.
        largest: Layers that account for most of `kept` and `transient`, and
            how much.
        assumed: Layers of unknown kinds, of which it is assumed that they keep
            their inputs and outputs and nothing else.
        budget: What `largest_batch` has to fit in, or `None`.
        largest_batch: The largest batch that fits, or `None` without budget.
    """

    title: str
    batch: int
    weights: int
    optimizer: int
    gradients: int
    kept: int
    transient: int
    largest: tuple[tuple[str, int], ...]
    assumed: tuple[str, ...] = ()
    budget: int | None = None
    largest_batch: int | None = None

    @property
    def step(self) -> int:
        """What a step takes beyond weights and optimizer, at most."""
        return self.gradients + self.kept + self.transient

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.step

    def __str__(self) -> str:
        rows = [
            ("weights", _megabytes(self.weights)),
            ("optimizer", _megabytes(self.optimizer)),
            ("gradients of weights", _megabytes(self.gradients)),
            ("kept for the backward pass", _megabytes(self.kept)),
            ("largest transient", _megabytes(self.transient)),
            ("total", _megabytes(self.total)),
        ]
        if self.budget is not None:
            label = f"largest batch in {_megabytes(self.budget).strip()}"
            rows.append((label, f"{self.largest_batch:>9}"))
        lines = [self.title, *(f"  {a:<34}{b}" for a, b in rows)]
        lines.append("  of which, at the largest moment")
        lines += [f"    {n:<32}{_megabytes(size)}" for n, size in self.largest]
        if self.assumed:
            lines.append(f"  assumed: {', '.join(self.assumed)}")
        return "\n".join(lines)


def memory_plan(
    model,
    batch,
    frames,
    size,
    dtype=None,
    training=False,
    budget=None,
    rematerialize=None,
):
    """Predicts the peak memory of a call or of a training step.

    Follows the tensors of the graph from where they are computed to where they
    are last used, on TensorFlow without XLA. Counted are the activations, what
    each layer keeps for the backward pass, the gradients, and in half
    precision the copies of all weights, which TensorFlow makes at the
    beginning. The gradients of the weights are taken to stay until the end of
    the step. `step` is what this predicts; the processes of
    `benchmarks/results/memory_plan.json` needed within 25 % of it.

    Not counted are the libraries, the scratch of single kernels and what an
    allocator holds back: TensorFlow's own takes memory in growing portions and
    does not return it (`TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1` on a CPU does
    without it).

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential` with
            one input, which calls each layer once and holds no other model.
            Another package's layer takes part by a method
            `count_memory(input_shape, itemsize)`, which gives three numbers of
            bytes: what it keeps inside for the backward pass, and what a call
            and its gradient take while they run.
        batch: Number of clips.
        frames: Of a clip; `None` for images.
        size: Height and width in pixels, an int or a pair.
        dtype: A dtype policy to plan for, for example `"mixed_bfloat16"`.
            Default: the model's own.
        training: Whether to plan a training step, with the optimizer that the
            model is compiled with. If it is not compiled: with SGD with
            momentum, as `train`.
        budget: Bytes to find the largest batch for.
        rematerialize: The `units` of `rematerialize`, if the model is trained
            so.

    Returns:
        A `MemoryPlan`, whose `print` is a table.

    Raises:
        ValueError: If an argument is not as described.

    Example:

    >>> inputs = keras.Input((None, None, 3))
    >>> outputs = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    >>> plan = memory_plan(keras.Model(inputs, outputs), 2, None, 10)
    >>> plan.weights, plan.step == 2 * 10 * 10 * (3 + 4) * 4
    (448, True)
    """
    _check_positive("batch", batch)
    if budget is not None:
        _check_positive("budget", budget)
    graph = _graph(model)
    shape = _clip_shape(graph, frames, size)
    compute_dtype = keras.DTypePolicy(dtype).compute_dtype if dtype else None
    step = Step(
        graph,
        shape,
        compute_dtype,
        training,
        units=rematerialize,
        momentum=training and _multiplies_first(model),
    )
    optimizer = _slots(model) if training else 0
    weights = sum(weight_bytes(weight) for weight in graph.weights)
    plan = MemoryPlan(
        title=_title(graph, batch, shape, dtype, training, rematerialize),
        batch=batch,
        weights=weights,
        optimizer=optimizer,
        **step.run(batch),
    )
    if budget is None:
        return plan
    available = budget - weights - optimizer
    fits = _largest(lambda number: step.peak(number) <= available)
    return dataclasses.replace(plan, budget=budget, largest_batch=fits)


def _check_positive(name, value):
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {value!r}"
        )


def _graph(model):
    graph = functional_graph(model)
    if graph is None or len(graph.inputs) != 1:
        raise ValueError(
            "`model` must be a functional model, or a built Sequential, with "
            f"one input. Received: {model!r}"
        )
    for layer in graph.layers:
        if isinstance(layer, Recomputed):
            raise ValueError(
                "Plan the model that was rematerialized, with "
                "`rematerialize=...`. Received: a model holding "
                f"{layer.name!r}"
            )
        if isinstance(layer, keras.Model):
            raise ValueError(
                "`model` must be flat; plan nested models by themselves. "
                f"Received: a model holding the model {layer.name!r}"
            )
    return graph


def _clip_shape(graph, frames, size):
    sides = (size, size) if isinstance(size, numbers.Integral) else tuple(size)
    sizes = sides if frames is None else (frames, *sides)
    for value in sizes:
        _check_positive("frames` and `size", value)
    expected = graph.inputs[0].shape
    shape = (*sizes, expected[-1])
    if len(expected) != len(shape) + 1 or any(
        known not in (None, given)
        for known, given in zip(expected[1:], shape, strict=True)
    ):
        raise ValueError(
            f"The model takes inputs of shape {tuple(expected)}. Received: "
            f"frames={frames}, size={size}"
        )
    return shape


def _title(graph, batch, shape, dtype, training, rematerialize):
    kind = "a training step" if training else "a call"
    if rematerialize:
        kind += f" with {rematerialize} computed again"
    sizes = " x ".join(str(size) for size in (batch, *shape))
    return f"Memory of {kind} of {graph.name}, {sizes}, {dtype or 'own dtypes'}"


def _megabytes(size):
    return f"{size / 1e6:9.1f} MB"


def _slots(model):
    """Bytes that the optimizer keeps for the weights."""
    trainable = sum(weight_bytes(weight) for weight in model.trainable_weights)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return trainable
    probe = keras.Variable(keras.ops.zeros((7, 11)))
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build([probe])
    slots = [slot for slot in copy.variables if slot.shape == probe.shape]
    return len(slots) * trainable


def _multiplies_first(model):
    """Whether momentum times velocity exists from the beginning of a step.

    In a graph nothing keeps Keras's SGD from computing it there.
    """
    optimizer = getattr(model, "optimizer", None)
    update = getattr(type(optimizer), "update_step", None)
    is_keras_sgd = update is keras.optimizers.SGD.update_step
    return is_keras_sgd and getattr(optimizer, "momentum", 0.0) > 0


def _largest(fits):
    """The largest number that fits, where each smaller one does."""
    high = 1
    while fits(high) and high < _MOST_CLIPS:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
