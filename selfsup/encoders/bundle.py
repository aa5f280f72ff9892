"""A bundle: one folder with all that turns an image into an embedding and into an answer.

encoder/       config.json and model.safetensors for timm
bundle.json    preprocessing, normalisation, distance, threshold, figures
model.onnx     the same network for other runtimes, if it was asked for

Shape letters: b images, c channels, h and w of an image, s side in pixels, d width.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfsup.augment.apply import standardize
from selfsup.augment.boxes import CenterBoxes
from selfsup.augment.resample import resized_array_crops
from selfsup.config import ViewsConfig
from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize
from selfsup.core.version import __version__
from selfsup.data.decode import decode
from selfsup.encoders.encoder import Encoder, crop_share, export, load

FORMAT = 1
CHECKED = (1, 2, 5)  # batch sizes that an ONNX file is compared with torch on
CLOSE = 1e-4  # the most that one of its embeddings may differ


class Embedder(nn.Module):
    """Images to embeddings, everything between included."""

    def __init__(self, encoder: Encoder, views: ViewsConfig, facts: dict[str, Any]) -> None:
        """Of an encoder, its evaluation view, and what the bundle says besides."""
        super().__init__()
        self.encoder = encoder
        self.views = views
        self.facts = facts
        self.eval()

    @property
    def threshold(self) -> float | None:
        """Cosine above which two images are of the same thing, or None if nobody measured it."""
        found = self.facts.get("threshold")
        return None if found is None else float(found)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of length 1.

        Args:
            images: uint8 [b, c, h, w], of any one size: the shorter side is resized and the centre
                cut; or floats in [0, 1] that are [b, c, s, s] already.

        Returns:
            float32 [b, d].
        """
        if images.dtype == torch.uint8:
            size = self.views.size
            boxes = CenterBoxes(len(images), crop_share(size)).resolve(*images.shape[2:])
            rows = images.cpu().permute(0, 2, 3, 1)
            crops = resized_array_crops(rows, boxes, size, self.views.interpolation)[:, 0]
            images = crops.to(images.device).float() / 255
        x = standardize(images, self.views.mean, self.views.std)
        return normalize(self.encoder(x).float())

    @torch.inference_mode()
    def embed(self, files: Sequence[str | Path]) -> Tensor:
        """Embeddings of image files, float32 [b, d].

        Raises:
            BadImage: one cannot be read.
        """
        device = next(self.parameters()).device
        rows = []
        for file in files:
            image = torch.from_numpy(np.array(decode(Path(file), self.views.channels)))
            rows.append(self(image.permute(2, 0, 1)[None].to(device)).cpu())
        return torch.cat(rows) if rows else torch.zeros(0, self.encoder.dim)


def load_bundle(folder: str | Path) -> Embedder:
    """The module of a bundle, or of a finished run.

    Raises:
        UserError: it is neither, or of a newer version.
    """
    folder = Path(folder)
    encoder, views = load(folder)
    file = folder / "bundle.json"
    facts: dict[str, Any] = {}
    if file.exists():
        try:
            facts = dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file} cannot be read: {error}") from None
        if facts.get("format", 0) > FORMAT:
            raise UserError(
                f"{folder} was written by a newer selfsup (format {facts['format']}, known "
                f"{FORMAT}): pip install -U selfsup"
            )
    return Embedder(encoder, views, facts | {"threshold": threshold_of(folder)})


def threshold_of(run: Path) -> float | None:
    """What tools/verify.py found for a run, or what a bundle came with."""
    for name, keys in (("verify.json", ("facts", "threshold")), ("bundle.json", ("threshold",))):
        try:
            found = json.loads((run / name).read_text())
            for key in keys:
                found = found[key]
            return float(found)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def write_bundle(run: Path, out: Path, *, onnx: bool = False) -> dict[str, float]:
    """Write a run's bundle aside and put it in place when it is whole.

    Args:
        run: a finished run; figures and the threshold are what tools wrote beside it.
        out: the new folder.
        onnx: also write model.onnx, and compare it.

    Returns:
        The largest difference of an ONNX embedding, for each batch size it was compared on.

    Raises:
        UserError: the run is not whole, the folder holds something else, or ONNX is missing.
    """
    encoder, views = load(run)
    taken = out.exists() and not (out / "bundle.json").exists()
    if taken and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no bundle; choose another --out")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    export(encoder, aside / "encoder", views)
    facts = {
        "format": FORMAT,
        "selfsup": __version__,
        "width": encoder.dim,
        "distance": "cosine",
        "embeddings": "scaled to length 1",
        "preprocessing": {
            "size": views.size,
            "share of the shorter side": crop_share(views.size),
            "interpolation": views.interpolation,
            "mean": views.mean,
            "std": views.std,
        },
        "threshold": threshold_of(run),
        "figures": _figures(run),
    }
    (aside / "bundle.json").write_text(json.dumps(facts, indent=2) + "\n")
    apart = export_onnx(Embedder(encoder, views, facts), aside / "model.onnx") if onnx else {}
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
    return apart


def _figures(run: Path) -> dict[str, Any]:
    """What tools measured: their figures, facts and which images they were of."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found |= json.loads((run / "bundle.json").read_text())["figures"]  # of a bundle
    for file in sorted(run.glob("*.json")):
        try:
            record = json.loads(file.read_text())
            found[file.stem] = {key: record[key] for key in ("figures", "facts", "settings")}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not one of ours
    return found


def export_onnx(embedder: Embedder, file: Path) -> dict[str, float]:
    """Write the network and compare it with torch; the largest difference for each batch size.

    Input `images`: float32 [b, c, s, s] in [0, 1]; output `embeddings`: [b, d] of length 1.

    Raises:
        UserError: a package is missing, the network cannot be exported, or it differs.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError:
        raise UserError("--onnx needs pip install 'selfsup[onnx]'") from None
    views = embedder.views
    shape = views.channels, views.size, views.size
    embedder.encoder.channels_last = False
    images = torch.rand(max(CHECKED), *shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            embedder,
            (images[:2],),
            file,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("images", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    apart = {}
    for size in CHECKED:
        with torch.inference_mode():
            expected = embedder(images[:size]).numpy()
        (found,) = session.run(None, {"images": images[:size].numpy()})
        apart[str(size)] = float(np.abs(found - expected).max())
    if max(apart.values()) > CLOSE:
        raise UserError(f"the ONNX file differs from torch by {max(apart.values()):.2g}")
    return apart
