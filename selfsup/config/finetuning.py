"""Settings of ranking losses, for fine-tuning an encoder for retrieval."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Literal

from tyro.conf import Suppress

from selfsup.core.errors import UserError, require

DistanceKind = Literal["euclidean", "squared", "cosine"]
Miner = Literal[
    "batch-hard",
    "semi-hard",
    "semi-hard-all",
    "batch-all",
    "random",
    "easy-positive",
    "hard-positive",
    "distance-weighted",
]
PairLoss = Literal[
    "contrastive",
    "lifted",
    "generalized-lifted",
    "multi-similarity",
    "supcon",
    "nt-xent",
    "circle",
    "n-pairs",
    "angular",
    "n-pairs-angular",
]


def refuse_unused_settings(config: Any, used: Collection[str]) -> None:
    """Refuse settings that were changed although the chosen loss does not use them.

    Raises:
        UserError: a setting other than `loss`, `dim` and those used is not at its default.
    """
    for field in fields(config):
        changed = getattr(config, field.name) != field.default
        if changed and field.name not in ("loss", "dim", *used):
            name = field.name.replace("_", "-")
            raise UserError(f"--method.{name} has no effect with --method.loss {config.loss}")


def require_angle(name: str, degrees: float) -> None:
    """Refuse an angle that is not between 0 and 90 degrees.

    Raises:
        UserError: it is not; by the name of its flag.
    """
    require(0 < degrees < 90, f"--method.{name} must be between 0 and 90, not {degrees}")


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Cross-batch memory (Wang et al. 2020, https://arxiv.org/abs/1912.06798)."""

    size: int = 0
    """Embeddings of earlier batches that anchors are compared with too; 0: none."""
    start: float = 0.1
    """Fraction of the run after which it is used, when embeddings no longer change fast."""


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Settings of every ranking method."""

    name: str
    """The method, as its recipe names it."""
    dim: int | None = None
    """Width of the embedding head; by default that of --init, else 128. Another width than that of
    --init begins a new head; 0 keeps the encoder's features as they are."""


