"""Losses on one device and on two replicas; run by test_losses.py."""

import json

import tensorflow as tf

from keras_nonlocal.detection import replicas
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.detection import loss_case

VARIANT = DETECTOR_VARIANTS["mask_rcnn_r50_paper"]
# Images of each replica.
PARTS = (3, 1)


def run(case):
    """What Keras does in a step: values of metrics, and gradients."""
    heads, *targets = tf.nest.map_structure(tf.convert_to_tensor, case)
    heads = list(heads.values())
    with tf.GradientTape() as tape:
        tape.watch(heads)
        losses = loss_case.losses(heads, *targets, VARIANT)
        shared = replicas.share(sum(losses))
    return losses, tape.gradient(shared, heads)


def part(case, context):
    replica = context.replica_id_in_sync_group
    first = sum(PARTS[:replica])
    return tf.nest.map_structure(
        lambda x: x[first : first + PARTS[replica]], case
    )


def flat(gradients):
    return tf.concat([tf.reshape(x, [-1]) for x in gradients], 0)


def main():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    case = loss_case.make()
    one, of_one = run(case)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: part(case, context)
    )
    two, of_two = strategy.run(tf.function(run), (values,))
    # Keras takes the mean of metrics.
    two = [strategy.reduce("MEAN", loss, axis=None) for loss in two]
    per_output = [strategy.experimental_local_results(x) for x in of_two]
    found = {
        "one": [float(x) for x in one],
        "two": [float(x) for x in two],
        "gradients_of_one": flat(of_one).numpy().tolist(),
        "gradients_of_two": flat([tf.concat(parts, 0) for parts in per_output])
        .numpy()
        .tolist(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
