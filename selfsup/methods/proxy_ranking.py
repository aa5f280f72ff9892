"""Fine-tuning by proxies: each embedding against one learnt row for each class.

Sources: Kim et al. 2020, https://arxiv.org/abs/2003.13911 (Proxy-Anchor); Deng et al. 2019,
https://arxiv.org/abs/1801.07698 (ArcFace); Wang et al. 2018, https://arxiv.org/abs/1801.09414
(CosFace).
"""

from dataclasses import asdict

import torch
from torch import Tensor, nn

from selfsup.config import ProxiesConfig
from selfsup.config.finetuning import refuse_unused_settings
from selfsup.config.pretraining import require_positive
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.measures import Distance
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.methods.method import Method, OneView, Views, embed_one_view
from selfsup.methods.signs import collapse_signs, pair_signs


class ProxyRanking(Method[OneView]):
    """An encoder with an embedding head, and proxies that are dropped after training."""

    def __init__(self, encoder: Encoder, config: ProxiesConfig, *, classes: int) -> None:
        """Draw the proxies in uniform directions.

        Raises:
            UserError: a setting is changed that the loss does not use.
        """
        super().__init__()
        require_positive(config, "lr")
        refuse_unused_settings(config, {"lr", config.loss.replace("-", "_")})
        self.encoder = encoder
        self.encoder.set_head(config.dim)
        self.config = config
        self.loss_lr = config.lr
        self.proxies = nn.Parameter(torch.empty(classes, encoder.dim))
        nn.init.normal_(self.proxies, std=encoder.dim**-0.5)  # rows of length about 1

    def loss_parameters(self) -> list[nn.Parameter]:
        """The proxies."""
        return [self.proxies]

    def embed(self, views: Views) -> OneView:
        """Embed the only view. [b, 1, 3, s, s] -> [b, dim]."""
        return embed_one_view(self.encoder, views)

    def loss(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the chosen loss over the global batch."""
        assert labels is not None
        z, c = embeddings.embedding, self.config
        match c.loss:
            case "proxy-anchor":
                return proxy_anchor(z, labels, self.proxies, **asdict(c.proxy_anchor))
            case "arcface":
                return arcface(z, labels, self.proxies, **asdict(c.arcface))
            case "cosface":
                return cosface(z, labels, self.proxies, **asdict(c.cosface))

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Compute collapse signs and those of pairs, by cosine distances within the batch.

        relative_loss: as a fraction of its value for equal embeddings.
        """
        assert labels is not None
        z = embeddings.embedding
        signs = collapse_signs(z) | pair_signs(z, labels, Distance("cosine"))
        return signs | {"relative_loss": self.relative_loss(embeddings, labels, info)}
