"""Features from a folder of embeddings, where it is of the model that is asked for."""

from typing import Any

import torch
from torch import nn

from selfsup.config import ViewsConfig
from selfsup.core.errors import require
from selfsup.data.embedded import embedded_rows
from selfsup.data.embedding_parts import Manifest
from selfsup.data.sources import Source
from selfsup.encoders.evaluation_view import crop_of
from selfsup.encoders.weights import describe_network, fingerprint
from selfsup.evaluate.features import Features


def model_facts(encoder: nn.Module, views: ViewsConfig) -> dict[str, Any]:
    """Describe what an image's embedding depends on besides the image, as JSON."""
    network = getattr(encoder, "model", encoder)
    return {
        "weights": fingerprint(encoder),
        "network": describe_network(network),
        "size": views.size,
        "view": [
            *(views.resampling, crop_of(views), bool(views.squash)),
            *map(list, views.normalization),
        ],
    }


def difference(manifest: Manifest, encoder: nn.Module, views: ViewsConfig) -> str:
    """Say in which way a folder is not of this network and view; "" if it is."""
    facts = model_facts(encoder, views)
    if manifest.weights != facts["weights"]:
        now, before = facts["weights"][:12], manifest.weights[:12]
        return f"has embeddings of other weights (sha256 {before}, not {now})"
    if manifest.network != facts["network"]:
        return f"was made with another pooling ({manifest.network}, not {facts['network']})"
    if manifest.size != facts["size"]:
        return f"was made at {manifest.size} pixels, not {facts['size']}"
    return "" if manifest.view == facts["view"] else "was made with another crop or normalisation"


def stored_features(
    name: str, encoder: nn.Module, views: ViewsConfig, source: Source, *, is_baseline: bool
) -> Features | None:
    """Read the features of a source from its folder of embeddings.

    Args:
        name: of the model, for messages.
        encoder: the model.
        views: its evaluation view.
        source: a folder of embeddings, some rows of one, or images.
        is_baseline: whether the model may be another than that of the folder.

    Returns:
        None if the source is of images, or the folder is of another model than this baseline.

    Raises:
        UserError: the folder is of another model or view, or parts are damaged.
    """
    behind = embedded_rows(source)
    if behind is None:
        return None
    folder, rows = behind
    other = difference(folder.manifest, encoder, views)
    if other and is_baseline:
        assert len(folder.images) == len(folder)  # opened here, once for all reader processes
        return None
    made = folder.manifest
    require(
        not other,
        f"{folder.folder} {other}: it is of {made.model} at {made.size} pixels. Give that --model "
        f"and --size, or the images ({made.data}) as --data; not {name}",
    )
    bad = set(folder.bad)
    in_folder = range(len(folder)) if rows is None else rows
    good = [i for i, row in enumerate(in_folder) if row not in bad]
    require(bool(good), f"none of the {len(source)} images of {folder.folder} can be read")
    x = folder.embeddings([in_folder[i] for i in good])
    positions = torch.tensor(good)
    none = torch.full((len(source),), -1)
    labels = (none if source.labels is None else source.labels)[positions]
    return Features(x, labels, positions, source.classes, len(source) - len(good))
