"""Fine-tuning by pairs: each anchor against all its positives and negatives of the global batch."""

from dataclasses import asdict

import torch
from torch import Tensor

from selfsup.config import PairsConfig
from selfsup.config.finetuning import PairLoss, refuse_unused_settings, require_angle
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses import npairs, pairs, similarity
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Pairs
from selfsup.methods.health import Remedies
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, OneView, Views, embed_one_view
from selfsup.methods.signs import collapse_signs, pair_signs
from selfsup.mining.multi_similarity import multi_similarity_pairs

MINING = {"miner", "epsilon", "memory"}
DISTANCE = {"distance", "normalize"}
USED_SETTINGS: dict[PairLoss, set[str]] = {
    "contrastive": {"contrastive", *DISTANCE, *MINING},
    "lifted": {"margin", *DISTANCE},
    "generalized-lifted": {"margin", *DISTANCE, *MINING},
    "multi-similarity": {"multi_similarity", *MINING},
    "circle": {"circle", *MINING},
    "supcon": {"temperature", "memory"},
    "nt-xent": {"temperature", "memory"},
    "n-pairs": {"n_pairs"},
    "angular": {"n_pairs"},
    "n-pairs-angular": {"n_pairs"},
}
"""The settings that each loss uses; not every loss has a miner or a memory."""


class PairRanking(Method[OneView]):
    """An encoder whose last layer is the embedding, so that the head is exported with it."""

    def __init__(self, encoder: Encoder, config: PairsConfig) -> None:
        """Give the encoder a linear head of `config.dim`, unless that is 0 or it has one already.

        Raises:
            UserError: a setting is changed that the loss does not use.
        """
        super().__init__()
        refuse_unused_settings(config, USED_SETTINGS[config.loss])
        for name, value in (
            ("temperature", config.temperature),
            ("n-pairs.temperature", config.n_pairs.temperature),
        ):
            require(value > 0, f"--method.{name} must be above 0, not {value}")
        require_angle("n-pairs.degrees", config.n_pairs.degrees)
        self.encoder = encoder
        self.encoder.set_head(config.dim)
        self.config = config
        self.distance = Distance(config.distance, config.normalize)
        self.memory = Memory(config.memory.size, encoder.dim, start=config.memory.start)

    def embed(self, views: Views) -> OneView:
        """Embed the only view. [b, 1, 3, s, s] -> [b, dim]."""
        return embed_one_view(self.encoder, views)

    def loss(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the chosen loss; where the miner chooses no pair, 0 with a gradient of 0."""
        assert labels is not None
        n = len(embeddings.embedding)
        z, labels = self.memory.append_to(embeddings.embedding, labels, progress=info.progress)
        mined = self._mine(z, labels, n)
        if mined is not None and len(mined.positive_anchor) + len(mined.negative_anchor) == 0:
            return z.sum() * 0
        return self._loss(z, labels, n, mined)

    def after_step(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> None:
        """Add the batch to the memory."""
        self.memory.add(embeddings.embedding, labels)

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Compute collapse signs and those of pairs, and with a miner how many anchors have pairs.

        active: fraction of anchors with a pair.
        skipped: fraction of anchors without one.
        relative_loss: as a fraction of its value for equal embeddings.
        """
        assert labels is not None
        z, n = embeddings.embedding, len(embeddings.embedding)
        signs = collapse_signs(z) | pair_signs(z, labels, self.distance)
        signs["relative_loss"] = self.relative_loss(embeddings, labels, info)
        mined = self._mine(*self.memory.append_to(z, labels, progress=info.progress), n)
        if mined is not None:
            anchors = torch.cat([mined.positive_anchor, mined.negative_anchor]).unique()
            active = len(anchors) / n
            signs |= {"active": active, "skipped": 1 - active}
        return signs

    def remedies(self, info: StepInfo) -> Remedies:
        """Where a miner chooses pairs, what makes it choose more."""
        if self.config.miner == "all":
            return Remedies()
        return Remedies(harder=("a larger --method.epsilon", "--miner all"))

    def _mine(self, z: Tensor, labels: Tensor, n: int) -> Pairs | None:
        if self.config.miner == "all":
            return None
        return multi_similarity_pairs(z, labels, epsilon=self.config.epsilon, anchors=n)

    def _loss(self, z: Tensor, labels: Tensor, n: int, mined: Pairs | None) -> Tensor:
        c, d = self.config, self.distance
        match c.loss:
            case "contrastive":
                settings = asdict(c.contrastive)
                return pairs.pair_contrastive(
                    z, labels, distance=d, anchors=n, pairs=mined, **settings
                )
            case "lifted":
                return pairs.lifted_structure(z, labels, distance=d, margin=c.margin)
            case "generalized-lifted":
                return pairs.generalized_lifted(
                    z, labels, distance=d, margin=c.margin, anchors=n, pairs=mined
                )
            case "multi-similarity":
                settings = asdict(c.multi_similarity)
                return similarity.multi_similarity(z, labels, anchors=n, pairs=mined, **settings)
            case "circle":
                settings = asdict(c.circle)
                return similarity.circle(z, labels, anchors=n, pairs=mined, **settings)
            case "supcon":
                return similarity.supcon(z, labels, temperature=c.temperature, anchors=n)
            case "nt-xent":
                return similarity.class_nt_xent(z, labels, temperature=c.temperature, anchors=n)
            case "n-pairs":
                p = c.n_pairs
                return npairs.n_pairs(
                    z,
                    labels,
                    normalize=p.normalize,
                    temperature=p.temperature,
                    regularizer=p.regularizer,
                )
            case "angular":
                return npairs.angular(z, labels, degrees=c.n_pairs.degrees)
            case "n-pairs-angular":
                return npairs.n_pairs_angular(z, labels, **asdict(c.n_pairs))
