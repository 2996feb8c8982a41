"""Figures of merit: accuracy, average precision."""
