"""From how a data set lies on disk to a `VideoList`, one module each."""
