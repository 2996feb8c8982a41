"""Recipes, studies and what was measured; run from the repository root."""