@dataclass(frozen=True, kw_only=True)
class TripletConfig(RankingConfig):
    """Triplets (Hermans et al. 2017, https://arxiv.org/abs/1703.07737)."""

    name: Suppress[Literal["triplet"]] = "triplet"
    loss: Literal["margin", "soft", "angular"] = "margin"
    """[d_ap - d_an + margin]+; log(1 + exp(d_ap - d_an)); or Wang's hinge of an angle."""
    margin: float = 0.2
    """How much farther the negative must be (FaceNet's 0.2, for embeddings of length 1); also the
    width of the semi-hard window."""
    degrees: float = 45.0
    """Of the angular hinge (Wang et al. 2017)."""
    miner: Miner = "semi-hard"
    """Which triplets: for each positive the nearest negative inside the margin (semi-hard) or all
    inside it (semi-hard-all); the hardest of each anchor (batch-hard); all (batch-all); one
    at random (random); the nearest or farthest positive with the nearest negative beyond it
    (easy-positive, hard-positive); negatives drawn evenly over distances (distance-weighted)."""
    first: Miner | None = None
    """Another miner at the start of the run, such as semi-hard before batch-hard."""
    switch: float = 0.3
    """Fraction of the run after which `miner` replaces `first`."""
    active_only: bool = False
    """Take the mean over the triplets above zero (margin loss)."""
    swap: bool = False
    """Use d(positive, negative) where it is smaller (Balntas et al. 2016)."""
    distance: DistanceKind = "euclidean"
    """Between embeddings; the same in mining and in the loss."""
    normalize: bool = True
    """Scale embeddings to length 1 before measuring."""
    memory: MemoryConfig = MemoryConfig()


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Margin contrastive loss (Hadsell et al. 2006)."""

    positive_margin: float = 0.0
    """A positive nearer than this costs nothing."""
    negative_margin: float = 0.5
    """A negative farther than this costs nothing (0.5 to 1 for embeddings of length 1)."""
    squared: bool = True
    """Square each term, as in the paper."""
    reduction: Literal["pairs", "sides", "active"] = "sides"
    """One mean over pairs; the mean over positives plus the mean over negatives (sides); or as
    sides, over the terms above 0 (active)."""


@dataclass(frozen=True, kw_only=True)
class MultiSimilarityConfig:
    """Multi-similarity loss (Wang et al. 2019, section 5.1)."""

    alpha: float = 2.0
    """How much the least similar positives count."""
    beta: float = 50.0
    """How much the most similar negatives count."""
    base: float = 0.5
    """The similarity that should separate positives from negatives."""


@dataclass(frozen=True, kw_only=True)
class CircleConfig:
    """Circle loss (Sun et al. 2020, section 4.1, fine-grained retrieval)."""

    margin: float = 0.4
    """m of the paper."""
    gamma: float = 80.0
    """Scale."""


@dataclass(frozen=True, kw_only=True)
class NPairsConfig:
    """N-pairs (Sohn 2016) and angular loss (Wang et al. 2017)."""

    normalize: bool = True
    """Scale to length 1; false with temperature 1 and a regulariser is the paper's own."""
    temperature: float = 0.1
    """Divides dot products."""
    regularizer: float = 0.0
    """Weight of the squared lengths."""
    degrees: float = 45.0
    """Alpha of the angular loss; 36 to 55 in the paper."""
    weight: float = 2.0
    """Of the angular term in n-pairs-angular."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig(RankingConfig):
    """Losses of pairs: each anchor against all its positives and negatives."""

    name: Suppress[Literal["pairs"]] = "pairs"
    loss: PairLoss = "multi-similarity"
    """Settings of the chosen one are in its section below."""
    miner: Literal["all", "multi-similarity"] = "all"
    """Every pair, or the hard ones (Wang et al. 2019, section 4.1)."""
    epsilon: float = 0.1
    """Of the multi-similarity miner, in cosines: higher chooses more pairs."""
    distance: DistanceKind = "euclidean"
    """Of contrastive and lifted losses; the others compare by cosine."""
    normalize: bool = True
    """Scale embeddings to length 1 before measuring distances."""
    margin: float = 1.0
    """Of lifted losses."""
    temperature: float = 0.1
    """Of supcon and nt-xent."""
    contrastive: ContrastiveConfig = ContrastiveConfig()
    multi_similarity: MultiSimilarityConfig = MultiSimilarityConfig()
    circle: CircleConfig = CircleConfig()
    n_pairs: NPairsConfig = NPairsConfig()
    memory: MemoryConfig = MemoryConfig()


@dataclass(frozen=True, kw_only=True)
class ProxyAnchorConfig:
    """Proxy-Anchor (Kim et al. 2020, section 4.2)."""

    margin: float = 0.1
    """Of cosines."""
    alpha: float = 32.0
    """Scale."""


@dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """ArcFace (Deng et al. 2019, section 3.1)."""

    margin: float = 0.5
    """In radians."""
    scale: float = 64.0
    """Multiplies cosines."""


@dataclass(frozen=True, kw_only=True)
class CosFaceConfig:
    """CosFace (Wang et al. 2018, section 4.1)."""

    margin: float = 0.35
    """Of cosines."""
    scale: float = 64.0
    """Multiplies cosines."""


@dataclass(frozen=True, kw_only=True)
class ProxiesConfig(RankingConfig):
    """Losses of proxies: each embedding against one learnt row for each class."""

    name: Suppress[Literal["proxies"]] = "proxies"
    loss: Literal["proxy-anchor", "arcface", "cosface"] = "proxy-anchor"
    """Settings of the chosen one are in its section below."""
    proxy_anchor: ProxyAnchorConfig = ProxyAnchorConfig()
    arcface: ArcFaceConfig = ArcFaceConfig()
    cosface: CosFaceConfig = CosFaceConfig()
    lr: float = 10.0
    """Learning rate of the proxies, as a multiple of the encoder's (Kim et al. 2020: 100, beside an
    encoder that starts at 1e-4)."""
