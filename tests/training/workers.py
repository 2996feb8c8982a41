"""One of two workers of TensorFlow; run by test_distribution.py."""

import json
import os
import pathlib
import sys

import tensorflow as tf

from keras_nonlocal.training.distribution import find_devices


def main(addresses, index, out):
    cluster = {"worker": addresses}
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    messages = [refusal(tf.distribute.MultiWorkerMirroredStrategy())]
    messages.append(refusal(None))
    pathlib.Path(out, f"worker{index}.json").write_text(json.dumps(messages))


def refusal(strategy):
    try:
        find_devices(strategy)
    except ValueError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3])
