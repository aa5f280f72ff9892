"""Every setting, with its default, unit and source: frozen dataclasses that import no torch.

They live apart from what they set so that help comes without loading the libraries that do the
work.
"""

from selfsup.config.evaluation import (
    EvaluateConfig,
    Format,
    HealthConfig,
    KNNConfig,
    LinearConfig,
    ModelConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.config.finetuning import (
    ContrastiveConfig,
    MemoryConfig,
    NPairsConfig,
    PairsConfig,
    ProxiesConfig,
    TripletConfig,
)
from selfsup.config.pretraining import (
    BarlowTwinsConfig,
    BYOLConfig,
    DCLConfig,
    DINOConfig,
    LeJEPAConfig,
    MoCoV2Config,
    MoCoV3Config,
    NNCLRConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TeacherConfig,
    TiCoConfig,
    VICRegConfig,
)
from selfsup.config.run import (
    LARS,
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    TrainConfig,
)
from selfsup.config.views import (
    EncoderConfig,
    Interpolation,
    LocalViewsConfig,
    SecondViewConfig,
    ViewsConfig,
)

__all__ = [
    "LARS",
    "BYOLConfig",
    "BarlowTwinsConfig",
    "ContrastiveConfig",
    "DCLConfig",
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
