"""Encoders: timm models without a classifier, pretrained weights, export and bundles."""
