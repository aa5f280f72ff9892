"""Synchronised batch norms give the same features as those that they replace."""

from copy import deepcopy

import pytest
import timm
import torch
from torch import nn

from selfsup.training.adapt import synchronized

FAMILIES = [
    *("resnet18", "resnetv2_50", "densenet121", "efficientnet_b0", "mobilenetv3_small_050"),
    *("regnetx_002", "repvgg_a0", "ghostnet_100", "mnasnet_small", "tf_efficientnet_lite0"),
    *("hardcorenas_a", "dla34"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_equal_before_and_after(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                assert norm.running_mean is not None
                norm.running_mean.normal_(0, 0.1)
        before = network(x)
        converted = synchronized(deepcopy(network))
        after = converted(x)
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert before.std() > 0
