"""Fine-tuning by proxies: each embedding against one learnt row for each class.

Sources: Kim et al. 2020, https://arxiv.org/abs/2003.13911 (Proxy-Anchor); Deng et al. 2019,
https://arxiv.org/abs/1801.07698 (ArcFace); Wang et al. 2018, https://arxiv.org/abs/1801.09414
(CosFace).
"""

import torch
from torch import Tensor, nn

from selfsup.config import ProxiesConfig
from selfsup.config.finetuning import only
from selfsup.config.pretraining import require_positive
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.measures import Distance
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.methods.method import Method, OneView, Views, one_view
from selfsup.methods.signs import collapse_signs, pair_signs


class ProxyRanking(Method):
    """An encoder with an embedding head, and proxies that are thrown away after training."""

    def __init__(self, encoder: Encoder, config: ProxiesConfig, *, classes: int) -> None:
        """Proxies start in directions drawn uniformly.

        Raises:
            UserError: something is set that the loss does not look at.
        """
        super().__init__()
        require_positive(config, "lr")
        only(config, {"lr", config.loss.replace("-", "_")})
        self.encoder = encoder
        self.encoder.give_head(config.dim)
        self.config = config
        self.loss_lr = config.lr
        self.proxies = nn.Parameter(torch.empty(classes, encoder.dim))
        nn.init.normal_(self.proxies, std=encoder.dim**-0.5)  # rows of length about 1

    def loss_parameters(self) -> list[nn.Parameter]:
        """The proxies."""
        return [self.proxies]

    def embed(self, views: Views) -> OneView:
        """[b, 1, 3, s, s] -> [b, dim]."""
        return one_view(self.encoder, views)

    def loss(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> Tensor:
        """The chosen loss over the global batch."""
        assert labels is not None
        z, c = embeddings.embedding, self.config
        match c.loss:
            case "proxy-anchor":
                a = c.proxy_anchor
                return proxy_anchor(z, labels, self.proxies, margin=a.margin, alpha=a.alpha)
            case "arcface":
                f = c.arcface
                return arcface(z, labels, self.proxies, margin=f.margin, scale=f.scale)
            case "cosface":
                g = c.cosface
                return cosface(z, labels, self.proxies, margin=g.margin, scale=g.scale)

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Collapse signs, and mean cosine distances within the batch."""
        assert labels is not None
        z = embeddings.embedding
        return collapse_signs(z) | pair_signs(z, labels, Distance("cosine"))
