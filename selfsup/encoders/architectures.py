"""Which timm model a file's tensors are of, by their names and shapes."""

import re

from torch import Tensor

NamedTensors = dict[str, Tensor]

RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
"""By the blocks of each stage, and whether these are bottlenecks."""
EFFICIENTNETS = {
    (True, 16, 1280): "tf_efficientnet_b0",
    (True, 23, 1280): "tf_efficientnet_b1",
    (True, 23, 1408): "tf_efficientnet_b2",
    (True, 26, 1536): "tf_efficientnet_b3",
    (True, 32, 1792): "tf_efficientnet_b4",
    (False, 16, 1280): "tf_efficientnet_lite0",
}
"""By squeeze and excitation, blocks, and width of the last convolution, in EfficientNet-PyTorch."""
VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}
"""By width and depth."""


def architecture_of(named: NamedTensors) -> str:
    """Return the name of the timm model that tensors with timm's names are of, or "".

    Only where names and shapes say it beyond doubt; a tag stands for the weights' preprocessing. A
    ViT of CLIP, for instance, can have one of two activations, which no tensor shows.
    """
    if "layer1.0.conv1.weight" in named:
        return _resnet(named)
    if "blocks.0.attn.qkv.weight" in named and "patch_embed.proj.weight" in named:
        return _vit(named)
    if "_conv_stem.weight" in named:
        blocks = _count(named, r"_blocks\.(\d+)\.")
        excites = any("_se_reduce" in key for key in named)
        head = named.get("_conv_head.weight")
        return EFFICIENTNETS.get((excites, blocks, len(head) if head is not None else 0), "")
    if "features.1.conv.0.0.weight" in named and "features.18.0.weight" in named:
        return "mobilenetv2_100" if len(named["features.18.0.weight"]) == 1280 else ""
    return ""


def _resnet(named: NamedTensors) -> str:
    if named["layer1.0.conv1.weight"].shape[0] != 64:
        return ""  # a wide ResNet or a ResNeXt
    stages = tuple(_count(named, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    return RESNETS.get((stages, "layer1.0.conv3.weight" in named), "")


def _vit(named: NamedTensors) -> str:
    embedding = named["patch_embed.proj.weight"]
    size = VITS.get((embedding.shape[0], _count(named, r"blocks\.(\d+)\.")))
    patch, registers = embedding.shape[-1], named.get("reg_token")
    special = {"norm_pre.weight", "attn_pool.latent", "rope.periods", "fc_norm.weight"} & set(named)
    if size is None or special or "cls_token" not in named:
        return ""
    if "blocks.0.ls1.gamma" in named:
        of_registers = "" if registers is None else f"_reg{registers.shape[1]}"
        known = patch == 14 and size != "tiny" and of_registers in ("", "_reg4")
        return f"vit_{size}_patch14{of_registers}_dinov2.lvd142m" if known else ""
    if any(key.startswith("decoder") for key in named):
        return f"vit_{size}_patch16_224.mae" if size in ("base", "large") and patch == 16 else ""
    return f"vit_{size}_patch{patch}_224" if patch in (8, 14, 16, 32) else ""


def _count(named: NamedTensors, pattern: str) -> int:
    """How many numbers a pattern finds at the start of names."""
    found = (re.match(pattern, key) for key in named)
    return len({match[1] for match in found if match})
