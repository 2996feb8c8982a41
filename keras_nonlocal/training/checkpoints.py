"""The state of a training run on disk, to go on from exactly there."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import RunConfig
from keras_nonlocal.training.config import TrainConfig

_NAME = "state-{:06}.npz"
_PATTERN = re.compile(r"state-(\d{6,9})\.npz(\.\d+\.part)?")
# The last state and the one before it.
_KEPT = 2
_ABOUT = "about.json"
_LARGEST_ABOUT = 2**26
# What the results do not depend on.
_FREE = ("num_workers", "max_skipped", "tensorboard")
# What reading a file raises that is not as it was written.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


_Variables = Sequence[tuple[keras.Variable, Any]]


class OtherSettingsError(ValueError):
    """A run was begun with other settings than it would go on with."""


def run_settings(
    config: TrainConfig,
    network: Variant,
    train_videos: VideoList,
    test_videos: VideoList,
) -> dict[str, Any]:
    """What the results of a training run depend on, as JSON has it.

    Of the videos that is their number and a hash of all that the lists say:
    the paths below the folder that all have in common, so that this may move,
    and the labels; what is in the files is not read.

    Args:
        config: Settings.
        network: The network.
        train_videos: Videos to train on.
        test_videos: Videos to test on.
    """
    return settings_of(
        config,
        network,
        train_videos=_fingerprint(train_videos),
        test_videos=_fingerprint(test_videos),
    )


def settings_of(config: RunConfig, network: Any, **data: str) -> dict[str, Any]:
    """What the results of a training run depend on, as JSON has it.

    Args:
        config: Settings.
        network: The network, a dataclass.
        **data: Fingerprints of what it is trained and tested on.

    >>> from keras_nonlocal import Variant
    >>> settings = settings_of(RunConfig(), Variant(), train_data="sha256 ...")
    >>> list(settings)
    ['config', 'network', 'train_data', 'backend']
    """
    settings = {
        "config": dataclasses.asdict(config),
        "network": dataclasses.asdict(network),
        **data,
        "backend": keras.backend.backend(),
    }
    return json.loads(json.dumps(settings))


class RunState(keras.callbacks.Callback):
    """Saves after every epoch of `fit` all that training depends on.

    That is: the weights, also those that are not trained; what the optimizer
    keeps (its step, velocities, averages, the scale of the loss); the states of
    dropout's random numbers; the epoch and the history. A run that was killed
    and goes on from there, with a data set that begins at the same step, has
    the losses and weights of one that was not: the same to the last bit where
    the operations are deterministic.

    A state is written to a temporary file that then takes its place; the last
    two are kept. One that is damaged, as its checksums tell, is passed over
    with a warning. There is no pickle in it, and nothing is read that the model
    has no room for.

    Training that does not begin with `restore` begins anew: the states of an
    earlier run in the folder are removed.

    Adds `learning_rate`, that of the next step, to the logs of an epoch. Put it
    behind callbacks that add to these, and before those that show `history`.

    Args:
        folder: Where to; made if missing.
        settings: What the results depend on, as JSON has it: `run_settings`. A
            run does not go on with others. Only `num_workers`, `max_skipped`
            and `tensorboard` of `config` may be changed; the number of epochs
            may not, as the learning rate depends on it.
        versions: Of packages and of what else may be another one after an
            interruption, with a warning.

    Attributes:
        epoch_logs: Those of every epoch that is over.

    Example:

    ```python
    state = RunState("runs/mine", run_settings(config, network, train, test))
    epoch = state.restore(model)
    model.fit(
        clip_dataset(..., repeat=True, first_step=epoch * steps),
        steps_per_epoch=steps,
        initial_epoch=epoch,
        epochs=epochs,
        callbacks=[state],
        shuffle=False,
    )
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        versions: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.epoch_logs: list[dict[str, Any]] = []
        self._settings = json.loads(json.dumps(settings))
        self._versions = dict(versions or {})
        self._is_begun = False

    @property
    def history(self) -> dict[str, list]:
        """The logs of all epochs by name, NaN where one has none."""
        names = {name: None for logs in self.epoch_logs for name in logs}
        return {
            name: [logs.get(name, math.nan) for logs in self.epoch_logs]
            for name in names
        }

    def restore(self, model: keras.Model) -> int:
        """Puts a compiled model into the last state that was saved.

        Args:
            model: As it was before training, made and compiled alike.

        Returns:
            The epochs that are over, 0 if nothing was saved: what `fit` takes
            as `initial_epoch`.

        Raises:
            OtherSettingsError: If the run was begun with other settings or
                another network. Nothing has changed then.
            ValueError: If there are states and all of them are damaged.
        """
        self._is_begun = True
        variables, settings = _variables(model), self._settings_on(model)
        paths = self._saved()
        for path in reversed(paths):
            try:
                epoch_logs, versions, arrays = self._read(
                    path, settings, variables
                )
            except OtherSettingsError:
                raise
            except _DAMAGE as error:
                logging.warning("%s is damaged, passed over: %s", path, error)
                continue
            for (_, holder), array in zip(variables, arrays, strict=True):
                holder.assign(array)
            self.epoch_logs = epoch_logs
            self._compare_versions(versions)
            return len(self.epoch_logs)
        if paths:
            raise ValueError(
                f"{self.folder} must have a state of the run that is not "
                f"damaged; to begin anew, remove {paths[0].name} and the like. "
                f"Received: {len(paths)} damaged files"
            )
        return 0

    def clear(self) -> None:
        """Removes what was saved."""
        for path in self._saved(parts=True):
            path.unlink(missing_ok=True)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Removes the states of an earlier run if this one begins anew."""
        if not self._is_begun:
            self.clear()
            self._is_begun = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Checks that this is the epoch after the last one."""
        if epoch != len(self.epoch_logs):
            raise ValueError(
                "`initial_epoch` of `fit` must be what `RunState.restore` has "
                f"returned, {len(self.epoch_logs)}. Received: {epoch}"
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves."""
        logs = {} if logs is None else logs
        rate = self.model.optimizer.learning_rate
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        self.epoch_logs.append(
            {name: np.asarray(value).tolist() for name, value in logs.items()}
        )
        try:
            self._save()
        except OSError as error:  # A full disk is no reason to stop training.
            logging.warning("The run could not be saved: %s", error)

    def _saved(self, parts: bool = False) -> list[pathlib.Path]:
        """States from the first to the last, or these and unfinished ones."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                match = _PATTERN.fullmatch(path.name)
                if match and (parts or not match[2]):
                    found.append((int(match[1]), path))
        return [path for _, path in sorted(found)]

    def _save(self) -> None:
        variables = _variables(self.model)
        about = {
            "epochs": self.epoch_logs,
            "settings": self._settings_on(self.model),
            "versions": self._versions,
            "variables": _kinds(variables),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / _NAME.format(len(self.epoch_logs))
        with (
            replacing(target) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            archive.writestr(_ABOUT, json.dumps(about))
            # One at a time: copies of all would take as much as the model.
            for number, (_, holder) in enumerate(variables):
                array = keras.ops.convert_to_numpy(holder)
                name = _member(number)
                with archive.open(name, "w", force_zip64=True) as member:
                    np.lib.format.write_array(
                        member, np.asarray(array, order="C"), allow_pickle=False
                    )
        for path in self._saved()[:-_KEPT]:
            path.unlink(missing_ok=True)

    def _read(
        self,
        path: pathlib.Path,
        settings: Mapping[str, Any],
        variables: _Variables,
    ) -> tuple[list[dict], dict[str, str], list[np.ndarray]]:
        """Logs of the epochs, versions and the values of the variables."""
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_ABOUT).file_size > _LARGEST_ABOUT:
                raise ValueError(f"{_ABOUT} is too large")
            about = json.loads(archive.read(_ABOUT))
            self._compare(about["settings"], settings)
            if about["variables"] != _kinds(variables):
                self._refuse("the variables of network or optimizer differ")
            if path.name != _NAME.format(len(about["epochs"])):
                raise ValueError(f"it is of epoch {len(about['epochs'])}")
            arrays = [
                _read_array(archive, _member(number), variable)
                for number, (variable, _) in enumerate(variables)
            ]
        return list(about["epochs"]), dict(about["versions"]), arrays

    def _settings_on(self, model: keras.Model) -> dict[str, Any]:
        strategy = _strategy(model)
        replicas = strategy.num_replicas_in_sync if strategy else 1
        return {**self._settings, "replicas": replicas}

    def _compare(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        there, here = _flat(then), _flat(now)
        differing = [
            f"{name} was {there.get(name)!r} and is now {here.get(name)!r}"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        ]
        if differing:
            self._refuse(", ".join(differing))

    def _refuse(self, why: str) -> None:
        raise OtherSettingsError(
            f"The run in {self.folder} cannot go on with other settings: {why}."
            " Take another folder, or begin anew there with resume=False "
            "(--noresume)"
        )

    def _compare_versions(self, versions: Mapping[str, str]) -> None:
        changed = [
            f"{name} was {versions.get(name)} and is now "
            f"{self._versions.get(name)}"
            for name in {**versions, **self._versions}
            if versions.get(name) != self._versions.get(name)
        ]
        if changed:
            logging.warning(
                "The run goes on, but not to the last bit as it would have: %s",
                ", ".join(changed),
            )


def _fingerprint(videos: VideoList) -> str:
    content = {
        "paths": below_common_folder(videos.paths),
        "labels": videos.labels.tolist(),
        "class_names": videos.class_names,
        "segments": None
        if videos.segments is None
        else videos.segments.tolist(),
        "actions": None
        if videos.actions is None
        else [action.tolist() for action in videos.actions],
        "fps": videos.fps,
    }
    return f"{len(videos)} videos, {digest(content)}"


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """Paths below the folder that all have in common, so that it may move.

    >>> below_common_folder(["data/train/one.jpg", "data/train/more/two.jpg"])
    ['/one.jpg', '/more/two.jpg']
    """
    paths = [os.path.abspath(path) for path in paths]
    folders = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(folders) if folders else ""
    return [path[len(root) :] for path in paths]


def digest(content: Any) -> str:
    """A hash in words of what JSON can hold."""
    text = json.dumps(content).encode()
    return f"sha256 {hashlib.sha256(text).hexdigest()[:16]}"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by one name each, without those that may be changed."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{field}": x for field, x in value.items()}
        else:
            flat[name] = value
    free = {f"config.{field}" for field in _FREE}
    return {name: value for name, value in flat.items() if name not in free}


def _variables(model: keras.Model) -> list[tuple[keras.Variable, Any]]:
    """All that a step of training changes, but for metrics.

    Of a variable that every replica has for itself, as the moving statistics
    of batch norms are, those of each: the variable and what holds the value.
    """
    if not model.compiled:
        raise ValueError("`model` must be compiled. Received: one that is not")
    strategy = _strategy(model)
    if not model.optimizer.built:
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)
    found = []
    for variable in [*model.variables, *model.optimizer.variables]:
        holders = (variable,)
        if strategy and variable.aggregation == "none":
            holders = strategy.experimental_local_results(variable.value)
        found += [(variable, holder) for holder in holders]
    return found


def _strategy(model: keras.Model) -> Any:
    """Where a model trains on TensorFlow; `None` on other backends."""
    return getattr(model, "distribute_strategy", None)


def _kinds(variables: _Variables) -> list[list]:
    """Name, shape and type of each."""
    # What has no name of its own is `sgd`, the second in a process `sgd_1`.
    return [
        [
            re.sub(r"_\d+(?=[/_])", "", variable.path),
            list(variable.shape),
            variable.dtype,
        ]
        for variable, _ in variables
    ]


def _member(number: int) -> str:
    return f"{number:05}.npy"


def _read_array(
    archive: zipfile.ZipFile, name: str, variable: keras.Variable
) -> np.ndarray:
    """What a variable is to hold; nothing else is allocated."""
    shape, dtype = tuple(variable.shape), np.dtype(variable.dtype)
    size = math.prod(shape) * dtype.itemsize
    with archive.open(name) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} has an unknown form")
        header = np.lib.format.read_array_header_1_0(member)
        if header != (shape, False, dtype):
            raise ValueError(f"{name} is another array")
        content = member.read(size)
        # At the end the checksum is compared.
        if member.read(1):
            raise ValueError(f"{name} is too long")
    return np.frombuffer(content, dtype).reshape(shape)
