"""MoCo: a query matches its key among keys of other images, all made by a slow teacher.

Sources: He et al. 2020, https://arxiv.org/abs/1911.05722; Chen et al. 2020,
https://arxiv.org/abs/2003.04297 (v2); Chen et al. 2021, https://arxiv.org/abs/2104.02057 (v3).
"""

from torch import Tensor

from selfsup.config import MoCoV2Config, MoCoV3Config
from selfsup.config.pretraining import require_positive
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.contrastive import info_nce
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, Predictions, TwoViews, Views, two_views
from selfsup.methods.teacher import Teacher


class MoCoV2(Method[TwoViews]):
    """Queries of the first views against keys of the second views and a queue of earlier keys.

    A key shares its batch statistics with the query's batch, which can leak the pair; the paper
    shuffles images between GPUs against that. Here statistics are of a process's whole local batch:
    keep that at 64 images or more, use --sync-bn, or an encoder without batch norm.
    """

    uses_labels = False
    compares_networks = True

    def __init__(self, encoder: Encoder, config: MoCoV2Config) -> None:
        """A projector of two layers without norms, and an empty queue."""
        super().__init__()
        require_positive(config, "temperature", "queue")
        self.encoder = encoder
        self.config = config
        self.projector = mlp(encoder.dim, config.hidden, config.dim, norm=None)
        self.teacher = Teacher(config.teacher, encoder, self.projector)
        self.queue = Memory(config.queue, config.dim)

    @property
    def exported(self) -> Encoder:
        """The student's, as in the paper, or the teacher's."""
        return self.teacher.exported(self.encoder)

    def embed(self, views: Views) -> TwoViews:
        """Embed queries of the first views and keys of the second: two of [b, dim]."""
        first, second = two_views(views)
        return TwoViews(self.projector(self.encoder(first)), self.teacher(second))

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute InfoNCE; while the queue is empty, the negatives are the batch's other keys."""
        queue = self.queue.contents()[0]
        return info_nce(
            embeddings.first,
            embeddings.second.detach(),
            temperature=self.config.temperature,
            queue=queue if len(queue) else None,
        )

    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """Add the keys to the queue, and update the teacher."""
        self.queue.add(embeddings.second)
        self.teacher.update(info, self.encoder, self.projector)

    def negatives(self, batch: int) -> int:
        """Size of the queue."""
        return self.config.queue


class MoCoV3(Method[Predictions]):
    """Predictions of both views against the teacher's embeddings of the other views."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: MoCoV3Config) -> None:
        """A projector that ends in a norm without scale, and a predictor, as for a ResNet."""
        super().__init__()
        require_positive(config, "temperature")
        self.encoder = encoder
        self.config = config
        widths = (config.hidden, config.dim)
        self.projector = mlp(encoder.dim, *widths, norm=config.norm, end="scaleless")
        self.predictor = mlp(config.dim, *widths, norm=config.norm, end="unbiased")
        self.teacher = Teacher(config.teacher, encoder, self.projector)

    @property
    def exported(self) -> Encoder:
        """The student's, as in the paper, or the teacher's."""
        return self.teacher.exported(self.encoder)

    def embed(self, views: Views) -> Predictions:
        """Predict from both views, and project both by the teacher: four of [b, dim]."""
        pair = two_views(views)
        predicted = (self.predictor(self.projector(self.encoder(view))) for view in pair)
        return Predictions(*predicted, *map(self.teacher, pair))

    def loss(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute 2 T times the sum of both directions (algorithm 1)."""
        t = self.config.temperature
        forwards = info_nce(embeddings.first, embeddings.second_target.detach(), temperature=t)
        backwards = info_nce(embeddings.second, embeddings.first_target.detach(), temperature=t)
        return 2 * t * (forwards + backwards)

    def after_step(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> None:
        """Update the teacher."""
        self.teacher.update(info, self.encoder, self.projector)

    def negatives(self, batch: int) -> int:
        """Keys of the other images."""
        return batch - 1
