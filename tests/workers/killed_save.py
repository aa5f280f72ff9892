"""Pretrain, and be killed while a thread writes a checkpoint and training has gone on.

python killed_save.py CHECKPOINT FLUSH FLAGS...: at the FLUSH-th flush of the CHECKPOINT-th save,
once the next step is logged.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import recipes.pretrain_simclr as recipe
from selfsup.core.disk import flush
from selfsup.training import checkpoint

FLUSHES = 5
"""Of a save: three files, their folder, and the folder of checkpoints after the renaming."""
nth, place = int(sys.argv.pop(1)), int(sys.argv.pop(1))
out = Path(sys.argv[sys.argv.index("--out") + 1])
saved = nth * int(sys.argv[sys.argv.index("--save-every") + 1])
seen = 0


def logged() -> int:
    lines = (out / "log.jsonl").read_text().splitlines()
    return int(json.loads(lines[-1])["step"])


def killing(path: Path) -> None:
    global seen
    seen += 1
    flush(path)
    if seen == FLUSHES * (nth - 1) + place:
        assert threading.current_thread() is not threading.main_thread()
        while logged() <= saved:  # on a slow disk training may wait for this save already
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


vars(checkpoint)["flush"] = killing
recipe.command()
