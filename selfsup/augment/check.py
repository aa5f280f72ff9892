"""Checks of the settings of views, before a run starts."""

from selfsup.augment.kornia_steps import check_shapes
from selfsup.config import ViewsConfig
from selfsup.core.errors import require

PROBABILITIES = "flip quarter_turn rotate jitter grey blur solarize erase"
WIDTHS = "strength brightness contrast saturation hue gain degrees"


def check(views: ViewsConfig) -> None:
    """Check every number, and try kornia's classes.

    Raises:
        UserError: a setting has no meaning.
    """
    probabilities = {name: getattr(views, name) for name in PROBABILITIES.split()}
    for name in ("blur", "solarize"):
        probabilities[f"second.{name}"] = getattr(views.second, name) or 0.0
        probabilities[f"local.{name}"] = getattr(views.local, name)
    for name, p in probabilities.items():
        require(0 <= p <= 1, f"--views.{_flag(name)} is a probability, 0 to 1, not {p}")
    for name in WIDTHS.split():
        width = getattr(views, name)
        require(width >= 0, f"--views.{_flag(name)} must be 0 or more, not {width}")
    _range("area", views.area, most=1.0)
    _range("local.area", views.local.area, most=1.0)
    _range("erase_area", views.erase_area, most=1.0)
    for name in ("ratio", "erase_ratio", "sigma"):
        _range(name, getattr(views, name))
    require(all(c > 0 for c in views.std), f"--views.std must be above 0: {views.std}")
    require(0 <= views.crop <= 1, f"--views.crop must be from 0 to 1, not {views.crop}")
    least = min(views.sizes)
    sizes = "--views.size and --views.local.size"
    require(least > 1, f"{sizes} must be 2 pixels or more, not {least}")
    check_shapes(views.kornia, views.channels, views.sizes)


def _range(name: str, ends: tuple[float, float], most: float = float("inf")) -> None:
    low, high = ends
    limits = "above 0" if most == float("inf") else f"above 0 and at most {most:g}"
    require(
        0 < low <= high <= most,
        f"--views.{_flag(name)} goes from low to high, {limits}, not {ends}",
    )


def _flag(name: str) -> str:
    return name.replace("_", "-")
