"""The flags that say how a list of videos is read."""

from absl import flags

from keras_nonlocal.data.readers.recognize import READERS
from keras_nonlocal.data.readers.recognize import read_videos
from keras_nonlocal.data.videos import VideoList

FLAGS = flags.FLAGS
flags.DEFINE_string("root", None, "Folder that the paths of a list are in.")
flags.DEFINE_enum(
    "format", None, list(READERS), "Of a list that does not show its own."
)
flags.DEFINE_string(
    "class_names",
    None,
    "File of the names of the classes, where a list needs one.",
)


def read(path: str) -> VideoList:
    """Reads a folder or a list, as the flags say.

    Args:
        path: What `--data` names.

    Returns:
        Its videos.

    Raises:
        ValueError: If it cannot be read, whatever the reason.
    """
    arguments = {}
    if FLAGS.class_names is not None:
        arguments["class_names"] = FLAGS.class_names
    try:
        return read_videos(path, FLAGS.root, FLAGS.format, **arguments)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"--data: {error}") from error
