"""Speed and memory of this package against named peers: `make benchmark`."""
