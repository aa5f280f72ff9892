"""Checkpoints of other projects in timm's names; only tensors are read, never code."""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from selfsup.config import Format
from selfsup.core.errors import UserError
from selfsup.encoders.weights import read_file

Rules = list[tuple[str, str]]

PLACES: dict[str, tuple[str, ...]] = {
    "lightly": ("state_dict",),
    "solo": ("state_dict",),
    "moco": ("state_dict", "model"),
    "dino": ("model",),
    "vissl": ("classy_state_dict.base_model.model.trunk", "model_state_dict", "model"),
    "mmselfsup": ("state_dict",),
    "timm": ("state_dict", "model"),
    "torchvision": ("model", "state_dict"),
    "efficientnet": ("state_dict",),
}
"""Where a file keeps the trained network's tensors, if not at its top; the first that is there."""
TEACHER_PLACES = {"dino": ("teacher",), "timm": ("state_dict_ema", "model_ema")}
STUDENT_PLACES = {"dino": ("student",)}
PREFIXES: dict[str, tuple[str, ...]] = {
    "lightly": ("backbone.", "student_backbone.", "query_backbone."),
    "solo": ("backbone.", "encoder."),
    "moco": ("encoder_q.", "base_encoder."),
    "dino": ("backbone.",),
    "vissl": ("base_model._feature_blocks.", "_feature_blocks."),
    "mmselfsup": ("backbone.", "encoder_q.0.", "online_net.0.", "base_encoder.0."),
    "timm": (),
    "torchvision": (),
    "efficientnet": (),
}
"""Of the encoder among the rest of a method; the first that any tensor has."""
TEACHER_PREFIXES: dict[str, tuple[str, ...]] = {
    "lightly": ("teacher_backbone.", "backbone_momentum.", "backbone."),
    "solo": ("momentum_backbone.", "momentum_encoder."),
    "moco": ("encoder_k.", "momentum_encoder."),
    "mmselfsup": tuple(
        f"{name}.{inner}"
        for name in ("encoder_k", "target_net", "momentum_encoder")
        for inner in ("module.0.", "0.")
    ),
}
WITHIN = ("vit.", "_model.", "_features.", "wrapped_model._model.", "wrapped_model._features.")
"""What wraps the network once more, in lightly and lightly-train."""

