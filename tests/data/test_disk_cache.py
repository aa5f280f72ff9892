"""The cache of remote images: bounded, shared, and never damaged by whoever is killed."""

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from selfsup.core.errors import UserError
from selfsup.data.disk_cache import UNIT, DiskCache

MOST = 400 * UNIT
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")


def content(i: int, units: float = 2.5) -> bytes:
    return np.random.default_rng(i).bytes(int(units * UNIT))


def on_disk(folder: Path) -> int:
    """Bytes of all entries in whole units."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name not in ("total", "evicting")]
    return sum(-(-f.stat().st_size // UNIT) * UNIT for f in files)


def test_what_is_kept_comes_back_also_in_another_process(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MOST)
    for i in range(20):
        cache.put(f"a\n{i}", content(i, i / 3))
    for opened in (cache, DiskCache(tmp_path, MOST)):
        assert all(opened.get(f"a\n{i}") == content(i, i / 3) for i in range(20))
        assert opened.get("a\n20") is None
        assert opened.get("a\n1 ") is None


def test_the_size_is_kept_and_what_was_unused_for_longest_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MOST)
    for i in range(1000):
        cache.put(str(i), content(i))
        assert cache.get("7") == content(7) or i < 7  # in use all the time
        if i % 50 == 0:
            assert on_disk(tmp_path) <= MOST
    kept = [i for i in range(1000) if cache.get(str(i)) is not None]
    assert len(kept) > 0.8 * MOST / (3 * UNIT)
    assert kept == [7, *range(kept[1], 1000)]


def test_an_entry_of_more_than_a_quarter_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MOST)
    cache.put("large", content(1, 100.5))
    cache.put("quarter", content(2, 99.5))
    assert cache.get("large") is None
    assert cache.get("quarter") == content(2, 99.5)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "longer"])
def test_a_damaged_entry_is_no_entry_and_is_replaced(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, MOST)
    cache.put("a", content(1))
    (file,) = tmp_path.glob("??/*")
    data = file.read_bytes()
    flipped = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    file.write_bytes(
        {"cut": data[:-9], "flipped": flipped, "empty": b"", "longer": data + b"x"}[damage]
    )
    assert cache.get("a") is None
    cache.put("a", content(1))
    assert cache.get("a") == content(1)


def fill(folder: Path, first: int, entries: int) -> None:
    cache = DiskCache(folder, MOST)
    for i in range(first, first + entries):
        data = cache.get(str(i % 500))
        assert data is None or data == content(i % 500)
        cache.put(str(i % 500), content(i % 500))


@POSIX
def test_processes_that_write_at_once_keep_the_size_and_every_entry_whole(tmp_path: Path) -> None:
    writers = [
        multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path, 97 * i, 400))
        for i in range(4)
    ]
    for writer in writers:
        writer.start()
    sizes = []
    while running := [writer.pid for writer in writers if writer.is_alive()]:
        for pid in running:
            os.kill(pid or 0, signal.SIGSTOP)  # not reaped yet, so that it is still there
        time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):  # one had not stopped yet
            sizes.append(on_disk(tmp_path))
        for pid in running:
            os.kill(pid or 0, signal.SIGCONT)
        time.sleep(0.05)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert 0 < max(sizes) <= MOST
    assert on_disk(tmp_path) > MOST / 2
    cache = DiskCache(tmp_path, MOST)
    kept = [i for i in range(500) if (data := cache.get(str(i))) is not None and data == content(i)]
    assert len(kept) == len([*tmp_path.glob("??/*")])


@POSIX
def test_processes_killed_anywhere_leave_only_whole_entries(tmp_path: Path) -> None:
    for attempt in range(12):
        writer = multiprocessing.get_context("fork").Process(
            target=fill, args=(tmp_path, 61 * attempt, 10_000)
        )
        writer.start()
        time.sleep(0.01 + 0.007 * attempt)
        writer.kill()
        writer.join()
    cache = DiskCache(tmp_path, MOST)
    kept = {i: data for i in range(500) if (data := cache.get(str(i))) is not None}
    assert len(kept) == len([*tmp_path.glob("??/*")]) > 10
    assert all(data == content(i) for i, data in kept.items())
    fill(tmp_path, 0, 500)  # no lock is left behind
    assert on_disk(tmp_path) <= MOST


def test_what_killed_processes_were_writing_is_removed_with_the_next_entries(
    tmp_path: Path,
) -> None:
    cache = DiskCache(tmp_path, MOST)
    (tmp_path / "tmp-1-1-1").write_bytes(b"half an entry")
    for i in range(400):
        cache.put(str(i), content(i))
    assert not [*tmp_path.glob("tmp-*")]


@pytest.mark.parametrize("text", [None, b"", b"nonsense", b"\xff" * 20])
def test_a_lost_count_is_counted_again(tmp_path: Path, text: bytes | None) -> None:
    cache = DiskCache(tmp_path, MOST)
    for i in range(50):
        cache.put(str(i), content(i))
    before = int((tmp_path / "total").read_bytes())
    assert before == on_disk(tmp_path)
    (tmp_path / "total").unlink()
    if text is not None:
        (tmp_path / "total").write_bytes(text)
    cache.put("new", content(99))
    assert int((tmp_path / "total").read_bytes()[:20]) == before + 3 * UNIT


def test_a_folder_that_fails_later_keeps_nothing_and_says_so_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(tmp_path, MOST)
    cache.put("a", content(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for i in range(3):
        cache.put(str(i), content(i))
    assert cache.get("a") == content(1)
    assert cache.get("0") is None
    assert not [*tmp_path.glob("tmp-*")]
    assert capfd.readouterr().err.replace("\n", " ").count("cannot be written (No space") == 1


def test_a_cache_that_cannot_be_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"):
        DiskCache(tmp_path / "file", MOST)
    with pytest.raises(UserError, match=r"--cache.gb 0.0001 is too small: give 0.01 or more"):
        DiskCache(tmp_path / "small", 100_000)
