"""Load checkpoints of other projects into timm models; only tensors are read, never code.

Three steps, each a table by format. Example: the tensor of MoCo v2's file that is stored as
`state_dict` / `module.encoder_q.layer1.0.conv1.weight`:

1. Locations: the tensors are in the file's entry "state_dict".
2. Prefixes: "encoder_q." marks the encoder; the projection head and the queue are left out.
3. Rules: regular expressions turn the remaining name into timm's, here `layer1.0.conv1.weight`.
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import timm
from torch import Tensor

from selfsup.config import Format
from selfsup.core.errors import require
from selfsup.encoders.third_party_names import (
    DEPTHWISE_SEPARABLE,
    EFFICIENTNET,
    INVERTED_RESIDUAL,
    LOCATIONS,
    MOBILENET_EXPANDING,
    MOBILENET_PLAIN,
    OUTER_NAMES,
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
    READ_ERRORS,
)

NamedTensors = dict[str, Tensor]
Stem = Literal["small", "standard"]


class MovingAverage(NamedTensors):
    """Tensors of a moving average that were read because the file has no other network."""


def select_tensors(
    content: Any, file: Path, format: Format, *, teacher: bool = False, marked: bool = False
) -> NamedTensors:
    """Select the encoder's tensors in the content of another project's checkpoint.

    Args:
        content: what `read_file` gave.
        file: the checkpoint, for the error message.
        format: the project that wrote it.
        teacher: take the moving average (EMA) of the network instead of the trained one. It is
            taken without this, too, if the file has no other network: as a `MovingAverage`.
        marked: refuse a file without the project's prefixes, which may be any project's.

    Returns:
        Tensors by timm's names, heads included. With format "timm" names are only freed of wrappers
        such as "vit."; with "efficientnet" and "authors" they are still the project's: `translate`
        needs the network.

    Raises:
        UserError: there is no such network, or no moving average, in it.
    """
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
    known = not marked or not encoder_prefixes
    known = known or any(key.startswith(encoder_prefixes) for key in named)
    require(
        bool(named) and known,
        f"{file} has no network where --format {format} keeps it, but {entries}",
    )
    for prefixes in (encoder_prefixes, WRAPPER_PREFIXES):
        named = _select_prefix(named, prefixes)
    named = _without_outer_names(named) if format == "timm" else _rename_to_timm(named, format)
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
    require(bool(places), f"--format {format} has no moving average: leave --moving-average out")
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


def _without_outer_names(named: NamedTensors) -> NamedTensors:
    """Remove what the names of all tensors begin with: "encoder.model.fc.bias" -> "fc.bias"."""
    for outer in OUTER_NAMES:
        if all(key.startswith(outer) for key in named):
            return _without_outer_names({k.removeprefix(outer): v for k, v in named.items()})
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


def translate(named: NamedTensors, model: Any, format: Format) -> NamedTensors:
    """Translate names whose rules depend on the timm model."""
    if "_conv_stem.weight" in named:
        return _rename_efficientnet(named, model)
    if format == "torchvision" and "features.1.conv.0.0.weight" in named:
        return _rename_mobilenet(named, model)
    return by_timms_converter(named, model) if format == "authors" else named


def by_timms_converter(named: NamedTensors, model: Any) -> NamedTensors:
    """Translate the names in a file of a network's authors by the converter that timm has for it.

    For CLIP, SigLIP, DINOv2 and v3, BEiT, EVA, Swin, ConvNeXt and others.
    """
    architecture = str(model.pretrained_cfg.get("architecture", ""))
    if not timm.is_model(architecture):
        return named
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    converter = getattr(module, "checkpoint_filter_fn", None)
    if converter is None:
        return named
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some print what they leave out
            converted: NamedTensors = converter(dict(named), model)
    except (*READ_ERRORS, AssertionError):
        return named  # not a file of these authors
    return converted


def _rename_efficientnet(named: NamedTensors, model: Any) -> NamedTensors:
    """Translate EfficientNet-PyTorch's names into timm's.

    EfficientNet-PyTorch counts all blocks in one list, timm counts them within stages: if the first
    stage has one block, `_blocks.1` is timm's `blocks.1.0`.
    """
    expanding = {key.split(".")[1] for key in named if "._expand_conv." in key}

    def rules_of(block: str) -> Rules:
        return INVERTED_RESIDUAL if block in expanding else DEPTHWISE_SEPARABLE

    places = _block_places(model, first=0)
    return _rename_blocks(named, r"^_blocks\.(\d+)\.", places, rules_of, EFFICIENTNET, "_fc.")


def _rename_mobilenet(named: NamedTensors, model: Any) -> NamedTensors:
    """Translate the names of torchvision's MobileNetV2 into timm's.

    torchvision counts the stem, all blocks and the last convolution in one list.
    """
    places = _block_places(model, first=1)
    last = len(places) + 1
    outer: Rules = [
        (r"^features\.0\.0\.", "conv_stem."),
        (r"^features\.0\.1\.", "bn1."),
        (rf"^features\.{last}\.0\.", "conv_head."),
        (rf"^features\.{last}\.1\.", "bn2."),
    ]

    def rules_of(block: str) -> Rules:
        expands = f"features.{block}.conv.3.weight" in named
        return MOBILENET_EXPANDING if expands else MOBILENET_PLAIN

    return _rename_blocks(named, r"^features\.(\d+)\.", places, rules_of, outer, "classifier.")


def _block_places(model: Any, *, first: int) -> dict[str, str]:
    """Where timm has the blocks that others count from `first`: {"0": "blocks.0.0."}."""
    if not hasattr(model, "conv_stem"):
        return {}  # no network of this kind
    places = [f"blocks.{s}.{i}." for s, stage in enumerate(model.blocks) for i in range(len(stage))]
    return {str(first + n): place for n, place in enumerate(places)}


def _rename_blocks(
    named: NamedTensors,
    pattern: str,
    places: Mapping[str, str],
    rules_of: Callable[[str], Rules],
    outer: Rules,
    head: str,
) -> NamedTensors:
    """Translate names whose blocks are counted in one list; tensors of the `head` are left out."""
    renamed = {}
    for key, value in named.items():
        rules = list(outer)
        block = re.match(pattern, key)
        if block and block[1] in places:
            rules += [*rules_of(block[1]), (pattern, places[block[1]])]
        key = _rename(key, rules)
        if not key.startswith(head):
            renamed[key] = value
    return renamed


def detect_stem(named: NamedTensors) -> Stem:
    """Detect a ResNet's stem from its first convolution: 3 x 3 is the one for small images."""
    first: Tensor | None = named.get("conv1.weight")
    return "small" if first is not None and first.shape[-1] == 3 else "standard"
