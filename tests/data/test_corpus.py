"""Some fifty broken and odd files: audit, training and evaluation give each the same verdict."""

import math
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_files import GOOD, PNG, WHOLE, write

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.config import ViewsConfig
from selfsup.data import decode as decoding
from selfsup.data.audit import audit
from selfsup.data.decode import BadImage, decode_bytes
from selfsup.data.loader import read_ahead
from selfsup.data.open import open_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ImageSource, Source
from selfsup.evaluate.baselines import Pixels
from selfsup.evaluate.features import extract
from selfsup.training.pretrain import local_batches


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, dict[str, str]]:
    root = tmp_path_factory.mktemp("corpus")
    verdicts = {f"odd/{name}": verdict for name, verdict in write(root / "odd").items()}
    (root / "more").mkdir()
    (root / "more" / "good.png").write_bytes(PNG)
    return open_source(str(root)), verdicts | {"more/good.png": GOOD}


def test_there_are_forty_files_and_more(corpus: tuple[Source, dict[str, str]]) -> None:
    source, verdicts = corpus
    assert {source.name(i) for i in range(len(source))} == set(verdicts)
    assert len(verdicts) > 40


def test_the_audit_gives_each_file_its_verdict(corpus: tuple[Source, dict[str, str]]) -> None:
    source, verdicts = corpus
    actual = audit(source, "corpus", threads=2)
    bad = {actual.names[i]: why for i, why in actual.bad.items()}
    assert bad.keys() == {name for name, verdict in verdicts.items() if verdict != GOOD}
    for name, why in bad.items():
        assert verdicts[name] in why, name
    assert actual.turned == 7  # 2 to 8; 77 means nothing
    assert actual.sixteen_bits == 1


def test_training_and_evaluation_say_what_the_audit_says(
    corpus: tuple[Source, dict[str, str]],
) -> None:
    source, _ = corpus
    bad = audit(source, "corpus").bad
    sampler = ShuffleSampler(len(source), batch=len(source), seed=0)
    batches = local_batches(source, sampler, ViewsConfig(size=8), 0)
    (read,) = read_ahead(batches, [0], workers=0)
    assert read.bad == bad
    features = extract(Pixels(), source, ViewsConfig(size=8), device=torch.device("cpu"), workers=0)
    assert features.bad == len(bad)
    assert set(features.positions.tolist()) == set(range(len(source))) - bad.keys()


def test_a_file_that_vanishes_after_it_was_listed_is_bad(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(WHOLE)
    source = open_source(str(tmp_path))
    (tmp_path / "b.jpg").unlink()
    crops = source.crops([1], CropSpec(CenterBoxes(1, 1.0), 8, "bilinear"))
    assert "No such file" in crops.bad[1]


CHANGES = st.tuples(
    st.sampled_from([WHOLE, PNG]),
    st.one_of(st.none(), st.floats(0, 1)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6),
)


def broken(data: bytes, cut: float | None, flips: list[tuple[float, int]]) -> bytes:
    """Cut to a fraction of its length, with bits flipped at fractions of it."""
    changed = bytearray(data if cut is None else data[: math.floor(cut * len(data))])
    for place, bit in flips:
        if changed:
            changed[math.floor(place * len(changed))] ^= 1 << bit
    return bytes(changed)


def verdict(data: bytes) -> bytes | str:
    try:
        return decode_bytes(data).tobytes()
    except BadImage as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(CHANGES)
def test_whatever_is_cut_or_flipped_is_an_image_or_bad_in_two_seconds(
    change: tuple[bytes, float | None, list[tuple[float, int]]],
) -> None:
    began = time.process_time()
    actual = verdict(broken(*change))
    assert time.process_time() - began < 2
    assert actual


@settings(max_examples=200, deadline=None)
@given(CHANGES)
def test_the_quick_decoder_of_jpegs_agrees_with_pillow(
    change: tuple[bytes, float | None, list[tuple[float, int]]],
) -> None:
    data = broken(*change)
    with patch.object(decoding, "_plain_jpeg", return_value=None):
        by_pillow = verdict(data)
    assert verdict(data) == by_pillow


def test_a_source_of_bytes_and_one_of_pixels_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(WHOLE)
    files = open_source(str(tmp_path))
    pixels = ImageSource(lambda i: decode_bytes(WHOLE), ["a"], None, [])
    assert files.stored(0) == WHOLE
    assert pixels.stored(0) is None
    cut = CropSpec(CenterBoxes(1, 0.7), 9, "bicubic")
    assert torch.equal(files.crops([0], cut).images[0], pixels.crops([0], cut).images[0])
