"""From a folder of unlabelled images to an embedding model that is proven to be good."""

from typing import TYPE_CHECKING

from selfsup.core.version import __version__ as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from selfsup.encoders.bundle import Embedder


def load(folder: "str | Path") -> "Embedder":
    """A module from images to embeddings, of a bundle or a finished run.

    `selfsup.load("bundle").embed(["a.jpg", "b.jpg"])` is float32 [2, d], rows of length 1; called
    itself it takes a tensor of images, see `selfsup.encoders.bundle.Embedder`.

    Raises:
        selfsup.core.errors.UserError: there is no encoder in the folder.
    """
    from selfsup.encoders.bundle import load_bundle

    return load_bundle(folder)
