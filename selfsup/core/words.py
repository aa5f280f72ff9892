"""Numbers in sentences: "1 image", "2,000 images"."""


def counted(count: int, one: str, several: str = "") -> str:
    """Write a number and the words that go with it.

    Args:
        count: how many there are.
        one: the words after 1: "image", "row is".
        several: the words after any other number: "rows are"; by default `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
