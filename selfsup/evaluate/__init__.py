"""Evaluation: frozen features in, numbers with intervals out."""
