"""Mean average precision while a network trains."""

from typing import Any

import keras
from keras import ops

# Logits beyond these are taken for these.
# In place of 0 in a quotient: weights may be less than 1.
_TINY = 1e-9
_RANGE = 16.0


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class BinnedMeanAveragePrecision(keras.metrics.Metric):
    """`mean_average_precision` of scores that are rounded to bins.

    The exact figure needs the scores of all videos at once. This one counts,
    for each class, the videos in `num_bins` equal parts of the logits from -16
    to 16; those of the same part are taken for equal scores. Counts of several
    batches and devices add up, so that it is the same for any of them. With the
    default it is within some thousandths of the exact figure.

    Unlike `keras.metrics.AUC(curve="PR")` it leaves out classes that do not
    occur, and tells apart the low probabilities of rare classes. A score that
    is NaN ranks last.

    Args:
        num_classes: Number of classes.
        from_logits: Whether predictions are logits; probabilities if not.
        num_bins: Parts that the logits are divided into.
        name: In the logs.
        dtype: Of the counts and the result.

    Example:

    >>> metric = BinnedMeanAveragePrecision(2)
    >>> metric.update_state([[0.0, 1.0], [0.0, 0.0]], [[0.5, 0.3], [0.5, 0.4]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        num_classes: int,
        from_logits: bool = False,
        num_bins: int = 2048,
        name: str = "binned_map",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        for argument, value in (
            ("num_classes", num_classes),
            ("num_bins", num_bins),
        ):
            if value < 1:
                raise ValueError(
                    f"`{argument}` must be positive. "
                    f"Received: {argument}={value}"
                )
        self.num_classes = num_classes
        self.from_logits = from_logits
        self.num_bins = num_bins
        # Videos without the class and with it.
        self.counts = self.add_variable(
            (2, num_bins, num_classes), "zeros", name="counts"
        )

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        """Counts a batch.

        Args:
            y_true: Zeros and ones of shape `(batch, num_classes)`; of mixed
                labels, more than 0.5 is taken for 1.
            y_pred: Scores of the same shape.
            sample_weight: How often each video counts, of shape `(batch,)`;
                `None` for once.
        """
        y_pred = ops.cast(y_pred, "float32")
        if y_pred.shape[-1] != self.num_classes or len(y_pred.shape) != 2:
            raise ValueError(
                f"`y_pred` must have shape (batch, {self.num_classes}). "
                f"Received: shape {tuple(y_pred.shape)}"
            )
        positive = ops.cast(ops.cast(y_true, "float32") > 0.5, "int32")
        cells = (
            positive * self.num_bins + self._bins(y_pred)
        ) * self.num_classes + ops.arange(self.num_classes, dtype="int32")
        weights = ops.ones_like(cells, dtype=self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            weights = weights * ops.reshape(sample_weight, (-1, 1))
        counts = ops.segment_sum(
            ops.reshape(weights, (-1,)),
            ops.reshape(cells, (-1,)),
            num_segments=2 * self.num_bins * self.num_classes,
        )
        self.counts.assign_add(ops.reshape(counts, self.counts.shape))

    def _bins(self, scores: Any) -> Any:
        if not self.from_logits:
            scores = ops.clip(scores, 0.0, 1.0)
            scores = ops.log(scores) - ops.log1p(-scores)
        scores = ops.where(ops.isnan(scores), -_RANGE, scores)
        share = (ops.clip(scores, -_RANGE, _RANGE) + _RANGE) / (2 * _RANGE)
        bins = ops.cast(share * self.num_bins, "int32")
        return ops.minimum(bins, self.num_bins - 1)

    def result(self) -> Any:
        """The mean over the classes that occurred; NaN if none has."""
        counts = ops.flip(ops.convert_to_tensor(self.counts), axis=1)
        positive = counts[1]
        found = ops.cumsum(positive, axis=0)
        ranked = ops.cumsum(ops.sum(counts, axis=0), axis=0)
        precision = found / ops.maximum(ranked, _TINY)
        total = found[-1]
        sums = ops.sum(precision * positive, axis=0)
        values = sums / ops.maximum(total, _TINY)
        # The values of classes that do not occur are zero.
        occur = ops.cast(total > 0, values.dtype)
        return ops.sum(values) / ops.sum(occur)

    def get_config(self) -> dict:
        """What the metric is made of."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "from_logits": self.from_logits,
            "num_bins": self.num_bins,
        }
