"""Comparisons of networks with and without non-local blocks."""
