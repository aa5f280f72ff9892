"""A sign of life of every process, so that a stuck one is named instead of waited for.

Each process writes its step, what it does and a growing number to the store of the process group
every BEAT seconds, from a thread. The first process reads all of them, the second the first's. A
process whose number stands still is stopped or gone; one whose number grows while its step does not
is stuck, or does something long that it has announced.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, NamedTuple

import torch.distributed as dist

from selfsup.core.distributed import world
from selfsup.core.ending import tell
from selfsup.core.first_error import say_first

BEAT = 3.0
PATIENCE = 30.0
"""Seconds after which processes that are waited for are named."""
SILENCE = 42.0
"""Seconds without a sign of life after which the run ends."""
LIMIT = 600.0
"""Seconds for one step, where nothing longer is announced, after which the run ends. The first
step, which may compile, has six times as many, and slow ones ten times the longest so far."""
STEP, DATA = "computes a step", "waits for images"
SAVING, CALLER = "writes a checkpoint", "evaluates between steps"
LONG = (SAVING, CALLER)
"""What may take longer than LIMIT."""


class Sign(NamedTuple):
    """What a process has said last, and when it changed, by this process's clock."""

    host: str
    pid: int
    step: int
    doing: str
    beats: int
    beat_at: float
    step_at: float


class Pulse:
    """Say that this process lives, and watch the others; does nothing on one process."""

    def __init__(self, step: int) -> None:
        """Begin after `step` steps; all processes have to."""
        self.rank, self.size = world()
        self.step, self.doing = step, STEP
        self.moved_at, self.longest = 0.0, 0.0
        self.ended = threading.Event()
        self.signs: dict[int, Sign] = {}
        self.named: tuple[int, ...] = ()
        if self.size > 1:
            self.store: Any = dist.distributed_c10d.PrefixStore(
                "selfsup/pulse", dist.distributed_c10d._get_default_store()
            )
            self._say(0)
            threading.Thread(target=self._beat, daemon=True, name="selfsup pulse").start()

    def at(self, step: int, doing: str) -> None:
        """Note what this process does; the next beat says it."""
        if step != self.step and self.moved_at:
            self.longest = max(self.longest, time.monotonic() - self.moved_at)
        self.moved_at = self.moved_at if step == self.step else time.monotonic()
        self.step, self.doing = step, doing

    def close(self) -> None:
        """Stop watching: what follows may take any time."""
        self.ended.set()

    def _beat(self) -> None:
        beats = 0
        while not self.ended.wait(BEAT):
            beats += 1
            with contextlib.suppress(RuntimeError):  # the store ends with the launcher
                self._say(beats)
                if self.rank < 2:
                    self._read(range(self.size) if self.rank == 0 else [0])
                    self._judge()

    def _say(self, beats: int) -> None:
        sign = [socket.gethostname(), os.getpid(), self.step, self.doing, beats]
        self.store.set(str(self.rank), json.dumps(sign))

    def _read(self, whom: Any) -> None:
        now = time.monotonic()
        for rank in whom:
            if not self.store.check([str(rank)]):
                continue
            host, pid, step, doing, beats = json.loads(self.store.get(str(rank)))
            old = self.signs.get(rank)
            beat_at = old.beat_at if old and old.beats == beats else now
            moved = old is None or (old.step, old.doing) != (step, doing)
            step_at = now if moved or old is None else old.step_at
            self.signs[rank] = Sign(host, pid, step, doing, beats, beat_at, step_at)

    def _judge(self) -> None:
        """Name who is waited for, and end the run after a time."""
        now = time.monotonic()
        silent = {r: s for r, s in self.signs.items() if now - s.beat_at > PATIENCE}
        stuck = silent or (self._behind(now) if self.rank == 0 else {})
        if tuple(stuck) != self.named:
            self.named = tuple(stuck)
            if stuck:
                print(f"waiting for {_names(stuck, now)}", file=sys.stderr, flush=True)
        if any(now - s.beat_at > SILENCE for s in silent.values()):
            self._end(silent, now)
        elif self.rank == 0 and min(now - s.step_at for s in self.signs.values()) > self._limit():
            self._end(stuck or self.signs, now)

    def _limit(self) -> float:
        return max(LIMIT, 10 * self.longest) if self.longest else 6 * LIMIT

    def _behind(self, now: float) -> dict[int, Sign]:
        """Processes that the others wait for: the least far of all, if nobody has moved."""
        if any(now - s.step_at < PATIENCE for s in self.signs.values()):
            return {}
        if any(s.doing in LONG for s in self.signs.values()):
            return {r: s for r, s in self.signs.items() if s.doing in LONG}
        place = {r: (s.step, s.doing == STEP) for r, s in self.signs.items()}
        least = min(place.values())
        if least == max(place.values()):
            return {}  # a slow step: nobody waits for another
        return {r: self.signs[r] for r in place if place[r] == least}

    def _end(self, stuck: dict[int, Sign], now: float) -> None:
        if any(sign.doing in LONG and now - sign.beat_at < SILENCE for sign in stuck.values()):
            return
        sentence = f"the run ends, since it has waited for {_names(stuck, now)}; the same command "
        sentence += "goes on from the newest checkpoint"
        say_first(f"error: {sentence}", 1)
        for sign in stuck.values():
            if sign.host == socket.gethostname() and sign.pid != os.getpid():
                with contextlib.suppress(OSError):  # a stopped process takes no gentler signal
                    os.kill(sign.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        tell(1, sentence)
        os._exit(1)


def _names(stuck: dict[int, Sign], now: float) -> str:
    return ", ".join(
        f"process {rank} (pid {s.pid} on {s.host}), which "
        + (
            f"has given no sign of life for {now - s.beat_at:.0f} s"
            if now - s.beat_at > PATIENCE
            else f"{s.doing} for {now - s.step_at:.0f} s after step {s.step}"
        )
        for rank, s in stuck.items()
    )
