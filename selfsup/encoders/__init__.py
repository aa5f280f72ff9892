"""Encoders: timm models without a classifier, weights that others trained, exported folders."""
