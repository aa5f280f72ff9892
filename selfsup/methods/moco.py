"""MoCo: a query is told from the keys that a slow copy of its network makes of other images.

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
from selfsup.methods.method import Method, Targets, TwoViews, Views, two
from selfsup.methods.teacher import Teacher


class MoCoV2(Method):
    """The first view's embeddings against the second's and a queue of earlier keys.

    A key shares its batch statistics with the query's batch, which can give the pair away; the
    paper shuffles images between GPUs against that. Here statistics are of a process's whole share:
    keep that at 64 images or more, use --sync-bn, or an encoder without batch norm.
    """

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
        return self.teacher.chosen(self.encoder)

    def embed(self, views: Views) -> TwoViews:
        """Queries of the first views, keys of the second. [b, 2, 3, s, s] -> two of [b, dim]."""
        first, second = two(views)
        return TwoViews(self.projector(self.encoder(first)), self.teacher(second))

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """InfoNCE; until there is a queue the batch's other keys are what a query is told from."""
        queue = self.queue.held()[0]
        return info_nce(
            embeddings.first,
            embeddings.second.detach(),
            temperature=self.config.temperature,
            queue=queue if len(queue) else None,
        )

    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """The keys go into the queue, and the teacher follows."""
        self.queue.add(embeddings.second)
        self.teacher.follow(info, self.encoder, self.projector)

    def negatives(self, batch: int) -> int:
        """The full queue."""
        return self.config.queue


class MoCoV3(Method):
    """Both views' predictions against a slow copy's embeddings of the whole batch's other views."""

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
        return self.teacher.chosen(self.encoder)

    def embed(self, views: Views) -> Targets:
        """[b, 2, 3, s, s] -> four of [b, dim]."""
        pair = two(views)
        predicted = (self.predictor(self.projector(self.encoder(view))) for view in pair)
        return Targets(*predicted, *map(self.teacher, pair))

    def loss(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> Tensor:
        """2 T times the sum of both directions (algorithm 1)."""
        t = self.config.temperature
        one = info_nce(embeddings.first, embeddings.second_target.detach(), temperature=t)
        other = info_nce(embeddings.second, embeddings.first_target.detach(), temperature=t)
        return 2 * t * (one + other)

    def after_step(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> None:
        """The teacher follows."""
        self.teacher.follow(info, self.encoder, self.projector)

    def negatives(self, batch: int) -> int:
        """The other images' other views."""
        return batch - 1