SEQUENCE: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 3}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
]
"""A torchvision ResNet as nn.Sequential of its children."""
SHORT_SEQUENCE: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 1}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
    (r"\.shortcut\.", ".downsample."),
]
"""Lightly's small-image ResNet, the same way."""
TORCHVISION: Rules = [
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^(?:encoder\.)?pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
]
"""Its transformers; a ResNet's names are timm's. VISSL's transformers share two."""
MM: Rules = [
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^pre_norm\.", "norm_pre."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    (r"\.ffn\.(?:layers\.0\.0|w12)\.", ".mlp.fc1."),
    (r"\.ffn\.(?:layers\.1|w3)\.", ".mlp.fc2."),
]
"""Transformers of MMSelfSup and MMPretrain."""
DINOV2: Rules = [
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
RULES: dict[str, Rules] = {
    "lightly": TORCHVISION,
    "solo": [],
    "moco": [],
    "dino": DINOV2,
    "vissl": TORCHVISION,
    "mmselfsup": MM,
    "timm": [],
    "torchvision": TORCHVISION,
    "efficientnet": [],
}
EFFICIENT: Rules = [
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._se_reduce\.", ".se.conv_reduce."),
    (r"\._se_expand\.", ".se.conv_expand."),
]
"""EfficientNet-PyTorch, but for the places and layers of its blocks, see `foreign`."""
WIDENED: Rules = [
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn0\.", ".bn1."),
    (r"\._bn1\.", ".bn2."),
    (r"\._bn2\.", ".bn3."),
]
"""Layers of a block that widens first."""
PLAIN: Rules = [(r"\._project_conv\.", ".conv_pw."), (r"\._bn1\.", ".bn1."), (r"\._bn2\.", ".bn2.")]
"""Layers of one that does not."""


Named = dict[str, Tensor]
HEAD = re.compile(r"(?:fc|heads?|classifier|head_dist|prototypes|linear|mask_token)\b")
Stem = Literal["small", "standard"]


class Match(NamedTuple):
    """How a checkpoint fitted."""

    matched: int
    """Tensors of the network that it filled."""
    missing: list[str]
    """Tensors of the network that it does not have in that shape."""
    unused: list[str]
    """Tensors of the checkpoint's encoder that the network does not have."""

    def __str__(self) -> str:
        """For a table."""
        told = f"{self.matched} of {self.matched + len(self.missing)} tensors"
        if self.missing:
            told += f"; not {', '.join(self.missing[:3])}{'...' if len(self.missing) > 3 else ''}"
        return told


def read_foreign(file: Path, format: Format, *, teacher: bool = False) -> Named:
    """The encoder's tensors in timm's names, without heads.

    Args:
        file: the checkpoint.
        format: who wrote it.
        teacher: the moving average instead of the trained network.

    Raises:
        UserError: it cannot be read, or has no such network in it.
    """
    found = _place(read_file(file), format, teacher)
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no named tensors")
    named = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", str(k)): v for k, v in found.items()}
    named = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    wanted = PREFIXES[format]
    if teacher and format in TEACHER_PREFIXES:
        wanted = TEACHER_PREFIXES[format]
        if not any(key.startswith(wanted) for key in named):
            raise UserError(f"{file} has no moving average: none of {', '.join(wanted)}")
    for prefixes in (wanted, WITHIN):
        named = _inside(named, prefixes)
    return named if format == "timm" else _in_timms_names(named, format)


def _place(found: Any, format: Format, teacher: bool) -> Any:
    """The part of a file with the tensors."""
    own = (TEACHER_PLACES if teacher else STUDENT_PLACES).get(format, ())
    for place in (*own, *PLACES[format]):
        at = found
        for part in place.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if isinstance(at, dict):
            return at
    return found


def _inside(named: Named, prefixes: tuple[str, ...]) -> Named:
    """What stands below the first prefix that any name has, or all."""
    for prefix in prefixes:
        inner = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
        if inner:
            return inner
    return named


def _in_timms_names(named: Named, format: Format) -> Named:
    rules = RULES[format]
    if any(re.match(r"4\.0\.conv1", key) for key in named):
        rules = SEQUENCE
    elif any(re.match(r"2\.0\.conv1", key) for key in named):
        rules = SHORT_SEQUENCE
    renamed = {}
    for key, value in named.items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        if not HEAD.match(key):
            renamed[key] = value
    registers = renamed.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= renamed.keys():
        # DINOv2: timm gives the class token no position there, so that it is added beforehand
        position = renamed["pos_embed"]
        renamed["reg_token"] = registers
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed["pos_embed"] = position[:, 1:]
    return renamed


def fill_foreign(model: nn.Module, named: Named, file: Path, format: Format) -> Match:
    """Load tensors into a timm model, in place, and set what their shapes do not tell.

    Raises:
        UserError: none of them fits.
    """
    named = _efficient(named, model) if "_conv_stem.weight" in named else named
    own = model.state_dict()
    position = named.get("pos_embed")
    if position is not None and "pos_embed" in own and position.shape != own["pos_embed"].shape:
        prefix = int(getattr(model, "num_prefix_tokens", 1))
        tokens = 0 if getattr(model, "no_embed_class", False) else prefix
        size = getattr(model, "patch_embed").grid_size  # noqa: B009  (no attribute of nn.Module's)
        moved = resample_abs_pos_embed(position, new_size=size, num_prefix_tokens=tokens)
        named = {**named, "pos_embed": moved}
    fitting = {k: v for k, v in named.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        names = ", ".join(list(named)[:3])
        raise UserError(
            f"no tensor of {file} fits the model, of {len(named)} such as {names}; is --format "
            f"{format} right, and the model of its kind?"
        )
    model.load_state_dict(fitting, strict=False)
    _set_what_shapes_do_not_tell(model, format, named)
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in fitting and key not in counters]
    return Match(
        len(own.keys() - counters) - len(missing),
        missing,
        [k for k in named if k not in fitting and k not in counters and not HEAD.match(k)],
    )


def _efficient(named: Named, model: Any) -> Named:
    """EfficientNet-PyTorch's names in timm's: its blocks are one list, timm's have stages."""
    places = [(s, i) for s, stage in enumerate(model.blocks) for i in range(len(stage))]
    widened = {key.split(".")[1] for key in named if "._expand_conv." in key}
    found = {}
    for key, value in named.items():
        rules: Rules = list(EFFICIENT)
        block = re.match(r"_blocks\.(\d+)\.", key)
        if block and int(block[1]) < len(places):
            stage, place = places[int(block[1])]
            rules = [*EFFICIENT, *(WIDENED if block[1] in widened else PLAIN)]
            rules.append((r"^_blocks\.\d+\.", f"blocks.{stage}.{place}."))
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        if not key.startswith("_fc."):
            found[key] = value
    return found


def _set_what_shapes_do_not_tell(model: Any, format: Format, named: Named) -> None:
    """Heads, paddings and activations in which a project's network differs from timm's."""
    stem = named.get("conv1.weight")
    if format == "solo" and stem is not None and stem.shape[-1] == 3:
        model.conv1.padding = (2, 2)  # solo-learn's stem for CIFAR
    if format == "lightly" and stem is not None and stem.shape[-1] == 3:
        model.act1 = nn.Identity()  # children of its ResNetGenerator, whose ReLU is in forward
    if format == "moco" and getattr(model, "embed_dim", 0) == 384:
        for module in model.modules():  # MoCo v3's ViT-S has twelve heads, timm's six
            if hasattr(module, "num_heads"):
                module.num_heads, module.head_dim = 12, 32
                module.scale = 32**-0.5


def stem_of(named: Named) -> Stem:
    """Which stem the tensors have: a ResNet's 3 x 3 is the one for small images."""
    first: Tensor | None = named.get("conv1.weight")
    return "small" if first is not None and first.shape[-1] == 3 else "standard"
