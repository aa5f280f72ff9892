"""Methods whose last layer are prototypes: rows that embeddings are compared with in the loss."""

from typing import Any

from torch import nn

from selfsup.core.seeds import StepInfo
from selfsup.methods.method import E, Method


class PrototypeMethod(Method[E]):
    """The prototypes belong to the loss, and do not move at the start of a run."""

    uses_labels = False
    config: Any
    """Has `frozen`, the fraction of the run in which they do not move."""
    prototypes: nn.Parameter

    def loss_parameters(self) -> list[nn.Parameter]:
        """The prototypes."""
        return [self.prototypes]

    def frozen_parameters(self, info: StepInfo) -> list[nn.Parameter]:
        """The prototypes, in the first epoch."""
        return [self.prototypes] if info.progress < self.config.frozen else []
