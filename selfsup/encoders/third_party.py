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

from torch import Tensor, nn

from selfsup.config import Format
from selfsup.core.errors import require
from selfsup.encoders.position_embeddings import fit_positions
from selfsup.encoders.third_party_names import (
    BUFFERS,
    DEPTHWISE_SEPARABLE,
    EFFICIENTNET,
    INVERTED_RESIDUAL,
    LAST_NORMS,
    LOCATIONS,
    PREFIXES,
    RULES,
    SEQUENTIAL_RESNET,
    SMALL_SEQUENTIAL_RESNET,
    STUDENT_LOCATIONS,
    TEACHER_LOCATIONS,
    TEACHER_PREFIXES,
    WRAPPER_PREFIXES,
    Rules,
)
from selfsup.encoders.weights import (
    first_names,
    is_of_encoder,
    read_file,
    require_same_network,
)

NamedTensors = dict[str, Tensor]
Stem = Literal["small", "standard"]


class MovingAverage(NamedTensors):
    """Tensors of a moving average that were read because the file has no other network."""


class Match(NamedTuple):
    """How many tensors of a checkpoint match a network."""

    matched: int
    """Number of the network's tensors that were loaded."""
    missing: list[str]
    """Names of the network's tensors that the checkpoint does not have in the same shape."""
    unused: list[str]
    """Names of the checkpoint's encoder tensors that the network does not have."""
    moving_average: bool = False
    """Whether they are a moving average's because the file has no other network."""

    def __str__(self) -> str:
        """A cell of a table: "75 of 100 tensors; not layer4.0.conv1.weight, ..."."""
        text = f"{self.matched} of {self.matched + len(self.missing)} tensors"
        if self.missing:
            text += f"; not {first_names(self.missing)}"
        if self.unused:
            text += f"; {len(self.unused)} of the file's unused: {first_names(self.unused)}"
        return text + "; the moving average, the file's only network" * self.moving_average


def read_third_party(file: Path, format: Format, *, teacher: bool = False) -> NamedTensors:
    """Read the encoder's tensors from a checkpoint of another project.

    Args:
        file: the checkpoint.
        format: the project that wrote it.
        teacher: read the moving average (EMA) of the network instead of the trained one. It is read
            without this, too, if the file has no other network: as a `MovingAverage`.

    Returns:
        Tensors by timm's names, heads included. With format "timm" names are only freed of wrappers
        such as "vit."; with "efficientnet" they are that project's, which `load_third_party`
        translates.

    Raises:
        UserError: the file cannot be read, or has no such network, or no moving average, in it.
    """
    content = read_file(file)
    only = not teacher and _has_only_teacher(content, format)
    if teacher:
        _require_teacher(content, file, format)
    content = _find_tensors(content, format, teacher or only)
    require(isinstance(content, dict), f"{file} holds no named tensors")
    named = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", str(k)): v for k, v in content.items()}
    named = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    encoder_prefixes = PREFIXES[format]
    if format in TEACHER_PREFIXES:
        averages = tuple(p for p in TEACHER_PREFIXES[format] if p not in encoder_prefixes)
        held = any(key.startswith(TEACHER_PREFIXES[format]) for key in named)
        sought = ", ".join(TEACHER_PREFIXES[format])
        require(held or not teacher, f"{file} has no moving average: none of {sought}")
        trained = any(key.startswith(encoder_prefixes) for key in named)
        only |= not teacher and not trained and any(key.startswith(averages) for key in named)
        encoder_prefixes = TEACHER_PREFIXES[format] if teacher or only else encoder_prefixes
    entries = ", ".join(map(str, list(content)[:5]))
    require(bool(named), f"{file} has no network where --format {format} keeps it, but {entries}")
    for prefixes in (encoder_prefixes, WRAPPER_PREFIXES):
        named = _select_prefix(named, prefixes)
    named = named if format == "timm" else _rename_to_timm(named, format)
    return MovingAverage(named) if only else named


def _has_only_teacher(content: Any, format: Format) -> bool:
    """Whether a file has a moving average in an entry of its own, and no other tensors."""
    if not isinstance(content, dict):
        return False
    others = _find_tensors(content, format, teacher=False)
    if any(isinstance(value, Tensor) for value in others.values()):
        return False
    return any(isinstance(content.get(p), dict) for p in TEACHER_LOCATIONS.get(format, ()))


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
    """Translate names into timm's."""
    rules = RULES[format]
    if any(re.match(r"4\.0\.conv1", key) for key in named):
        rules = SEQUENTIAL_RESNET
    elif any(re.match(r"2\.0\.conv1", key) for key in named):
        rules = SMALL_SEQUENTIAL_RESNET
    renamed = {_rename(key, rules): value for key, value in named.items()}
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
        UserError: no tensor matches, one has another shape, or too many of the
            checkpoint's encoder tensors have no place in the model.
    """
    moving_average = isinstance(named, MovingAverage)
    named = _rename_efficientnet(named, model) if "_conv_stem.weight" in named else named
    state = model.state_dict()
    named = fit_positions(_rename_last_norm(named, state), model, file)
    matching = {k: v for k, v in named.items() if k in state and state[k].shape == v.shape}
    names = f"{len(named)} tensors such as {', '.join(list(named)[:3])}"
    check = f"Check --format {format} and the model's name"
    require(bool(matching), f"no tensor of {file} fits the model; it has {names}. {check}")
    missing = [key for key in state if key not in matching and not BUFFERS.search(key)]
    unused = [key for key in named if key not in matching and is_of_encoder(key)]
    matched = sum(not BUFFERS.search(key) for key in matching)
    other = f"{file} is of another network"
    for key in unused:
        if key in state:
            shapes = f"{list(named[key].shape)}, the model's {list(state[key].shape)}"
            require(False, f"{other}: its {key} has shape {shapes}. Check the model and --size")
    require_same_network(unused, matched, other)
    model.load_state_dict(matching, strict=False)
    _apply_project_settings(model, format, named)
    return Match(matched, missing, unused, moving_average)


def _rename_last_norm(named: NamedTensors, state: NamedTensors) -> NamedTensors:
    """Rename the norm after pooling to `head.norm.`, where the network has that one alone."""
    if "head.norm.weight" not in state or "head.norm.weight" in named:
        return named
    for prefix in LAST_NORMS:
        if f"{prefix}weight" in named and f"{prefix}weight" not in state:
            return {
                f"head.norm.{k[len(prefix) :]}" if k.startswith(prefix) else k: v
                for k, v in named.items()
            }
    return named


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
