"""Numbers in sentences: "1 image", "2,000 images"."""


def counted(count: int, one: str, several: str = "") -> str:
    """Write a number and the words that go with it.

    Args:
        count: how many there are.
        one: the words after 1: "image", "row is".
        several: the words after any other number: "rows are"; by default `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def cosine(value: float) -> str:
    """Write a cosine with three digits, or with as many as tell it from 1.

    >>> cosine(0.9), cosine(0.99953), cosine(1.0)
    ('0.900', '0.9995', '1.000')
    """
    rounded = (f"{value:.{digits}f}" for digits in range(3, 7))
    return next((text for text in rounded if value >= 1 or float(text) < 1), f"{value:.6f}")
