"""Recipes: hackable training scripts, one for each method."""
