"""Published weights of timm models: from the cache of this machine, or from a hub if named."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import timm
import timm.models._hub
import torch

from selfsup.core.distributed import main_process_first
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.progress import say

TIMM = "timm:"
HUBS = ("hf-hub:", "hf_hub:")
REACHED = 10.0
"""Seconds in which a hub has to answer."""


def base_name(name: str) -> str:
    """Return the name of the network without the weights' tag: resnet18.a1_in1k -> resnet18."""
    return name.partition(".")[0]


def is_published(init: str) -> bool:
    """Whether a setting names published weights: "timm:NAME" or "hf-hub:NAME"."""
    return init.startswith((TIMM, *HUBS))


def published_name(init: str) -> str:
    """Return the name that timm knows published weights by: "timm:NAME" -> NAME, "hf-hub:NAME".

    Raises:
        UserError: timm has no such network, or no published weights of it.
    """
    for prefix in HUBS:
        if init.startswith(prefix):
            return f"hf-hub:{init.removeprefix(prefix)}"
    name = init.removeprefix(TIMM)
    guess = did_you_mean(name, timm.list_models(pretrained=True))
    require(timm.is_model(base_name(name)), f"timm has no model {name!r}{guess}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base_name(name)}.*")]
    require(bool(tags), f"timm has no published weights of {name!r}")
    _, _, tag = name.partition(".")
    require(
        tag in ("", *tags),
        f"timm has no weights {name!r}, but of {base_name(name)}: {', '.join(tags)}",
    )
    return name


def timm_settings(name: str) -> dict[str, Any]:
    """The preprocessing of a timm model's published weights, or of the network if it has none."""
    settings: Any = timm.get_pretrained_cfg(name)
    if settings is None:
        settings = timm.create_model(base_name(name)).pretrained_cfg
    return settings if isinstance(settings, dict) else dict(settings.to_dict())


def create_published(name: str, **arguments: Any) -> Any:
    """Create a timm model, without its classifier, with its published weights.

    They are read from the cache of this machine; if they are not there, one process downloads
    them, with a line and a bar, and the others read them then.

    Args:
        name: from `published_name`.
        arguments: of timm.create_model, for images of another size.

    Raises:
        UserError: they are not in the cache and no network can be reached, or they do not fit.
    """
    with main_process_first():
        try:
            with _no_network():
                return _create(name, arguments)
        except (TypeError, AssertionError) as error:
            raise UserError(f"timm cannot make {name} with {arguments}: {error}") from None
        except Exception:  # the hub's client raises many kinds when it has to stay offline
            say(f"downloading the weights of {name}")
        try:
            _reach_hub(name)
            return _create(name, arguments)
        except Exception as error:
            sentence = " ".join(str(error).split())[:160]
            raise UserError(
                f"the weights of {name} are not on this machine and cannot be downloaded "
                f'({sentence}). Where there is a network, run: python -c "import timm; '
                f"timm.create_model('{name}', pretrained=True)\", and copy the cache "
                f"({huggingface_hub.constants.HF_HUB_CACHE}), or give the file with --init FILE"
            ) from None


def _create(name: str, arguments: dict[str, Any]) -> Any:
    return timm.create_model(name, pretrained=True, num_classes=0, **arguments)


def _reach_hub(name: str) -> None:
    """Connect to the hub that has the weights, since its client tries for a minute without a word.

    Behind a proxy, or where weights lie elsewhere, nothing is tried.

    Raises:
        OSError: it cannot be reached.
    """
    elsewhere = not name.startswith(HUBS) and not timm_settings(name).get("hf_hub_id")
    if elsewhere or getproxies():
        return
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    socket.create_connection((hub.hostname or "", port), timeout=REACHED).close()


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
