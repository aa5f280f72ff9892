"""Load checkpoints of other projects into timm models; only tensors are read, never code.

Three steps, each a table by format. Example: the tensor of MoCo v2's file that is stored as
`state_dict` / `module.encoder_q.layer1.0.conv1.weight`:

1. Locations: the tensors are in the file's entry "state_dict".
2. Prefixes: "encoder_q." marks the encoder; the projection head and the queue are left out.
3. Rules: regular expressions turn the remaining name into timm's, here `layer1.0.conv1.weight`.
"""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from selfsup.config import Format
from selfsup.core.errors import require
from selfsup.encoders.weights import read_file

Rules = list[tuple[str, str]]
"""Pairs of a regular expression and its replacement, applied to a name in this order."""

LOCATIONS: dict[str, tuple[str, ...]] = {
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
"""The entries that may hold the trained network's tensors, with dots between nested entries. The
first that exists is used; without any, the top level of the file."""
TEACHER_LOCATIONS = {"dino": ("teacher",), "timm": ("state_dict_ema", "model_ema")}
STUDENT_LOCATIONS = {"dino": ("student",)}
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
"""Prefixes of the encoder's tensors, not of heads and queues; the first that occurs is used."""
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
WRAPPER_PREFIXES = (
    *("vit.", "_model.", "_features."),
    *("wrapped_model._model.", "wrapped_model._features."),
)
"""Prefixes of further wrappers around the network, in lightly and lightly-train."""

SEQUENTIAL_RESNET: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 3}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
]
"""A torchvision ResNet whose children are in an nn.Sequential: names start with their position."""
SMALL_SEQUENTIAL_RESNET: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 1}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
    (r"\.shortcut\.", ".downsample."),
]
"""Lightly's ResNet for small images in an nn.Sequential: it has no pooling, so positions differ."""
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
"""Torchvision's vision transformers; its ResNets have timm's names already. Two of the rules also
apply to VISSL's transformers."""
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
"""Vision transformers of MMSelfSup and MMPretrain."""
DINOV2: Rules = [
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
"""DINOv2's vision transformers: blocks in chunks, and other names in SwiGLU layers."""
RULES: dict[str, Rules] = {
    "lightly": TORCHVISION,
    "solo": [],
    "moco": [],
    "dino": DINOV2,
    "vissl": TORCHVISION,
    "mmselfsup": MM,
    "timm": [],
    "torchvision": TORCHVISION,
    "efficientnet": [],  # renamed later, since its rules depend on the timm model
}
EFFICIENTNET: Rules = [
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._se_reduce\.", ".se.conv_reduce."),
    (r"\._se_expand\.", ".se.conv_expand."),
]
"""EfficientNet-PyTorch's layers outside of blocks: see `_rename_efficientnet`."""
INVERTED_RESIDUAL: Rules = [
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn0\.", ".bn1."),
    (r"\._bn1\.", ".bn2."),
    (r"\._bn2\.", ".bn3."),
]
"""Layers of an inverted bottleneck with an expansion convolution."""
DEPTHWISE_SEPARABLE: Rules = [
    (r"\._project_conv\.", ".conv_pw."),
    (r"\._bn1\.", ".bn1."),
    (r"\._bn2\.", ".bn2."),
]
"""Layers of a block without an expansion convolution."""

NamedTensors = dict[str, Tensor]
HEAD = re.compile(r"(?:fc|heads?|classifier|head_dist|prototypes|linear|mask_token)\b")
"""Start of the names of heads and of the mask token, which an encoder does not have."""
Stem = Literal["small", "standard"]


class Match(NamedTuple):
    """How many tensors of a checkpoint match a network."""

    matched: int
    """Number of the network's tensors that were loaded."""
    missing: list[str]
    """Names of the network's tensors that the checkpoint does not have in the same shape."""
    unused: list[str]
    """Names of the checkpoint's encoder tensors that the network does not have."""

    def __str__(self) -> str:
        """A cell of a table: "75 of 100 tensors; not layer4.0.conv1.weight, ..."."""
        text = f"{self.matched} of {self.matched + len(self.missing)} tensors"
        if self.missing:
            text += f"; not {', '.join(self.missing[:3])}{'...' if len(self.missing) > 3 else ''}"
        return text


def read_third_party(file: Path, format: Format, *, teacher: bool = False) -> NamedTensors:
    """Read the encoder's tensors from a checkpoint of another project.

    Args:
        file: the checkpoint.
        format: the project that wrote it.
        teacher: read the moving average (EMA) of the network instead of the trained one.

    Returns:
        Tensors by timm's names, without heads. With format "timm", heads too, and names are only
        freed of wrappers such as "vit."; with "efficientnet", that project's names, which
        `load_third_party` translates.

    Raises:
        UserError: the file cannot be read, or has no such network, or no moving average, in it.
    """
    content = read_file(file)
    if teacher:
        _require_teacher(content, file, format)
    content = _find_tensors(content, format, teacher)
    require(isinstance(content, dict), f"{file} holds no named tensors")
    named = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", str(k)): v for k, v in content.items()}
    named = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    encoder_prefixes = PREFIXES[format]
    if teacher and format in TEACHER_PREFIXES:
        encoder_prefixes = TEACHER_PREFIXES[format]
        held = any(key.startswith(encoder_prefixes) for key in named)
        require(held, f"{file} has no moving average: none of {', '.join(encoder_prefixes)}")
    other = " (--teacher reads the moving average)" if "teacher" in content else ""
    entries = ", ".join(map(str, list(content)[:5])) + other
    require(bool(named), f"{file} has no network where --format {format} keeps it, but {entries}")
    for prefixes in (encoder_prefixes, WRAPPER_PREFIXES):
        named = _select_prefix(named, prefixes)
    return named if format == "timm" else _rename_to_timm(named, format)


def _require_teacher(content: Any, file: Path, format: Format) -> None:
    """Refuse a format or file without a moving average; prefixes are checked on selection."""
    if format in TEACHER_PREFIXES:
        return
    places = TEACHER_LOCATIONS.get(format, ())
    require(bool(places), f"--format {format} has no moving average: leave --teacher out")
    held = isinstance(content, dict) and any(isinstance(content.get(p), dict) for p in places)
    require(held, f"{file} has no moving average: no {' or '.join(places)} in it")


def _find_tensors(content: Any, format: Format, teacher: bool) -> Any:
    """Return the entry of a file that holds the tensors, or the whole content."""
    first = (TEACHER_LOCATIONS if teacher else STUDENT_LOCATIONS).get(format, ())
    for location in (*first, *LOCATIONS[format]):
        entry = content
        for key in location.split("."):
            entry = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(entry, dict):
            return entry
    return content


def _select_prefix(named: NamedTensors, prefixes: tuple[str, ...]) -> NamedTensors:
    """Keep the tensors with the first prefix that occurs, without it; all if none occurs."""
    for prefix in prefixes:
        selected = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
        if selected:
            return selected
    return named


def _rename(key: str, rules: Rules) -> str:
    for pattern, name in rules:
        key = re.sub(pattern, name, key)
    return key


def _rename_to_timm(named: NamedTensors, format: Format) -> NamedTensors:
    """Translate names into timm's and drop heads."""
    rules = RULES[format]
    if any(re.match(r"4\.0\.conv1", key) for key in named):
        rules = SEQUENTIAL_RESNET
    elif any(re.match(r"2\.0\.conv1", key) for key in named):
        rules = SMALL_SEQUENTIAL_RESNET
    renamed = {}
    for key, value in named.items():
        key = _rename(key, rules)
        if not HEAD.match(key):
            renamed[key] = value
    registers = renamed.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= renamed.keys():
        # DINOv2 adds a position to the class token, timm with registers does not: added here
        position = renamed["pos_embed"]
        renamed["reg_token"] = registers
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed["pos_embed"] = position[:, 1:]
    return renamed


def load_third_party(model: nn.Module, named: NamedTensors, file: Path, format: Format) -> Match:
    """Load tensors of another project into a timm model, in place.

    Position embeddings of another image size are resampled. Settings that tensors do not contain
    (numbers of heads, paddings, activations) are changed to the project's.

    Args:
        model: the timm model.
        named: tensors from `read_third_party`.
        file: the checkpoint, for the error message.
        format: the project that wrote it.

    Returns:
        Which tensors of the model and of the checkpoint matched.

    Raises:
        UserError: no tensor matches.
    """
    named = _rename_efficientnet(named, model) if "_conv_stem.weight" in named else named
    state = model.state_dict()
    position = named.get("pos_embed")
    if position is not None and "pos_embed" in state and position.shape != state["pos_embed"].shape:
        prefix = int(getattr(model, "num_prefix_tokens", 1))
        tokens = 0 if getattr(model, "no_embed_class", False) else prefix
        size = getattr(model, "patch_embed").grid_size  # noqa: B009  (no attribute of nn.Module's)
        resampled = resample_abs_pos_embed(position, new_size=size, num_prefix_tokens=tokens)
        named = {**named, "pos_embed": resampled}
    matching = {k: v for k, v in named.items() if k in state and state[k].shape == v.shape}
    names = f"{len(named)} tensors such as {', '.join(list(named)[:3])}"
    check = f"Check --format {format} and the model's name"
    require(bool(matching), f"no tensor of {file} fits the model; it has {names}. {check}")
    model.load_state_dict(matching, strict=False)
    _apply_project_settings(model, format, named)
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    missing = [key for key in state if key not in matching and key not in counters]
    return Match(
        len(state.keys() - counters) - len(missing),
        missing,
        [k for k in named if k not in matching and k not in counters and not HEAD.match(k)],
    )


def _rename_efficientnet(named: NamedTensors, model: Any) -> NamedTensors:
    """Translate EfficientNet-PyTorch's names into timm's.

    EfficientNet-PyTorch counts all blocks in one list, timm counts them within stages: if the first
    stage has one block, `_blocks.1` is timm's `blocks.1.0`.
    """
    positions = [(s, i) for s, stage in enumerate(model.blocks) for i in range(len(stage))]
    expanding = {key.split(".")[1] for key in named if "._expand_conv." in key}
    renamed = {}
    for key, value in named.items():
        rules: Rules = list(EFFICIENTNET)
        block = re.match(r"_blocks\.(\d+)\.", key)
        if block and int(block[1]) < len(positions):
            stage, index = positions[int(block[1])]
            rules += INVERTED_RESIDUAL if block[1] in expanding else DEPTHWISE_SEPARABLE
            rules.append((r"^_blocks\.\d+\.", f"blocks.{stage}.{index}."))
        key = _rename(key, rules)
        if not key.startswith("_fc."):
            renamed[key] = value
    return renamed


def _apply_project_settings(model: Any, format: Format, named: NamedTensors) -> None:
    """Set heads, paddings and activations to the project's, in place, where timm's differ."""
    stem = named.get("conv1.weight")
    if format == "solo" and stem is not None and stem.shape[-1] == 3:
        model.conv1.padding = (2, 2)  # solo-learn's stem for CIFAR
    if format == "lightly" and stem is not None and stem.shape[-1] == 3:
        # lightly takes the children of its ResNet, whose ReLU after the stem is in its forward
        model.act1 = nn.Identity()
    if format == "moco" and getattr(model, "embed_dim", 0) == 384:
        for module in model.modules():  # MoCo v3's ViT-S has twelve heads, timm's six
            if hasattr(module, "num_heads"):
                module.num_heads, module.head_dim, module.scale = 12, 32, 32**-0.5


def detect_stem(named: NamedTensors) -> Stem:
    """Detect a ResNet's stem from its first convolution: 3 x 3 is the one for small images."""
    first: Tensor | None = named.get("conv1.weight")
    return "small" if first is not None and first.shape[-1] == 3 else "standard"
