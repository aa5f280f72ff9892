"""Triplet fine-tuning: mined over the global batch and, if wanted, a memory of earlier ones.

Sources: Hermans et al. 2017, https://arxiv.org/abs/1703.07737 (batch-hard, soft margin); Schroff et
al. 2015, https://arxiv.org/abs/1503.03832 (semi-hard); Wang et al. 2020,
https://arxiv.org/abs/1912.06798 (memory).
"""

import math

import torch
from torch import Tensor

from selfsup.config import TripletConfig
from selfsup.config.finetuning import Miner, refuse_unused_settings, require_angle
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Relations, Triplets
from selfsup.losses.triplet import (
    angular_gaps,
    angular_hinge,
    triplet_gaps,
    triplet_margin,
    triplet_soft,
    triplet_windows,
)
from selfsup.methods.health import Remedies
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, OneView, Views, embed_one_view
from selfsup.methods.signs import collapse_signs, pair_signs
from selfsup.mining import distances, sampled

MINING = {"miner", "first", "switch", "margin", "distance", "normalize", "memory"}
USED_SETTINGS = {
    "margin": {"active_only", "swap", *MINING},
    "soft": {"swap", *MINING},
    "angular": {"degrees", *MINING},
}
"""The settings that each loss uses. The margin is also that of semi-hard miners."""
SEMI_HARD: tuple[Miner, ...] = ("semi-hard", "semi-hard-all", "easy-positive", "hard-positive")
"""Miners of negatives that are farther than the positive, and not by more than the margin."""
HARDER_THAN_SEMI_HARD: tuple[Miner, ...] = (
    *("batch-hard", "batch-all", "hard-positive", "distance-weighted"),
)


