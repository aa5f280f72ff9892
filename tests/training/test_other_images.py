"""Images beside those that are trained on have fingerprints as well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import folder, many_classes, picture
from workers.calls import SMALL

import selfsup
from selfsup.core.errors import UnusableError

RANKING = SMALL | {"classes": 3, "images": 2, "save_every": 1, "report": False}


def repainted(root: Path) -> None:
    """Give every image of a folder another content under its name."""
    for i, file in enumerate(sorted(root.rglob("*.png"))):
        picture(i % 3, 1000 + i).save(file)


@pytest.mark.parametrize("flag", ["data", "keep"])
def test_other_images_to_validate_on_are_refused_and_named(flag: str, tmp_path: Path) -> None:
    images, others = folder(tmp_path / "images"), folder(tmp_path / "others", 3, 3)
    settings = RANKING | {"probe": {flag: str(others), "every": 2}}
    selfsup.finetune(images, out=tmp_path / "run", loss="triplet", **settings)
    selfsup.finetune(images, out=tmp_path / "run", loss="triplet", **settings)
    repainted(others)
    with pytest.raises(UnusableError, match=rf"of --probe\.{flag} .*: the content of .* -> "):
        selfsup.finetune(images, out=tmp_path / "run", loss="triplet", **settings)
    selfsup.finetune(images, out=tmp_path / "run", loss="triplet", **settings, other_images=True)


def test_other_images_of_held_out_classes_are_refused(tmp_path: Path) -> None:
    file = many_classes(tmp_path / "many.npz")
    settings = RANKING | {"probe": {"every": 4}}
    selfsup.finetune(file, out=tmp_path / "run", loss="triplet", **settings)
    arrays = dict(np.load(file))
    arrays["images"] = arrays["images"][:, ::-1]
    np.savez(file, **arrays)
    with pytest.raises(UnusableError, match="used other images before"):
        selfsup.finetune(file, out=tmp_path / "run", loss="triplet", **settings)
    with pytest.raises(UnusableError, match="holds classes out"):
        selfsup.finetune(file, out=tmp_path / "run", loss="triplet", **settings, other_images=True)


def test_a_pretraining_probe_refuses_other_images_under_its_name(tmp_path: Path) -> None:
    images, others = folder(tmp_path / "images"), folder(tmp_path / "others", 3, 3)
    settings: dict[str, Any] = SMALL | {"batch": 8, "save_every": 1, "report": False}
    probed: dict[str, Any] = {"probe": {"data": str(others), "every": 2, "k": 3}}
    selfsup.pretrain(images, out=tmp_path / "run", **settings, **probed)
    (next(others.rglob("*.png"))).unlink()
    with pytest.raises(UnusableError, match=r"of --probe\.data .*: 9 images -> 8"):
        selfsup.pretrain(images, out=tmp_path / "run", **settings, **probed)
    selfsup.pretrain(images, out=tmp_path / "run", **settings)  # without a probe it does not matter


def test_other_images_not_to_forget_can_be_gone_on_with_where_classes_are_held_out(
    tmp_path: Path,
) -> None:
    file, others = many_classes(tmp_path / "many.npz"), folder(tmp_path / "others", 3, 3)
    settings = RANKING | {"probe": {"every": 4, "keep": str(others)}}
    selfsup.finetune(file, out=tmp_path / "run", loss="triplet", **settings)
    repainted(others)
    selfsup.finetune(file, out=tmp_path / "run", loss="triplet", **settings, other_images=True)
