"""BYOL: one view predicts what a slow copy of the network makes of the other.

Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733.
"""

from torch import Tensor

from selfsup.config import BYOLConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.regression import cosine_regression
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, Targets, Views, two
from selfsup.methods.teacher import Teacher


class BYOL(Method):
    """Without negatives: what keeps embeddings apart is the predictor and the slow copy."""

    def __init__(self, encoder: Encoder, config: BYOLConfig) -> None:
        """A projector and a predictor of two layers each, as in section 3.2."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        widths = (config.hidden, config.dim)
        self.projector = mlp(encoder.dim, *widths, norm=config.norm, end="unbiased")
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
        """The sum of both directions; 0 to 8."""
        one = cosine_regression(embeddings.first, embeddings.second_target)
        return one + cosine_regression(embeddings.second, embeddings.first_target)

    def after_step(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> None:
        """The teacher follows."""
        self.teacher.follow(info, self.encoder, self.projector)