class Triplet(Method[OneView]):
    """An encoder whose last layer is the embedding, so that the head is exported with it."""

    def __init__(self, encoder: Encoder, config: TripletConfig) -> None:
        """Give the encoder a linear head of `config.dim`, unless that is 0 or it has one already.

        Raises:
            UserError: a setting is changed that the loss does not use.
        """
        super().__init__()
        refuse_unused_settings(config, USED_SETTINGS[config.loss])
        require_angle("degrees", config.degrees)
        self.encoder = encoder
        self.encoder.set_head(config.dim)
        self.config = config
        self.distance = Distance(config.distance, config.normalize)
        self.memory = Memory(config.memory.size, encoder.dim, start=config.memory.start)

    def embed(self, views: Views) -> OneView:
        """Embed the only view. [b, 1, 3, s, s] -> [b, dim]."""
        return embed_one_view(self.encoder, views)

    def loss(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss of mined triplets; where there are none, 0 with a gradient of 0."""
        assert labels is not None
        n, c = len(embeddings.embedding), self.config
        z, labels = self.memory.append_to(embeddings.embedding, labels, progress=info.progress)
        if self._uses_windows(info):
            return self._windows_loss(z, labels, info, n)[0]
        triplets = self._mine(self._miner(info), z, labels, info, n)
        if len(triplets[0]) == 0:
            return z.sum() * 0
        match c.loss:
            case "margin":
                return triplet_margin(
                    z,
                    triplets,
                    distance=self.distance,
                    margin=c.margin,
                    active_only=c.active_only,
                    swap=c.swap,
                )
            case "soft":
                return triplet_soft(z, triplets, distance=self.distance, swap=c.swap)
            case "angular":
                return angular_hinge(z, triplets, degrees=c.degrees)

    def after_step(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> None:
        """Add the batch to the memory."""
        self.memory.add(embeddings.embedding, labels)

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Compute collapse signs, and how much there is left to learn.

        positive, negative, gap, nearest: as `pair_signs` has them.
        active: fraction of the triplets with a loss above zero (soft: with the negative nearer, or
            inside the window of a miner that takes no nearer ones).
        skipped: fraction of anchors without a triplet.
        relative_loss: loss / margin (soft: / log 2), which goes to 1 as embeddings collapse.
        """
        assert labels is not None
        z, c = embeddings.embedding, self.config
        compared, compared_labels = self.memory.append_to(z, labels, progress=info.progress)
        signs = {
            **collapse_signs(z),
            **pair_signs(z, labels, self.distance),
            **self._activity(compared, compared_labels, info, len(z)),
        }
        if c.loss != "angular":
            equal = math.log(2) if c.loss == "soft" else c.margin
            signs["relative_loss"] = self.loss(embeddings, labels, info).item() / equal
        return signs

    def remedies(self, info: StepInfo) -> Remedies:
        """Name another miner, and what makes triplets harder for this loss."""
        miner = self._miner(info)
        larger = {"margin": "a larger --method.margin", "angular": "a smaller --method.degrees"}
        harder = [larger.get(self.config.loss, "")]
        if miner != "batch-hard":
            harder.append("a harder --miner")
        easier = "--miner semi-hard" if miner in HARDER_THAN_SEMI_HARD else ""
        soft = self.config.loss == "soft"
        return Remedies(easier, tuple(words for words in harder if words), always_learns=soft)

    def _activity(self, z: Tensor, labels: Tensor, info: StepInfo, n: int) -> dict[str, float]:
        """Fractions of triplets with a loss, and of anchors without a triplet."""
        if self._uses_windows(info):
            positives, negatives = Relations(labels, n).counts()
            valid = positives * negatives
            active = int(self._windows_loss(z, labels, info, n)[1]) / int(valid.sum())
            return {"active": active, "skipped": int((valid == 0).sum()) / n}
        triplets = self._mine(self._miner(info), z, labels, info, n)
        if self.config.loss == "angular":
            gaps = angular_gaps(z, triplets, degrees=self.config.degrees)
        else:
            gaps = triplet_gaps(z, triplets, distance=self.distance, swap=self.config.swap)
            window = self.config.loss == "margin" or self._miner(info) in SEMI_HARD
            gaps = gaps + (self.config.margin if window else 0)
        active = int((gaps > 0).sum()) / max(1, len(gaps))
        return {"active": active, "skipped": 1 - len(triplets[0].unique()) / n}

    def _uses_windows(self, info: StepInfo) -> bool:
        """Whether `triplet_windows` computes the loss, without listing its triplets."""
        without_swap = self.config.loss == "margin" and not self.config.swap
        return without_swap and self._miner(info) in ("batch-all", "semi-hard-all")

    def _windows_loss(
        self, z: Tensor, labels: Tensor, info: StepInfo, n: int
    ) -> tuple[Tensor, Tensor]:
        return triplet_windows(
            z,
            labels,
            distance=self.distance,
            margin=self.config.margin,
            semi_hard=self._miner(info) == "semi-hard-all",
            active_only=self.config.active_only,
            anchors=n,
        )

    def _miner(self, info: StepInfo) -> Miner:
        first = self.config.first
        if first is not None and info.progress < self.config.switch:
            return first
        return self.config.miner

    def _mine(self, miner: Miner, z: Tensor, labels: Tensor, info: StepInfo, n: int) -> Triplets:
        distance, margin = self.distance, self.config.margin
        match miner:
            case "batch-hard":
                return distances.batch_hard(z, labels, distance=distance, anchors=n)
            case "semi-hard":
                return distances.semi_hard(z, labels, distance=distance, margin=margin, anchors=n)
            case "semi-hard-all":
                return distances.semi_hard_all(
                    z, labels, distance=distance, margin=margin, anchors=n
                )
            case "batch-all":
                return distances.all_triplets(labels, anchors=n, device=z.device)
            case "random":
                return sampled.random_triplets(
                    labels, generator=info.generator("mining"), anchors=n, device=z.device
                )
            case "distance-weighted":
                return sampled.distance_weighted(
                    z, labels, generator=info.generator("mining"), anchors=n
                )
            case "easy-positive" | "hard-positive":
                return distances.batch_easy_hard(
                    z,
                    labels,
                    distance=distance,
                    positive="easiest" if miner == "easy-positive" else "hardest",
                    negative="semi-hard",
                    anchors=n,
                )
