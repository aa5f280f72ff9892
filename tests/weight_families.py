"""Files of weights as their authors name the tensors, of networks with few and random weights."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from selfsup.config import Format
from selfsup.encoders.fit_weights import Match, fit_tensors, load_fitting

Named = dict[str, Tensor]


class Family(NamedTuple):
    """A kind of published weights."""

    name: str
    """The timm model, with the tag of the weights."""
    args: str
    """What makes it small, as --encoder.args."""
    authors: Callable[[Named], Any]
    """timm's tensors as the authors' file has them."""
    size: int = 0
    """Side of the images in tests: 0 for the weights' own."""


def as_they_are(named: Named) -> Any:
    return named


def renamed(named: Named, *rules: tuple[str, str]) -> Named:
    result = {}
    for key, value in named.items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        result[key] = value
    return result


def dino(named: Named) -> Any:
    student = {f"module.backbone.{k}": v + 1 for k, v in named.items()}
    head = {"module.head.mlp.0.weight": torch.zeros(2, 2)}
    teacher = {f"backbone.{k}": v for k, v in named.items()}
    return {"student": student | head, "teacher": teacher, "epoch": 3}


def dinov2(named: Named) -> Any:
    extra = {"mask_token": torch.zeros(1, named["norm.weight"].shape[0])}
    if "reg_token" in named:
        named = dict(named)
        extra["register_tokens"] = named.pop("reg_token")
        position = torch.randn(1, 1, named["cls_token"].shape[2])
        extra["pos_embed"] = torch.cat([position, named.pop("pos_embed")], 1)
        extra["cls_token"] = named.pop("cls_token") - position
    return named | extra


def dinov3(named: Named) -> Any:
    names = renamed(
        named, (r"reg_token", "storage_tokens"), (r"gamma_([12])", r"ls\1.gamma"),
    )  # fmt: skip
    return names | {"rope_embed.periods": torch.ones(2), "mask_token": torch.zeros(1, 2)}


def mae(named: Named) -> Any:
    decoder = {"decoder_embed.weight": torch.zeros(3, 2), "mask_token": torch.zeros(1, 1, 2)}
    return {"model": named | decoder}


