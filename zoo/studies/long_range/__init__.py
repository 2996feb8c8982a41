"""Does a non-local block relate what is far apart? Trained on a CPU."""
