"""k-NN accuracy on the way: each labelled image classified by all the others."""

import torch

from selfsup.config import ProbeConfig, ViewsConfig
from selfsup.data.open import open_source
from selfsup.encoder import Encoder
from selfsup.evaluate.features import extract
from selfsup.evaluate.knn import knn_predict


class KNNProbe:
    """Calls give {"knn": accuracy}. Do not choose a checkpoint by the images of a final test."""

    def __init__(self, config: ProbeConfig, views: ViewsConfig) -> None:
        """Open the labelled images of `config.data`."""
        self.source = open_source(config.data)
        self.config = config
        self.views = views

    def __call__(self, encoder: Encoder, device: torch.device) -> dict[str, float]:
        """Leave-one-out accuracy; training goes on as if nothing had happened."""
        features = extract(encoder, self.source, self.views, device=device)
        found = knn_predict(features.x, features.labels, k=self.config.k, temperature=0.1)
        return {"knn": (found == features.labels).float().mean().item()}
