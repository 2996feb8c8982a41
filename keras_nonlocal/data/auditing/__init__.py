"""The parts of `keras_nonlocal.data.audit`."""
