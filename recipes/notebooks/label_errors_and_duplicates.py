# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Find label errors and duplicates
#
# Open this file as a notebook (jupytext, or VS Code's "Run Cell"), or run it with `python`. As it
# stands it draws its images and plants errors in them, so that what is found can be counted. For
# yours, change the first cell: nothing is planted then.

# %%
import random
import shutil
from pathlib import Path

import torch

import selfsup
from selfsup.config import EncoderConfig, OptimConfig, ViewsConfig

ROOM = Path("runs/doubtful")  # everything is written here
MINE = ""  # your labelled images, as a folder of folders
MODEL = ""  # what to look with: a run, "timm:resnet50"; empty: an encoder trained below
STEPS = 240

# %% [markdown]
# ## Images, with errors that we know of
#
# Cloths, ten pieces of each of 60. Ten images go to the folder of another cloth, and of ten others
# a copy, smaller and brighter, is put beside them or into another folder.

# %%
from PIL import Image, ImageEnhance

from selfsup.data.demo_drawings import DRAWINGS, drawing


def draw(folder: Path, cloths: int) -> None:
    """Write a folder for each cloth, with its drawings."""
    shutil.rmtree(folder, ignore_errors=True)
    for cloth in range(cloths):
        (folder / f"cloth{cloth}").mkdir(parents=True)
        for i in range(DRAWINGS):
            Image.fromarray(drawing(cloth, i, side=48)).save(folder / f"cloth{cloth}" / f"{i}.png")


def plant(folder: Path) -> tuple[set[str], set[str]]:
    """Mislabel ten images and copy ten others; return their names."""
    rng = random.Random(0)
    chosen = rng.sample(sorted(folder.glob("*/*.png")), 20)
    wrong, copies = set(), set()
    for file in chosen[:10]:
        other = rng.choice([each for each in sorted(folder.iterdir()) if each != file.parent])
        wrong.add(str(file.rename(other / f"moved-{file.name}").relative_to(folder)))
    for i, file in enumerate(chosen[10:]):
        image = ImageEnhance.Brightness(Image.open(file).resize((40, 40))).enhance(1.05)
        place = file.parent if i % 2 else rng.choice(sorted(folder.iterdir()))
        image.save(place / f"copy{i}.png")
        copies.add(str((place / f"copy{i}.png").relative_to(folder)))
    return wrong, copies


data = Path(MINE or ROOM / "cloths")
wrong: set[str] = set()
copies: set[str] = set()
if not MINE:
    draw(data, 60)
    wrong, copies = plant(data)

# %% [markdown]
# ## Duplicates
#
# The audit reads everything once. A group holds images that are one picture, be it in another size
# or light; one with two labels is a label error or a picture of two things. The same as
# `selfsup audit --data FOLDER`, which also writes a page with the pictures.

# %%
from selfsup.data.audit import audit
from selfsup.data.open import open_source

source = open_source(str(data))
report = audit(source, str(data))
doubled = {report.names[i] for group in report.near for i in group}
print(f"{len(report.bad)} cannot be read, {len(report.near)} groups of near duplicates")
for group in report.two_classes[:5]:
    print("one picture, two classes:", ", ".join(report.names[i] for i in group))
if copies:
    print(f"of {len(copies)} planted copies {len(copies & doubled)} are found")

# %% [markdown]
# ## Something to look with
#
# An encoder that has never heard of the labels, so that it has not learnt their errors: one trained
# without labels, on these very images, or a published one.

# %%
model = MODEL
if not model:
    run = selfsup.pretrain(
        str(data),
        out=ROOM / "run",
        encoder=EncoderConfig(name="test_resnet", stem="standard"),
        views=ViewsConfig(size=32, area=(0.3, 1.0), rotate=1.0, strength=0.8, hue=0.1, blur=0.0),
        batch=120,
        steps=STEPS,
        optim=OptimConfig(lr=0.24),
    )
    model = str(run.folder)

# %% [markdown]
# ## Label errors
#
# An image is suspect whose nearest images agree on one other label. The most certain come first;
# look at them, since a rare kind of a class looks like an error too. `own` says how far to trust
# this: the fraction of nearest images that have their image's label.

# %%
from selfsup.evaluate.label_suspects import MOST, label_suspects
from selfsup.search.neighbours import nearest

embedded = selfsup.embed(model, str(data))
assert embedded.labels is not None
classes = sorted(set(embedded.labels))
labels = torch.tensor([classes.index(label) for label in embedded.labels])
with torch.inference_mode():
    blocks = list(nearest(embedded.x, embedded.x, MOST, exclude_self=True, memory=1 << 28))
suspects = label_suspects(labels, torch.cat([block.indices for block in blocks]))
print(f"{len(suspects.rows)} suspects; own {suspects.own:.2f}")
for row, suggested, share in zip(
    suspects.rows.tolist()[:10],
    suspects.suggested.tolist(),
    suspects.agreement.tolist(),
    strict=False,
):
    print(
        f"{embedded.names[row]}: {embedded.labels[row]}, rather {classes[suggested]} ({share:.0%})"
    )
if wrong:
    found = {embedded.names[row] for row in suspects.rows.tolist()} & wrong
    print(f"of {len(wrong)} planted label errors {len(found)} are among the suspects")
