"""BYOL: one view predicts the projection that a teacher has of the other view.

Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733.
"""

from torch import Tensor

from selfsup.config import BYOLConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.regression import cosine_regression
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, Predictions, Views, two_views
from selfsup.methods.teacher import Teacher


class BYOL(Method[Predictions]):
    """Without negatives: the predictor and the slow teacher prevent collapse."""

    uses_labels = False

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
        return self.teacher.exported(self.encoder)

    def embed(self, views: Views) -> Predictions:
        """Predict from both views, and project both by the teacher: four of [b, dim]."""
        pair = two_views(views)
        predicted = (self.predictor(self.projector(self.encoder(view))) for view in pair)
        return Predictions(*predicted, *map(self.teacher, pair))

    def loss(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Sum the losses of both directions; 0 to 8."""
        forwards = cosine_regression(embeddings.first, embeddings.second_target)
        return forwards + cosine_regression(embeddings.second, embeddings.first_target)

    def after_step(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> None:
        """Update the teacher."""
        self.teacher.update(info, self.encoder, self.projector)
