"""Settings of the local cache of images at a URL."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where images of a URL are kept on a local disk."""

    dir: str = ""
    """Folder that keeps what was read of packs and tar shards at a URL, for the next epoch and the
    next run. Processes and runs of one machine may share it. Empty: nothing is kept."""
    gb: float = 10.0
    """Most disk space of that folder, in GB of 10^9 bytes. What was unused for longest goes
    first."""
