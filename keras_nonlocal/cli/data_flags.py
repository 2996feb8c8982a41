"""The flags that name the videos of a command."""

from absl import app
from absl import flags

from keras_nonlocal.cli import list_flags
from keras_nonlocal.data.videos import VideoList

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data",
    None,
    "Folder with a folder of videos for each class, or a list of videos.",
)
flags.mark_flag_as_required("data")
flags.adopt_module_key_flags(list_flags)


def videos() -> VideoList:
    """Reads what the flags name; a wrong one is an error of usage."""
    try:
        return list_flags.read(FLAGS.data)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
