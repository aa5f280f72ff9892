"""From a folder of unlabelled images to an embedding model that is proven to be good."""

__version__ = "0.1.0"
