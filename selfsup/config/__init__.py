"""Every setting, with its default, unit and source: frozen dataclasses that import no torch.

They live apart from what they set so that help comes without loading the libraries that do the
work.
"""

from selfsup.config.contrastive import (
    MoCoV2Config,
    MoCoV3Config,
    NNCLRConfig,
    SimCLRConfig,
    SupConConfig,
)
from selfsup.config.evaluate import (
    EvaluateConfig,
    Format,
    HealthConfig,
    KNNConfig,
    LinearConfig,
    ModelConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.config.heads import TeacherConfig
from selfsup.config.images import (
    EncoderConfig,
    Interpolation,
    LocalViewsConfig,
    SecondViewConfig,
    ViewsConfig,
)
from selfsup.config.joint import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    LeJEPAConfig,
    SimSiamConfig,
    SwAVConfig,
    TiCoConfig,
    VICRegConfig,
)
from selfsup.config.ranking import (
    ContrastiveConfig,
    MemoryConfig,
    NPairsConfig,
    PairsConfig,
    ProxiesConfig,
    TripletConfig,
)
from selfsup.config.train import (
    LARS,
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    TrainConfig,
)

__all__ = [
    "LARS",
    "BYOLConfig",
    "BarlowTwinsConfig",
    "ContrastiveConfig",
    "DINOConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "Format",
    "HealthConfig",
    "Interpolation",
    "KNNConfig",
    "LeJEPAConfig",
    "LinearConfig",
    "LocalViewsConfig",
    "MemoryConfig",
    "MoCoV2Config",
    "MoCoV3Config",
    "ModelConfig",
    "NNCLRConfig",
    "NPairsConfig",
    "OptimConfig",
    "PairsConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProxiesConfig",
    "RetrievalConfig",
    "SecondViewConfig",
    "SimCLRConfig",
    "SimSiamConfig",
    "SupConConfig",
    "SwAVConfig",
    "TeacherConfig",
    "TiCoConfig",
    "TrainConfig",
    "TripletConfig",
    "VICRegConfig",
    "VerifyConfig",
    "ViewsConfig",
]
