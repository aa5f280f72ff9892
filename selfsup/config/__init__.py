"""Every setting, with its default, unit and source: frozen dataclasses that import no torch.

They live apart from what they set so that help comes without loading the libraries that do the
work.
"""

from selfsup.config.evaluate import EvaluateConfig, KNNConfig, LinearConfig, RetrievalConfig
from selfsup.config.images import EncoderConfig, Interpolation, ViewsConfig
from selfsup.config.methods import SimCLRConfig
from selfsup.config.ranking import (
    ContrastiveConfig,
    MemoryConfig,
    NPairsConfig,
    PairsConfig,
    ProxiesConfig,
    TripletConfig,
)
from selfsup.config.train import (
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    TrainConfig,
)

__all__ = [
    "ContrastiveConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "Interpolation",
    "KNNConfig",
    "LinearConfig",
    "MemoryConfig",
    "NPairsConfig",
    "OptimConfig",
    "PairsConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProxiesConfig",
    "RetrievalConfig",
    "SimCLRConfig",
    "TrainConfig",
    "TripletConfig",
    "ViewsConfig",
]
