"""Packs and tar shards at a URL, one or a folder of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from selfsup.config import CacheConfig
from selfsup.core.errors import UserError
from selfsup.core.live import doing
from selfsup.core.notices import notice
from selfsup.core.paths import refuse_passwords
from selfsup.data.mixture import Mixture
from selfsup.data.pack import packed
from selfsup.data.remote import RemoteFile, open_cache
from selfsup.data.remote_stream import RemoteStream
from selfsup.data.remote_systems import list_urls
from selfsup.data.shards import VERSION, from_shards
from selfsup.data.sources import Source
from selfsup.data.tar_members import Shard, read_shard

SHARDS_AT_ONCE = 8
"""Shards whose members are read at a time."""
_listed: dict[str, tuple[list[str], list[Shard]]] = {}
"""Versions and members of the shards that were listed last: a run opens its images twice."""
named: set[str] = set()
"""URLs that were opened in this process because its user named them."""


def open_remote(url: str, *, labels: str, channels: int, cache: CacheConfig) -> Source:
    """Open a .pack or .tar at a URL, or all of a folder there in the order of their names.

    Raises:
        UserError: it is neither, cannot be read, or has a password in it.
    """
    refuse_passwords(url)
    named.add(url)
    kind = _suffix(url)
    urls = [url] if kind else _shards_of(url)
    kind = kind or _suffix(urls[0])
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        files = list(pool.map(lambda each: RemoteFile(each, cache), urls))
    if kind == ".pack":
        sources = [packed(file, labels=labels, channels=channels) for file in files]
        return sources[0] if urls == [url] else Mixture(sources, None)
    return from_shards(url, files, _members(url, files), labels=labels, channels=channels)


def _suffix(url: str) -> str:
    """.pack or .tar, whatever query follows; "" for anything else."""
    suffix = PurePosixPath(urlsplit(url.strip()).path).suffix.lower()
    return suffix if suffix in (".pack", ".tar") else ""


def _shards_of(url: str) -> list[str]:
    """List the tars of a folder, or its packs where it has no tars.

    Raises:
        UserError: it has neither.
    """
    name = urlsplit(url.strip()).path.rstrip("/").rpartition("/")[2]
    suffix = PurePosixPath(name).suffix
    if suffix and not url.endswith("/"):
        raise UserError(
            f"Cannot read {url}: at a URL only .pack, .tar and folders of them are read, not "
            f"{suffix}; selfsup pack makes a pack of any images"
        )
    there = list_urls(url.strip())
    found = [each for each in there if _suffix(each) == ".tar"]
    found = found or [each for each in there if _suffix(each) == ".pack"]
    if not found:
        raise UserError(
            f"{url} holds no .tar and no .pack ({len(there)} other names): at a URL only these "
            "are read; selfsup pack makes a pack of any images"
        )
    return found


def _members(url: str, files: list[RemoteFile]) -> list[Shard]:
    """Read which images each shard has, from the cache or in one pass through the shard."""
    versions = [f"{file.url} {file.version} {file.size} {file.cache.dir}" for file in files]
    if url in _listed and _listed[url][0] == versions:
        return _listed[url][1]
    doing(f"reading the members of {len(files)} shards")
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        shards = list(pool.map(_index, files))
    if not files[0].cache.dir:
        size = sum(file.size for file in files) / 1e9
        notice(
            f"{url}: to list the members of {len(files)} shards {size:.2f} GB were passed "
            "through, as at each start; --cache.dir FOLDER keeps the list"
        )
    _listed.clear()
    _listed[url] = versions, shards
    return shards


def _index(file: RemoteFile) -> Shard:
    cache = open_cache(file.cache)
    key = f"members {VERSION}\n{file.url}\n{file.version}\n{file.size}"
    if cache is not None and (stored := cache.get(key)) is not None:
        known: Shard = json.loads(stored)
        return known
    with RemoteStream(file) as stream:
        shard = read_shard(cast(BinaryIO, stream), str(file))
    if cache is not None:
        cache.put(key, json.dumps(shard).encode())
    return shard
