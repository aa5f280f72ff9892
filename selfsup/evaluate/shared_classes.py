"""Classes of two sets of images, matched by name: those of only one are refused or counted."""

import re
from collections.abc import Sequence

import torch

from selfsup.core.errors import UserError
from selfsup.evaluate.features import Features


def match_classes(train: Features, test: Features, train_name: str, test_name: str) -> Features:
    """Number the labels of `test` by the classes of `train`.

    Args:
        train: images with labels; or a gallery.
        test: images that they are compared with; or queries.
        train_name: where `train` is from, for the message.
        test_name: the same of `test`.

    Raises:
        UserError: no class has images in both, or one name stands for two classes.
    """
    doubled = doubled_names(train.classes) | doubled_names(test.classes)
    if doubled and list(train.classes) != list(test.classes):
        raise UserError(
            f"{train_name} and {test_name}: {len(doubled)} names stand for two classes each, such "
            f"as {min(doubled)!r}, and the lists of classes differ, so that classes cannot be "
            "matched by name"
        )
    try:
        matched = test.with_classes(train.classes)
    except ValueError as error:
        raise UserError(f"{train_name} and {test_name}: {error}") from None
    if not bool(torch.isin(matched.labels, train.labels).any()):
        ours, theirs = train.class_names(), test.class_names()
        raise UserError(
            f"no class of {test_name} ({_some(theirs)}) is a class of {train_name} "
            f"({_some(ours)}): classes are matched by name. Write the labels of both alike"
        )
    return matched


def doubled_names(classes: Sequence[str]) -> set[str]:
    """Names that stand for several classes, which reading told apart by their numbers.

    >>> doubled_names(["crane (134)", "crane (517)", "emu", "cat (2)"])
    {'crane'}
    """
    numbered = [match[1] for name in classes if (match := re.fullmatch(r"(.+) \(\d+\)", name))]
    return {name for name in numbered if numbered.count(name) > 1}


def unknown_classes(train: Features, test: Features) -> str:
    """Say how many test images are of classes that train lacks; empty if none is."""
    unknown = ~torch.isin(test.labels, train.labels)
    if not bool(unknown.any()):
        return ""
    names = [test.classes[label] for label in test.labels[unknown].unique().tolist()]
    return (
        f"{int(unknown.sum())} of {len(test.x)} test images are of {len(names)} classes without an "
        f"image in train ({_some(names)}): they count as wrong"
    )


def _some(names: list[str]) -> str:
    """The first three names, for a sentence."""
    return ", ".join(map(repr, names[:3])) + (f"... {len(names)} in all" if len(names) > 3 else "")
