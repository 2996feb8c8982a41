"""Layers of keras-cv whose random numbers come from a given seed.

They draw from a `tf.random.Generator` of their own and from samplers of
factors, both of which have a state. Here a copy of the layer gets stand-ins for
both. Nothing else is changed: what draws in yet another way still does.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_seeds: contextvars.ContextVar[Iterator[tf.Tensor]] = contextvars.ContextVar(
    "seeds"
)


def is_keras_cv(layer: keras.Layer) -> bool:
    """Whether the layer, or what it derives from, is one of keras-cv."""
    return any(
        parent.__module__.split(".")[0] == "keras_cv"
        for parent in type(layer).__mro__
    )


def seeded_copy(layer: keras.Layer) -> keras.Layer:
    """A copy of a keras-cv layer that draws within `drawing_from` only."""
    copy = type(layer).from_config(layer.get_config())
    _replace_generators(copy, set())
    return copy


@contextlib.contextmanager
def drawing_from(seed: tf.Tensor) -> Iterator[None]:
    """Begins the random numbers of seeded copies anew, from `seed`."""
    seeds = (tf.random.fold_in(seed, i) for i in itertools.count())
    token = _seeds.set(seeds)
    try:
        yield
    finally:
        _seeds.reset(token)


class _Generator:
    """In place of a `tf.random.Generator`."""

    def uniform(
        self,
        shape: Any,
        minval: Any = 0,
        maxval: Any = None,
        dtype: Any = tf.float32,
    ) -> tf.Tensor:
        return tf.random.stateless_uniform(
            shape, next(_seeds.get()), minval, maxval, dtype
        )

    def normal(
        self,
        shape: Any,
        mean: Any = 0.0,
        stddev: Any = 1.0,
        dtype: Any = tf.float32,
    ) -> tf.Tensor:
        return tf.random.stateless_normal(
            shape, next(_seeds.get()), mean, stddev, dtype
        )


class _UniformSampler:
    """In place of keras-cv's `UniformFactorSampler`."""

    def __init__(self, sampler: Any) -> None:
        self._range = sampler.lower, sampler.upper

    def __call__(self, shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        return _Generator().uniform(shape, *self._range, dtype)


class _NormalSampler:
    """In place of keras-cv's `NormalFactorSampler`."""

    def __init__(self, sampler: Any) -> None:
        self._moments = sampler.mean, sampler.stddev
        self._range = sampler.min_value, sampler.max_value

    def __call__(self, shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        values = _Generator().normal(shape, *self._moments, dtype)
        return tf.clip_by_value(values, *self._range)


def _replace_generators(part: Any, seen: set[int]) -> None:
    """Replaces what draws in a layer and in the layers that it has."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, list | tuple):
        for value in part:
            _replace_generators(value, seen)
    elif isinstance(part, keras.Layer):
        for name, value in list(vars(part).items()):
            seeded = _seeded(value)
            if seeded is None:
                _replace_generators(value, seen)
            else:
                setattr(part, name, seeded)


def _seeded(value: Any) -> Any:
    from keras_cv import core

    if isinstance(value, tf.random.Generator):
        return _Generator()
    if isinstance(value, core.UniformFactorSampler):
        return _UniformSampler(value)
    if isinstance(value, core.NormalFactorSampler):
        return _NormalSampler(value)
    return None
