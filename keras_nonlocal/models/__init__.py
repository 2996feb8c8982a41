"""Networks, as plain functional Keras models."""
