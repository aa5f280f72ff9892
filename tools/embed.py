"""Embeddings of any number of images in a folder of Parquet files: made once, read by all tools.

python tools/embed.py --model runs/triplet --data images/ --out embeddings/
python tools/embed.py --model runs/triplet --data images/ --out embeddings/ --share 2/8
accelerate launch -m selfsup embed --model runs/triplet --data images/ --out embeddings/
"""

from selfsup.config import EmbedConfig
from selfsup.core.cli import run as launch
from selfsup.core.live import print_sentence


def main(config: EmbedConfig) -> None:
    """Embed this process's share, and say what there is."""
    from selfsup.core.distributed import launched
    from selfsup.evaluate.embedding_folder import embed_folder

    done = embed_folder(config)
    manifest = done.manifest
    rank, processes = launched()
    who = f"process {rank + 1} of {processes}: " if processes > 1 else ""
    if done.bad:
        name, why = next(iter(done.bad.items()))
        print_sentence(f"{who}{len(done.bad)} images cannot be read, such as {name}: {why}")
    there = f"{manifest.parts - done.missing} of {manifest.parts} parts are there"
    images = f"{manifest.rows:,} images at {manifest.size} pixels"
    print_sentence(f"{who}{done.folder}: {there}, of {images}; {done.made:,} were embedded now")
    if done.missing:
        print_sentence(f"{who}other shares make the {done.missing} others")


def command() -> None:
    """Run from the command line."""
    launch(main, EmbedConfig)


if __name__ == "__main__":
    command()
