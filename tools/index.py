"""Embeddings of a gallery in a folder, to be searched: made, added to, and taken from.

python tools/index.py --model runs/triplet --data gallery/
python tools/index.py --model runs/triplet --data more/ --add
python tools/index.py --model runs/triplet --remove old.jpg other.jpg
"""

from selfsup.config import IndexConfig
from selfsup.core.cli import run as launch
from selfsup.core.live import print_sentence
from selfsup.core.words import cosine, counted


def main(config: IndexConfig) -> None:
    """Build the index and describe it."""
    from selfsup.core.distributed import is_main
    from selfsup.evaluate.indexing import build_index

    built = build_index(config)
    if not is_main():
        return
    index = built.index
    if built.unreadable:
        print_sentence(f"left out {counted(built.unreadable, 'image')} that cannot be read")
    same = "no threshold" if index.threshold is None else f"same above {cosine(index.threshold)}"
    width = index.embeddings.shape[1]
    print_sentence(
        f"{index.folder}: {counted(len(index), 'image')}, {width} wide, {index.engine}, {same}"
    )


def command() -> None:
    """Run from the command line."""
    launch(main, IndexConfig)


if __name__ == "__main__":
    command()
