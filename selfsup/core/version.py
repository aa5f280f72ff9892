"""The version of selfsup."""

__version__ = "0.1.0"
