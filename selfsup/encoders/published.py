"""Published weights of timm models: from this machine's cache, never from a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import huggingface_hub.constants
import timm
import timm.models._hub
import torch

from selfsup.core.errors import UserError


def base_name(name: str) -> str:
    """Return the name of the network without the weights' tag: resnet18.a1_in1k -> resnet18."""
    return name.partition(".")[0]


def create_from_cache(name: str, **arguments: Any) -> Any:
    """Create a timm model, without its classifier, with published weights that were downloaded.

    Args:
        name: a timm name, with a tag for other weights than the usual ones.
        arguments: of timm.create_model, for images of another size.

    Raises:
        UserError: the weights are not on this machine, or cannot be read.
    """
    try:
        with _no_network():
            return timm.create_model(name, pretrained=True, num_classes=0, **arguments)
    except Exception as error:  # the hub's client raises many kinds when it has to stay offline
        sentence = " ".join(str(error).split())[:200]
        raise UserError(
            f"no pretrained weights of {name} lie on this machine ({sentence}). Where there is a "
            f"network, download them: timm.create_model({name!r}, pretrained=True)"
        ) from None


@contextmanager
def _no_network() -> Iterator[None]:
    """Let the clients of both hubs read their caches alone; a download is an error."""

    def refuse(url: str, *args: Any, **keywords: Any) -> None:
        raise FileNotFoundError(f"{url} is not in the cache")

    changes: list[tuple[Any, str, Any]] = [
        (huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        (torch.hub, "download_url_to_file", refuse),
        (timm.models._hub, "download_url_to_file", refuse),
    ]
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)
