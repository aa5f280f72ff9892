"""SimSiam: one view predicts the other, which gets no gradient.

Source: Chen & He 2021, https://arxiv.org/abs/2011.10566.
"""

from torch import Tensor, nn

from selfsup.config import SimSiamConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.regression import negative_cosine
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, Predictions, Views, project_views_separately


class SimSiam(Method[Predictions]):
    """Without negatives and without a teacher: predictor and stop-gradient suffice."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: SimSiamConfig) -> None:
        """A projector of three layers, a norm after each, and a predictor with a bottleneck."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        hidden, dim = config.hidden, config.dim
        self.projector = mlp(encoder.dim, hidden, hidden, dim, norm=config.norm, end="scaleless")
        self.predictor = mlp(dim, max(1, dim // 4), dim, norm=config.norm)

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor: it must follow embeddings that still change (section 4.2)."""
        return list(self.predictor.parameters())

    def embed(self, views: Views) -> Predictions:
        """Predict from both views; the targets are their projections: four of [b, dim]."""
        z = project_views_separately(self.encoder, self.projector, views)
        return Predictions(*map(self.predictor, z), *(x.detach() for x in z))

    def loss(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Average both directions (equation 2); -1 to 1."""
        forwards = negative_cosine(embeddings.first, embeddings.second_target)
        return (forwards + negative_cosine(embeddings.second, embeddings.first_target)) / 2