def clip(named: Named) -> Any:
    names = renamed(
        named,
        (r"^patch_embed\.proj", "conv1"), (r"^pos_embed", "positional_embedding"),
        (r"^blocks\.", "transformer.resblocks."), (r"^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"\.norm([12])", r".ln_\1"), (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
    )  # fmt: skip
    names["class_embedding"] = names.pop("cls_token")[0, 0]
    names["positional_embedding"] = names["positional_embedding"][0]
    names["proj"] = torch.zeros(names["class_embedding"].shape[0], 5)
    visual = {f"visual.{key}": value for key, value in names.items()}
    return visual | {"text_projection": torch.zeros(2, 2), "logit_scale": torch.ones(())}


def siglip(named: Named) -> Any:
    trunk = {f"visual.trunk.{key}": value for key, value in named.items()}
    return trunk | {"text.token_embedding.weight": torch.zeros(2, 2)}


def in_one_list(
    named: Named,
    blocks: str,
    first: int,
    layers: tuple[dict[str, str], dict[str, str]],
    outer: dict[str, str],
) -> Named:
    """Count blocks in one list: `blocks` is the name of block {n}, whose layers are named anew.

    `layers` are those of the first block, which does not expand, and of all others.
    """
    places = sorted({tuple(map(int, re.findall(r"\d+", k)[:2])) for k in named if "blocks" in k})
    theirs = {f"blocks.{s}.{i}.": blocks.format(n + first) for n, (s, i) in enumerate(places)}
    result = {}
    for key, value in named.items():
        place = next((p for p in theirs if key.startswith(p)), "")
        layer, _, rest = key.removeprefix(place).partition(".")
        names = outer if not place else layers[place != "blocks.0.0."]
        result[f"{theirs.get(place, '')}{names[layer]}.{rest}"] = value
    return result


def torchvisions_mobilenet(named: Named) -> Any:
    plain = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    expanding = {
        "conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3",
    }  # fmt: skip
    outer = {
        "conv_stem": "features.0.0", "bn1": "features.0.1",
        "conv_head": "features.18.0", "bn2": "features.18.1",
    }  # fmt: skip
    names = in_one_list(named, "features.{}.conv.", 1, (plain, expanding), outer)
    return names | {"classifier.1.weight": torch.zeros(1000, 1280)}


def efficientnet_pytorch(named: Named) -> Any:
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    expanding = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    names = in_one_list(named, "_blocks.{}.", 0, (plain, expanding), outer)
    return names | {"_fc.weight": torch.zeros(1000, 1280)}


def facebooks_convnext(named: Named) -> Any:
    names = renamed(
        named,
        (r"^stem\.([01])\.", r"downsample_layers.0.\1."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"conv_dw", "dwconv"), (r"mlp\.fc1", "pwconv1"), (r"mlp\.fc2", "pwconv2"),
        (r"^head\.norm\.", "norm."),
    )  # fmt: skip
    return {"model": names | {"head.weight": torch.zeros(1000, 8), "head.bias": torch.zeros(1000)}}


TINY = "{embed_dim: 32, depth: 2, num_heads: 2}"
FAMILIES: dict[str, Family] = {
    "ResNet": Family("resnet18.tv_in1k", "", as_they_are, 64),
    "EfficientNet-Lite": Family("tf_efficientnet_lite0.in1k", "", efficientnet_pytorch, 64),
    "MobileNetV2": Family("mobilenetv2_100.ra_in1k", "", torchvisions_mobilenet, 64),
    "ConvNeXt": Family(
        "convnext_atto.d2_in1k", "{depths: [1, 1, 2, 1], dims: [8, 8, 16, 16]}",
        facebooks_convnext, 64,
    ),
    "ViT": Family("vit_tiny_patch16_224.augreg_in21k", TINY, as_they_are),
    "DeiT": Family("deit_tiny_patch16_224.fb_in1k", TINY, lambda n: {"model": n}),
    "DINO": Family("vit_small_patch16_224.dino", TINY, dino),
    "DINOv2": Family("vit_small_patch14_dinov2.lvd142m", TINY, dinov2),
    "DINOv2, registers": Family("vit_small_patch14_reg4_dinov2.lvd142m", TINY, dinov2),
    "DINOv3": Family("vit_small_patch16_dinov3.lvd1689m", TINY, dinov3),
    "MAE": Family("vit_base_patch16_224.mae", TINY, mae),
    "CLIP": Family("vit_base_patch16_clip_quickgelu_224.openai", TINY, clip),
    "SigLIP": Family("vit_base_patch16_siglip_224.webli", TINY, siglip),
    "BEiT": Family("beit_base_patch16_224.in22k_ft_in22k", TINY, lambda n: {"model": n}),
    "EVA-02": Family("eva02_tiny_patch14_224.mim_in22k", TINY, lambda n: {"module": n}),
    "Swin": Family(
        "swin_tiny_patch4_window7_224.ms_in1k", "{embed_dim: 8, depths: [1, 1], num_heads: [1, 2]}",
        lambda n: {"model": n},
    ),
}  # fmt: skip


def arguments(family: Family) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(family.args) or {})


def write(family: Family, file: Path) -> Path:
    """Write random weights of the family under its authors' names."""
    torch.manual_seed(0)
    model: Any = timm.create_model(
        family.name.partition(".")[0], num_classes=0, **arguments(family)
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    torch.save(family.authors(dict(model.state_dict())), file)
    return file


def load_third_party(
    model: nn.Module, named: Named, file: Path, format: Format, *, partial: bool = False
) -> Match:
    """Fit a file's tensors to a network and load them."""
    fit = fit_tensors(model, named, file, format)
    return load_fitting(model, fit, file, format, partial=partial)


def by_timm(family: Family, file: Path, size: int) -> Any:
    """The network as timm loads it by itself: this file, or its own names where it cannot."""
    args = arguments(family)
    more: dict[str, Any] = {"img_size": size} if family.size == 0 else {}
    if family.authors in (dino, mae, efficientnet_pytorch, torchvisions_mobilenet):
        write(family._replace(authors=as_they_are), file)
    overlay = {"file": str(file), "url": "", "hf_hub_id": None, "custom_load": False}
    return timm.create_model(
        family.name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **args, **more
    ).eval()
