"""Fine-tuning by pairs: each anchor against all its positives and negatives of the global batch."""

import torch
from torch import Tensor

from selfsup.config import PairsConfig
from selfsup.config.finetuning import PairLoss, between_0_and_90, only
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses import npairs, pairs, similarity
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Pairs
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, OneView, Views, one_view
from selfsup.methods.signs import collapse_signs, pair_signs
from selfsup.mining.multi_similarity import multi_similarity

MINING = {"miner", "epsilon", "memory"}
MEASURED = {"distance", "normalize"}
USED: dict[PairLoss, set[str]] = {
    "contrastive": {"contrastive", *MEASURED, *MINING},
    "lifted": {"margin", *MEASURED},
    "generalized-lifted": {"margin", *MEASURED, *MINING},
    "multi-similarity": {"multi_similarity", *MINING},
    "circle": {"circle", *MINING},
    "supcon": {"temperature", "memory"},
    "nt-xent": {"temperature", "memory"},
    "n-pairs": {"n_pairs"},
    "angular": {"n_pairs"},
    "n-pairs-angular": {"n_pairs"},
}
"""The settings that each loss looks at; a miner or a memory is not for all."""


class PairRanking(Method):
    """An encoder whose last layer is the embedding, so that the head is exported with it."""

    def __init__(self, encoder: Encoder, config: PairsConfig) -> None:
        """Give the encoder a linear head of `config.dim`, unless that is 0 or there already.

        Raises:
            UserError: something is set that the loss does not look at.
        """
        super().__init__()
        only(config, USED[config.loss])
        for name, value in (
            ("temperature", config.temperature),
            ("n-pairs.temperature", config.n_pairs.temperature),
        ):
            require(value > 0, f"--method.{name} must be above 0, not {value}")
        between_0_and_90("n-pairs.degrees", config.n_pairs.degrees)
        self.encoder = encoder
        self.encoder.give_head(config.dim)
        self.config = config
        self.distance = Distance(config.distance, config.normalize)
        self.memory = Memory(config.memory.size, encoder.dim, start=config.memory.start)

    def embed(self, views: Views) -> OneView:
        """[b, 1, 3, s, s] -> [b, dim]."""
        return one_view(self.encoder, views)

    def loss(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> Tensor:
        """The chosen loss; where the miner finds no pair, 0 with a gradient of 0."""
        assert labels is not None
        n = len(embeddings.embedding)
        z, labels = self.memory.behind(embeddings.embedding, labels, share=info.progress)
        chosen = self._mine(z, labels, n)
        if chosen is not None and len(chosen.anchor) + len(chosen.other_anchor) == 0:
            return z.sum() * 0
        if self.config.loss in ("n-pairs", "angular", "n-pairs-angular"):
            return self._of_tuples(z, labels)
        return self._of_pairs(z, labels, n, chosen)

    def after_step(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> None:
        """The batch is compared with in later steps."""
        self.memory.add(embeddings.embedding, labels)

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Collapse signs, mean distances, and with a miner how many anchors have pairs.

        active: share of anchors with a pair.
        skipped: share of anchors without one.
        """
        assert labels is not None
        z, n = embeddings.embedding, len(embeddings.embedding)
        found = collapse_signs(z) | pair_signs(z, labels, self.distance)
        chosen = self._mine(*self.memory.behind(z, labels, share=info.progress), n)
        if chosen is not None:
            active = len(torch.cat([chosen.anchor, chosen.other_anchor]).unique()) / n
            found |= {"active": active, "skipped": 1 - active}
        return found

    def _mine(self, z: Tensor, labels: Tensor, n: int) -> Pairs | None:
        if self.config.miner == "all":
            return None
        return multi_similarity(z, labels, epsilon=self.config.epsilon, anchors=n)

    def _of_pairs(self, z: Tensor, labels: Tensor, n: int, chosen: Pairs | None) -> Tensor:
        c = self.config
        match c.loss:
            case "contrastive":
                return pairs.contrastive(
                    z,
                    labels,
                    distance=self.distance,
                    positive_margin=c.contrastive.positive_margin,
                    negative_margin=c.contrastive.negative_margin,
                    squared=c.contrastive.squared,
                    reduction=c.contrastive.reduction,
                    anchors=n,
                    pairs=chosen,
                )
            case "lifted":
                return pairs.lifted_structure(z, labels, distance=self.distance, margin=c.margin)
            case "generalized-lifted":
                return pairs.generalized_lifted(
                    z,
                    labels,
                    distance=self.distance,
                    margin=c.margin,
                    anchors=n,
                    pairs=chosen,
                )
            case "multi-similarity":
                return similarity.multi_similarity(
                    z,
                    labels,
                    alpha=c.multi_similarity.alpha,
                    beta=c.multi_similarity.beta,
                    base=c.multi_similarity.base,
                    anchors=n,
                    pairs=chosen,
                )
            case "circle":
                return similarity.circle(
                    z,
                    labels,
                    margin=c.circle.margin,
                    gamma=c.circle.gamma,
                    anchors=n,
                    pairs=chosen,
                )
            case "supcon":
                return similarity.supcon(z, labels, temperature=c.temperature, anchors=n)
            case "nt-xent":
                return similarity.class_nt_xent(z, labels, temperature=c.temperature, anchors=n)
        raise AssertionError(c.loss)

    def _of_tuples(self, z: Tensor, labels: Tensor) -> Tensor:
        c = self.config.n_pairs
        match self.config.loss:
            case "n-pairs":
                return npairs.n_pairs(
                    z,
                    labels,
                    normalize=c.normalize,
                    temperature=c.temperature,
                    regularizer=c.regularizer,
                )
            case "angular":
                return npairs.angular(z, labels, degrees=c.degrees)
            case "n-pairs-angular":
                return npairs.n_pairs_angular(
                    z,
                    labels,
                    normalize=c.normalize,
                    temperature=c.temperature,
                    regularizer=c.regularizer,
                    degrees=c.degrees,
                    weight=c.weight,
                )
        raise AssertionError(self.config.loss)
