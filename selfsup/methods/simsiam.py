"""SimSiam: one view predicts the other, which gets no gradient.

Source: Chen & He 2021, https://arxiv.org/abs/2011.10566.
"""

from torch import Tensor, nn

from selfsup.config import SimSiamConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.regression import negative_cosine
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, Targets, Views, two_apart


class SimSiam(Method):
    """Without negatives and without a teacher: the predictor and the stopped gradient suffice."""

    def __init__(self, encoder: Encoder, config: SimSiamConfig) -> None:
        """A projector of three layers, a norm after each, and a predictor with a bottleneck."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        hidden, dim = config.hidden, config.dim
        self.projector = mlp(encoder.dim, hidden, hidden, dim, norm=config.norm, end="scaleless")
        self.predictor = mlp(dim, max(1, dim // 4), dim, norm=config.norm)

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor's: it has to keep up with embeddings that still move (section 4.2)."""
        return list(self.predictor.parameters())

    def embed(self, views: Views) -> Targets:
        """[b, 2, 3, s, s] -> four of [b, dim]."""
        z = two_apart(self.encoder, self.projector, views)
        return Targets(*map(self.predictor, z), *(x.detach() for x in z))

    def loss(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> Tensor:
        """The mean of both directions (equation 2); -1 to 1."""
        one = negative_cosine(embeddings.first, embeddings.second_target)
        return (one + negative_cosine(embeddings.second, embeddings.first_target)) / 2
