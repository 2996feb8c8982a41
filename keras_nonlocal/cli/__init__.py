"""Commands: flags turned into calls."""

import logging as std_logging

from absl import logging


def show_own_notes_only() -> None:
    """Keeps TensorFlow's notes, which share our log, out of the terminal."""

    def is_ours(record: std_logging.LogRecord) -> bool:
        is_note = record.levelno < std_logging.WARNING
        return not is_note or "keras_nonlocal" in record.pathname

    logging.get_absl_handler().addFilter(is_ours)
    std_logging.getLogger("tensorflow").setLevel(std_logging.WARNING)
