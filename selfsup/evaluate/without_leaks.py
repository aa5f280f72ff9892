"""What leaks do to a measurement: figures without leaked images, and a warning above the table."""

from torch import Tensor

from selfsup.evaluate.comparison import Measurement
from selfsup.evaluate.features import Features
from selfsup.evaluate.leaks import LeakCheck


def with_leaks(
    measured: Measurement,
    check: LeakCheck,
    test: Features,
    *more: str,
    rows: Tensor | None = None,
) -> Measurement:
    """Add which values are of images that are not in train, counts, and warnings.

    Args:
        measured: a value for each test image, or for those of `rows`.
        check: finds leaked images.
        test: the test images.
        more: further warnings; empty ones are none.
        rows: int64, which test images the values are of.
    """
    without_leaks, counts = check.without_leaks(test)
    warnings = [sentence for sentence in more if sentence]
    if without_leaks is not None:
        leaked, total = int((~without_leaks).sum()), len(without_leaks)
        if leaked == total:
            warnings.append(
                f"all {total} test images are in train too: the first figures measure nothing. "
                "Those below, where there are any, are without each image's own copies"
            )
        elif leaked:
            warnings.append(
                f"{leaked} of {total} test images are in train too: read the figures without them"
            )
        without_leaks = without_leaks if rows is None else without_leaks[rows]
    return measured._replace(
        facts=measured.facts | counts,
        without_leaks=without_leaks,
        warnings=(*measured.warnings, *warnings),
    )


def all_leaked(measured: Measurement) -> bool:
    """Whether every value is of an image that is in train too."""
    return measured.without_leaks is not None and not bool(measured.without_leaks.any())
