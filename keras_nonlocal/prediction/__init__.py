"""Predictions and features of whole videos, over time."""
