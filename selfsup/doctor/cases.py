"""Every method at a size that takes a fraction of a second, for the certificate and the tests.

Norms have no batch statistics, so that the gradient does not depend on how the batch is split. They
have one group of all channels: with small groups, embeddings of different images would start nearly
equal, and a loss that standardises them would magnify rounding errors.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from selfsup.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DCLConfig,
    DINOConfig,
    DINOv2Config,
    DistilConfig,
    EncoderConfig,
    LeJEPAConfig,
    LocalViewsConfig,
    MAEConfig,
    MemoryConfig,
    MoCoV2Config,
    MoCoV3Config,
    NNCLRConfig,
    PairsConfig,
    ProxiesConfig,
    RankingDistilConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TiCoConfig,
    TripletConfig,
    VICRegConfig,
    ViewsConfig,
)
from selfsup.encoders.encoder import Encoder
from selfsup.methods.barlow_twins import BarlowTwins
from selfsup.methods.byol import BYOL
from selfsup.methods.dino import DINO
from selfsup.methods.dinov2 import DINOv2
from selfsup.methods.distil import Distil, StoredFeatures
from selfsup.methods.distilled_ranking import DistilledRanking
from selfsup.methods.lejepa import LeJEPA
from selfsup.methods.mae import MAE
from selfsup.methods.method import Method
from selfsup.methods.moco import MoCoV2, MoCoV3
from selfsup.methods.nnclr import NNCLR
from selfsup.methods.pair_ranking import PairRanking
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.simclr import SimCLR
from selfsup.methods.simsiam import SimSiam
from selfsup.methods.supcon import SupCon
from selfsup.methods.swav import SwAV
from selfsup.methods.tico import TiCo
from selfsup.methods.triplet_ranking import Triplet
from selfsup.methods.vicreg import VICReg

CLASSES = 8
IMAGES = 64  # of the certificate
QUEUE = 24  # rows of every memory: more than a batch, so that it is partly full
ONE_GROUP = EncoderConfig(
    args="{norm_layer: groupnorm1, channels: [16, 16, 16, 16], layers: [1, 1, 1, 1]}"
)
VIT = EncoderConfig(
    name="vit_tiny_patch16_224",
    args="{embed_dim: 16, depth: 1, num_heads: 2, patch_size: 4, global_pool: avg, fc_norm: false}",
)
"""For methods that mask patches: 16 of a view of 16 pixels. Features are the mean of its patches:
class tokens of random weights are nearly equal, so that KoLeo would magnify rounding errors."""


class Case(NamedTuple):
    """A method on an encoder, and the views that it embeds."""

    make: Callable[[Encoder], Method]
    views: ViewsConfig
    encoder: EncoderConfig = ONE_GROUP
    """The network where none is named."""


TWO = ViewsConfig(size=16)
MANY = ViewsConfig(size=16, local=LocalViewsConfig(views=2, size=8))
ONE_SIZE = ViewsConfig(size=16, local=LocalViewsConfig(views=2, size=16))
"""Local views as large as the others: timm resizes position embeddings in float32."""
ONE = ViewsConfig(size=16, views=1)
MEMORY = MemoryConfig(size=QUEUE, start=0.0)

FEATURES = np.random.default_rng(1).standard_normal((IMAGES, 12))
"""Of a teacher, for each image."""

CASES: dict[str, Case] = {
    "simclr": Case(lambda e: SimCLR(e, SimCLRConfig(hidden=16, dim=8, norm="layer")), TWO),
    "dcl": Case(lambda e: SimCLR(e, DCLConfig(hidden=16, dim=8, norm="layer")), TWO),
    "moco-v2": Case(lambda e: MoCoV2(e, MoCoV2Config(queue=QUEUE, hidden=16, dim=8)), TWO),
    "moco-v3": Case(lambda e: MoCoV3(e, MoCoV3Config(hidden=16, dim=8, norm="layer")), TWO),
    "byol": Case(lambda e: BYOL(e, BYOLConfig(hidden=16, dim=8, norm="layer")), TWO),
    "simsiam": Case(lambda e: SimSiam(e, SimSiamConfig(hidden=16, dim=32, norm="layer")), TWO),
    "barlow-twins": Case(
        lambda e: BarlowTwins(e, BarlowTwinsConfig(scale=1.0, hidden=16, dim=8, norm="layer")), TWO
    ),
    "vicreg": Case(lambda e: VICReg(e, VICRegConfig(hidden=16, dim=8, norm="layer")), TWO),
    "swav": Case(
        lambda e: SwAV(
            e,
            SwAVConfig(
                prototypes=12,
                queue=QUEUE,
                start=0.0,
                frozen=0.0,
                hidden=16,
                dim=8,
                norm="layer",
            ),
        ),
        MANY,
    ),
    "dino": Case(lambda e: DINO(e, DINOConfig(prototypes=12, frozen=0.0, hidden=16, dim=8)), MANY),
    "dinov2": Case(
        lambda e: DINOv2(e, DINOv2Config(prototypes=12, frozen=0.0, hidden=16, dim=8)),
        ONE_SIZE,
        VIT,
    ),
    "nnclr": Case(
        lambda e: NNCLR(e, NNCLRConfig(queue=QUEUE, hidden=16, dim=8, norm="layer")), TWO
    ),
    "lejepa": Case(
        lambda e: LeJEPA(e, LeJEPAConfig(slices=16, hidden=16, dim=8, norm="layer"), large=2), MANY
    ),
    "mae": Case(lambda e: MAE(e, MAEConfig(depth=1, dim=16, heads=2)), ONE, VIT),
    "tico": Case(lambda e: TiCo(e, TiCoConfig(hidden=16, dim=8, norm="layer")), TWO),
    "distil": Case(
        lambda e: Distil(
            e,
            DistilConfig(loss="queue", queue=QUEUE, simclr=0.5, hidden=16, dim=8, norm="layer"),
            StoredFeatures(FEATURES),
        ),
        TWO,
    ),
    "supcon": Case(lambda e: SupCon(e, SupConConfig(hidden=16, dim=8)), TWO),
    "triplet": Case(lambda e: Triplet(e, TripletConfig(dim=8, memory=MEMORY)), ONE),
    "pairs": Case(lambda e: PairRanking(e, PairsConfig(dim=8, memory=MEMORY)), ONE),
    "proxies": Case(lambda e: ProxyRanking(e, ProxiesConfig(dim=8), classes=CLASSES), ONE),
    "triplet+distil": Case(
        lambda e: DistilledRanking(
            Triplet(e, TripletConfig(dim=8, memory=MEMORY)),
            RankingDistilConfig(teacher="stored"),
            StoredFeatures(FEATURES),
        ),
        ONE,
    ),
}
"""By the name of the method, which is that of its Config and of its recipe; "+distil" where a
teacher is followed beside it."""
