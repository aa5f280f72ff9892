"""Embeddings of any number of images in a folder of Parquet files: made once, read by all tools.

python tools/embed.py --model runs/triplet --data images/ --out embeddings/
python tools/embed.py --model runs/triplet --data images/ --out embeddings/ --share 2/8
accelerate launch -m selfsup embed --model runs/triplet --data images/ --out embeddings/
"""

from selfsup.config import EmbedConfig
from selfsup.core.cli import run as launch
from selfsup.core.live import print_sentence
from selfsup.core.words import counted


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
        bad = counted(len(done.bad), "image")
        print_sentence(f"{who}{bad} cannot be read, such as {name}: {why}")
    if manifest.rows_a_part != config.part:
        passes = f"whole passes of {counted(manifest.batch, 'image')}"
        print_sentence(f"{who}--part {config.part} -> {manifest.rows_a_part:,}: {passes}")
    parts = counted(manifest.parts, "part is", "parts are")
    there = f"{manifest.parts - done.missing} of {parts} there"
    images = f"{counted(manifest.rows, 'image')} at {manifest.size} pixels"
    made = counted(done.made, "was", "were")
    print_sentence(f"{who}{done.folder}: {there}, of {images}; {made} embedded now")
    if done.missing:
        print_sentence(f"{who}other shares make the {counted(done.missing, 'other')}")


def command() -> None:
    """Run from the command line."""
    launch(main, EmbedConfig)


if __name__ == "__main__":
    command()
