# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Adapt an encoder to my images, and see whether it helped
#
# Open this file as a notebook (jupytext, or VS Code's "Run Cell"), or run it with `python`. As it
# stands it draws its own images, so that it runs anywhere in some minutes without a GPU. For yours,
# change the first cell.

# %%
from pathlib import Path

import selfsup
from selfsup.config import EncoderConfig, OptimConfig, ViewsConfig

ROOM = Path("runs/notebook")  # everything is written here
MINE = ""  # your labelled images: a folder of folders, or whatever else --data takes
START = ""  # published weights: "timm:resnet50", a file, a run; empty: an encoder trained below
STEPS = 120

# %% [markdown]
# ## My images
#
# Cloths, ten pieces of each. Of 40 cloths there are names; 40 others are a heap without names,
# which the encoder to start from learns from.

# %%
from PIL import Image

from selfsup.data.demo_drawings import DRAWINGS, drawing


def draw(folder: Path, cloths: range) -> str:
    """Write a folder for each cloth, with its drawings."""
    for cloth in cloths:
        (folder / f"cloth{cloth}").mkdir(parents=True, exist_ok=True)
        for i in range(DRAWINGS):
            Image.fromarray(drawing(cloth, i, side=48)).save(folder / f"cloth{cloth}" / f"{i}.png")
    return str(folder)


mine = MINE or draw(ROOM / "cloths", range(40))
views = ViewsConfig(size=32, area=(0.3, 1.0), rotate=1.0, strength=0.8, hue=0.1, blur=0.0)

# %% [markdown]
# ## Weights to start from
#
# `timm:NAME` takes published ones. Here a small encoder learns from the heap without names.

# %%
start = START
if not start:
    run = selfsup.pretrain(
        draw(ROOM / "heap", range(40, 80)),
        out=ROOM / "start",
        encoder=EncoderConfig(name="test_resnet", stem="standard"),
        views=views,
        batch=100,
        steps=STEPS,
        optim=OptimConfig(lr=0.24),
    )
    start = str(run.folder)

# %% [markdown]
# ## Adapt
#
# A part of the images is kept apart to choose by and a part to judge by, before anything is
# trained. The last line is the verdict, with a 95 % interval; where no lead is proven, the
# published weights are kept.

# %%
adapted = selfsup.adapt(mine, init=start, out=ROOM / "mine", steps=STEPS)
print(adapted.verdict())

# %% [markdown]
# ## Look
#
# Queries drawn at random, and the images nearest to each, before and after. These are all of my
# images, those of training too: the verdict above is on images that training has not seen.

# %%
from selfsup.tools import neighbours

neighbours.main(
    neighbours.Config(
        models=(str(ROOM / "mine" / "published"), str(ROOM / "mine")),
        names=("before", "after"),
        data=mine,
        out=str(ROOM / "neighbours.png"),
    )
)

# %% [markdown]
# ## Search
#
# `search` takes what `embed` returned, so that a gallery is embedded once.

# %%
gallery = selfsup.embed(ROOM / "mine", mine)
for hit in selfsup.search(ROOM / "mine", gallery, gallery, k=4)[0]:
    print(f"{hit.similarity:.3f}  {hit.label}  {hit.name}")
